"""Run directories and checkpoints on a disk: what is refused, what survives a kill, what comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_rl.checkpoint import (
    FREE_TO_CHANGE,
    Progress,
    arithmetic,
    export_model,
    flatten,
    load_checkpoint,
    mark_best,
    open_run,
    remembered,
    resume_line,
    resume_notes,
    save_checkpoint,
    summarise,
)
from spark_rl.config import Config, settings_table
from spark_rl.errors import ConfigError
from spark_rl.files import write_json
from spark_rl.learner.local import LocalLearner
from spark_rl.manifest import damage_of
from spark_rl.model.load import load_model
from spark_rl.model.places import find_model
from spark_rl.problem import Problem
from spark_rl.recycle import Pool
from spark_rl.runs import checkpoints
from tiny import learner_of, random_groups, tiny_config


def problem(number: int) -> Problem:
    return Problem(
        id=f"p-{number}/pointwise-0", question=f"{number}?", answer="Yes", kind="verdict", task="pointwise",
        prompt="Is it \u201cright\u201d?\n", images=("a.png",), choices=("x", "y"), source="s", parent=f"p-{number}",
    )  # fmt: skip


def pool_of(count: int, size: int = 8) -> Pool:
    pool = Pool(size)
    pool.add(problem(number) for number in range(count))
    return pool


@pytest.fixture
def learner(tiny_models: dict[str, Path]) -> LocalLearner:
    return learner_of(tiny_models["llama"], optimiser={"lr": 0.01})


# --- open_run -------------------------------------------------------------------------------------------------------


def test_a_new_run_writes_its_configuration(tmp_path: Path) -> None:
    run_dir = tmp_path / "deep" / "run"
    open_run(run_dir, Config(seed=3), resume=False)
    saved = json.loads((run_dir / "config.json").read_text())
    assert Config.model_validate(saved) == Config(seed=3)


def test_a_second_run_in_the_same_place_is_refused(tmp_path: Path) -> None:
    open_run(tmp_path, Config(), resume=False)
    with pytest.raises(ConfigError, match=r"already holds a run; continue it with --resume or choose another"):
        open_run(tmp_path, Config(), resume=False)


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run to resume; start one without --resume"):
        open_run(tmp_path, Config(), resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write the run directory .*file/run: Not a directory"):
        open_run(tmp_path / "file" / "run", Config(), resume=False)


def config_with(dotted: str, value: Any) -> Config:
    tree: dict[str, Any] = {}
    node = tree
    *parents, leaf = dotted.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = value
    return Config.model_validate(tree)


@pytest.mark.parametrize(
    ("dotted", "value", "shown"),
    [
        ("optimiser.lr", 1e-3, r"optimiser\.lr=5e-07, not 0\.001"),
        ("seed", 9, "seed=0, not 9"),
        ("model.lora", {"rank": 4}, r"model\.lora\.alpha=None, not 32\.0"),
        ("chat.stop", ["\n"], r"chat\.stop=\[\], not \['\\n'\]"),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path, dotted: str, value: Any, shown: str) -> None:
    open_run(tmp_path, Config(), resume=False)
    with pytest.raises(ConfigError, match=shown):
        open_run(tmp_path, config_with(dotted, value), resume=True)
    with pytest.raises(ConfigError, match="already holds"):
        open_run(tmp_path, Config(), resume=False)
    open_run(tmp_path, Config(), resume=True)


@pytest.mark.parametrize(
    ("dotted", "value"), [("train.steps", 7), ("train.keep", 9), ("learner.micro_tokens", 64), ("model.device", "cpu")]
)
def test_how_long_how_often_and_where_may_change(tmp_path: Path, dotted: str, value: Any) -> None:
    open_run(tmp_path, Config(), resume=False)
    open_run(tmp_path, config_with(dotted, value), resume=True)
    saved = Config.model_validate_json((tmp_path / "config.json").read_text())
    assert saved == config_with(dotted, value)


def test_what_may_change_exists() -> None:
    assert {name for name, *_ in settings_table()} >= FREE_TO_CHANGE


def test_flatten_names_leaves_by_dotted_keys() -> None:
    assert flatten({"a": 1, "b": {"c": [2], "d": {"e": None}}}) == {"a": 1, "b.c": [2], "b.d.e": None}


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_exactly(learner: LocalLearner, tmp_path: Path) -> None:
    learner.update(random_groups(2, 4))
    pool = pool_of(11)
    assert (len(pool), pool.dropped) == (8, 3)
    counters = Progress(12, 3456, 7.25, {"policy": 1, "pairwise": 0}, 40, {"threads": 2, "torch": "2"})
    path = save_checkpoint(tmp_path, learner, pool, counters, keep=2)
    assert path == tmp_path / "checkpoints" / "step-000012"
    fresh = LocalLearner(load_model(learner.config, path / "model"), learner.config)
    found, progress = load_checkpoint(path, fresh, 8)
    assert progress == counters
    assert (found.take(99), found.dropped) == ([problem(n) for n in range(3, 11)], 3)
    learner.update(random_groups(2, 4, seed=1))
    fresh.update(random_groups(2, 4, seed=1))
    for a, b in zip(learner.loaded.model.parameters(), fresh.loaded.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_newest_are_kept_in_numeric_order(learner: LocalLearner, tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        save_checkpoint(tmp_path, learner, pool_of(1), Progress(step), keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-999999", "step-1000000"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-1000000", "step-999999"]


def test_a_killed_save_leaves_no_checkpoint_and_no_trace(learner: LocalLearner, tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / ".step-000005.partial"
    leftover.mkdir(parents=True)
    (leftover / "learner.json").write_bytes(b"half")
    assert checkpoints(tmp_path) == []
    path = save_checkpoint(tmp_path, learner, pool_of(1), Progress(5), keep=2)
    assert checkpoints(tmp_path) == [path]
    assert not leftover.exists()
    assert load_checkpoint(path, learner, 8)[1].step == 5


def test_a_save_that_fails_leaves_the_one_before(learner: LocalLearner, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, learner, pool_of(1), Progress(5), keep=1)
    pool = Pool(3)
    pool.add([Problem(id="p", question="?", answer="1", images=(object(),))])  # no image, so it can't be saved
    with pytest.raises(ValueError, match="neither a path nor"):
        save_checkpoint(tmp_path, learner, pool, Progress(6), keep=1)
    assert checkpoints(tmp_path) == [path]
    assert load_checkpoint(path, learner, 8)[1].step == 5


def test_a_checkpoint_of_the_same_step_is_replaced(learner: LocalLearner, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, learner, pool_of(1), Progress(5, tokens=1), keep=2)
    path = save_checkpoint(tmp_path, learner, pool_of(2), Progress(5, tokens=2), keep=2)
    found, progress = load_checkpoint(path, learner, 8)
    assert (len(found), progress.tokens) == (2, 2)
    assert checkpoints(tmp_path) == [path]


def test_no_checkpoints_in_a_new_run(tmp_path: Path) -> None:
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("learner.json", b""),
        ("learner.json", None),
        ("shards/shard-00001-model-00001-of-00001.safetensors", b""),
        ("shards/shard-00001-model-00001-of-00001.safetensors", b"garbage"),
        ("shards/shard-00001-model-00001-of-00001.safetensors", None),
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b'{"step": 1}'),
        (
            "state.json",
            b'{"step": 1, "tokens": 0, "seconds": 0, "skipped": {}, "steps": 9, "terms": {}, '
            b'"pool": [{"id": "p"}], "dropped": 0}',
        ),
    ],
)
def test_a_checkpoint_that_is_whole_and_wrong_is_said_in_one_line(
    learner: LocalLearner, tmp_path: Path, name: str, content: bytes | None
) -> None:
    learner.update(random_groups(1, 4))
    path = save_checkpoint(tmp_path, learner, pool_of(1), Progress(5), keep=2)
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(
        ConfigError, match=r"checkpoint .*step-000005 can't be read \(.+\); remove it to resume"
    ) as caught:
        load_checkpoint(path, learner, 8)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_a_file_is_said_in_one_line(learner: LocalLearner, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, learner, pool_of(1), Progress(5), keep=2)
    (path / "state.json").unlink()
    with pytest.raises(ConfigError, match="can't be read"):
        load_checkpoint(path, learner, 8)


# --- what a resume says -------------------------------------------------------------------------------------------


def notes(learner: LocalLearner, found: Progress, **now: Any) -> list[str]:
    return list(resume_notes(found, replace(found, **now), learner, learner.config.optimiser.schedule))


def test_a_resume_on_the_same_terms_says_nothing(learner: LocalLearner) -> None:
    terms = arithmetic(learner.config, learner.loaded.device)
    assert notes(learner, Progress(5, steps=10, terms=terms)) == []
    assert notes(learner, Progress(5, steps=10, terms=terms), steps=99) == [], "a constant rate stays what it is"


def test_what_the_last_bits_depend_on_is_named(learner: LocalLearner) -> None:
    before = arithmetic(learner.config, learner.loaded.device)
    assert before["threads"] == torch.get_num_threads()
    assert before["device"] == "cpu"
    assert before["torch"] == torch.__version__
    assert before["learner.micro_tokens"] == learner.config.learner.micro_tokens


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"threads": 7}, "(threads 1 -> 7)"),
        ({"learner.micro_tokens": 64}, "(learner.micro_tokens 16384 -> 64)"),
        ({"device": "mps", "torch": "3.0"}, "(device cpu -> mps, torch 2.0 -> 3.0)"),
        ({"GPU": "H100"}, "(GPU none -> H100)"),
    ],
)
def test_a_resume_on_other_terms_says_that_it_may_diverge(
    learner: LocalLearner, changes: dict[str, str | int], named: str
) -> None:
    terms: dict[str, str | int] = {"device": "cpu", "threads": 1, "learner.micro_tokens": 16384, "torch": "2.0"}
    (line,) = notes(learner, Progress(5, steps=10, terms=terms), terms=terms | changes)
    assert line.startswith("this run may diverge from one that was never interrupted")
    assert line.endswith(named)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("schedule", "steps", "line"),
    [
        ("linear", 20, "the linear schedule of the learning rate now ends at step 20 instead of 10: at step 11 it goes "
                       "on at 0.55 instead of 0.1"),
        ("cosine", 40, "the cosine schedule of the learning rate now ends at step 40 instead of 10: at step 11 it goes "
                       "on at 0.868 instead of 0.1"),
        ("linear", 10, None),
        ("constant", 20, None),
    ],
)  # fmt: skip
def test_another_schedule_is_said_with_the_rate_it_was_and_becomes(
    tiny_models: dict[str, Path], schedule: str, steps: int, line: str | None
) -> None:
    learner = learner_of(tiny_models["llama"], optimiser={"lr": 1.0, "schedule": schedule, "final_lr": 0.1})
    assert notes(learner, Progress(10, steps=10), steps=steps) == ([] if line is None else [line])


# --- small files ----------------------------------------------------------------------------------------------------


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": "\u03bb"})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "\u03bb"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_what_is_remembered_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"made": len(made)}

    for step in (0, 0, 7):
        assert remembered(tmp_path / "before.json", make, lambda content: "made" in content, step) == {"made": 1}
    assert made == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"other": 1}', b"\xff", b"null"])
def test_what_is_remembered_and_damaged_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "before.json").write_bytes(content)

    def whole(found: Any) -> bool:
        return isinstance(found, dict) and "made" in found

    with pytest.raises(ConfigError, match=r"before\.json is damaged; remove it and resume: it is made again$"):
        remembered(tmp_path / "before.json", lambda: {"made": 1}, whole)
    with pytest.raises(ConfigError, match=r"is damaged; it holds what was measured before training, .*: restore it or"):
        remembered(tmp_path / "before.json", lambda: {"made": 1}, whole, step=3)
    assert (tmp_path / "before.json").read_bytes() == content


def test_what_was_measured_before_training_is_not_measured_after_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"before\.json is missing; it holds what was measured before training"):
        remembered(tmp_path / "before.json", dict, lambda content: content == {}, step=1)
    assert not list(tmp_path.iterdir())


# --- the best checkpoint --------------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_never_rotated_away(learner: LocalLearner, tmp_path: Path) -> None:
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 3), (5, 3), (6, 3)):
        save_checkpoint(tmp_path, learner, pool_of(1), Progress(step), 2, best)
        mark_best(tmp_path, best)
        newest = {step - 1, step} - {0}
        assert {int(path.name.removeprefix("step-")) for path in checkpoints(tmp_path)} == newest | {best}
        assert (tmp_path / "best").resolve().name == f"step-{best:06d}"
    assert (tmp_path / "best").readlink() == Path("checkpoints/step-000003"), "a run can be moved whole"
    assert find_model(tmp_path / "best") == find_model(tmp_path / "checkpoints" / "step-000003")


def test_a_model_is_exported_whole(learner: LocalLearner, tmp_path: Path) -> None:
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "half").write_text("x")
    assert export_model(tmp_path, learner, 0) == export_model(tmp_path, learner, 0) == tmp_path / "model"
    assert not (tmp_path / "model" / "half").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert damage_of(tmp_path / "model") is None


@pytest.mark.parametrize(
    ("logged", "step", "line"),
    [
        (6, 6, "goes on at step 7 of 45"),
        (8, 6, "goes on at step 7 of 45; drops 2 steps logged after checkpoint step-000006"),
        (7, 6, "goes on at step 7 of 45; drops 1 step logged after checkpoint step-000006"),
        (3, 0, "goes on at step 1 of 45; drops 3 steps logged before a checkpoint was saved"),
        (0, 0, "goes on at step 1 of 45"),
        (45, 45, "all 45 steps are done"),
    ],
)
def test_a_resume_says_where_it_goes_on_and_what_it_drops(tmp_path: Path, logged: int, step: int, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {n + 1}}}\n' for n in range(logged)) + '{"st')
    assert resume_line(tmp_path, Progress(step, steps=45)) == line
    (tmp_path / "metrics.jsonl").unlink()
    assert resume_line(tmp_path, Progress(step, steps=45)) == line.partition(";")[0]


def test_the_summary_is_json_and_complete(tmp_path: Path) -> None:
    config = tiny_config("m")
    before, after = {"heldout": {"n": 2.0}, "transfer": {"n": 1.0}}, {"heldout": {"n": 3.0}, "transfer": {"n": 4.0}}
    summary = summarise(config, before, after, Progress(5, 60, 7.5, {"reflection": 2}))
    assert summary["skipped"] == {"reflection": 2}
    write_json(tmp_path / "summary.json", summary)
    assert (summary["before"], summary["after"]) == ({"n": 2.0}, {"n": 3.0})
    assert summary["transfer"] == {"before": {"n": 1.0}, "after": {"n": 4.0}}
    assert (summary["tokens"], summary["seconds"]) == (60, 7.5)
    assert Config.model_validate(summary["config"]) == config
    assert summary["versions"]["torch"] == torch.__version__
    without = summarise(config, {}, {}, Progress())
    assert (without["before"], without["after"], "transfer" in without) == (None, None, False)
