"""Damage to the files of a run beside its checkpoints, done from outside the product: it is said, by whoever reads."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from running import facts, small
from spark_rl.checkpoint import check_files, check_run
from spark_rl.cli import main
from spark_rl.commands.runs import listed
from spark_rl.config import Config
from spark_rl.errors import UserError
from spark_rl.examination import EVALUATIONS
from spark_rl.manifest import MANIFEST, changes, held, write_manifest
from spark_rl.report.html import write_report
from spark_rl.report.metrics import read_rows
from spark_rl.report.watch import Silent
from spark_rl.run import train
from spark_rl.runs import SEEN, checkpoints, kept_bytes, seen_by
from test_damage import cut, flip

SETTINGS = (
    "train.steps=3", "train.save_every=2", "train.eval_every=1", "train.best=policy_accuracy", "train.keep=4",
    "data.heldout=procedural:missing", "evaluation.problems=2", "inference.rounds=1", "inference.max_new_tokens=8",
    "rollout.max_new_tokens=12", "rollout.problems=2", "verify.workers=1",
)  # fmt: skip
ROWS = ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl", "outcomes.jsonl")
FILES = ("config.json", "parts.json", "pairs.json", "before.json", *ROWS)


@dataclass(slots=True)
class Heard(Silent):
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


def config_of(run_dir: Path, *overrides: str) -> Config:
    return small(run_dir, *SETTINGS, *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, with checkpoints of steps 1 (the best), 2 and 3."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(config_of(run_dir))
    return run_dir


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy that goes on after step 2."""
    copied = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    shutil.rmtree(copied / "checkpoints" / "step-000003")
    (copied / "best").unlink()
    (copied / "summary.json").unlink()
    return copied


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we have logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("spark_rl")]


def resumed(run_dir: Path, *overrides: str) -> list[str]:
    """The notes of a run that goes on to its end."""
    train(config_of(run_dir, *overrides), resume=True, watcher=(heard := Heard()))
    return heard.notes


def test_a_checkpoint_has_seen_every_file_of_its_run(whole: Path) -> None:
    for path in checkpoints(whole):
        seen = seen_by(path)
        assert set(seen["files"]) == set(FILES) - {"config.json"}
        assert seen["config"] == json.loads((whole / "config.json").read_text())
        assert changes(whole, seen["files"]) == {}
        for name in ROWS:
            size = kept_bytes(seen["files"], name)
            steps = [json.loads(row)["step"] for row in (whole / name).read_bytes()[:size].splitlines()]
            assert max(steps) == int(path.name[-1]), name


def test_nothing_is_said_of_a_run_that_is_whole(run: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert resumed(run) == [
        "goes on at step 3 of 3; drops 1 step logged after checkpoint step-000002", *best_of(whole, run),
    ]  # fmt: skip
    assert main(["report", str(run)]) == 0
    assert not ours(caplog)
    for name in ROWS:
        assert len((run / name).read_bytes().splitlines()) == len((whole / name).read_bytes().splitlines())
    assert facts(run) == facts(whole)


def best_of(whole: Path, run: Path) -> list[str]:
    """The note about the best evaluation."""
    best = json.loads((whole / "summary.json").read_text())["best"]
    model = run / "checkpoints" / f"step-{best['step']:06d}"
    return [f"best policy_accuracy was {best['score']:.3f} at step {best['step']}: --model {model}"]


def test_damaged_rows_stay_and_those_after_the_checkpoint_are_made_again(
    run: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[1].replace(b":", b"\0"), lines[2].replace(b":", b";")
    (run / "metrics.jsonl").write_bytes(b"".join(lines))
    evaluated = (run / EVALUATIONS).read_bytes().splitlines(keepends=True)
    (run / EVALUATIONS).write_bytes(b"".join([evaluated[0], evaluated[1][1:], evaluated[2]]))
    notes = resumed(run)
    assert notes[:3] == [
        f"{run}: changed since step-000002 was saved: metrics.jsonl holds other bytes than were written; "
        "evaluations.jsonl holds other bytes than were written",
        "goes on at step 3 of 3",
        f"{run / 'metrics.jsonl'}: 1 of 2 rows is damaged and left out (line 2)",
    ]
    assert not ours(caplog), "said already"
    now = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert now[:2] == lines[:2]
    again = [evaluated[0], evaluated[1][1:], *evaluated[1:]]
    assert (run / EVALUATIONS).read_bytes().splitlines(keepends=True) == again, "step 2 is evaluated once more"
    assert len(now) == 3
    (run / "metrics.jsonl").write_bytes(b"".join([lines[0], *now[2:]]))
    assert facts(run) == [row for row in facts(whole) if row["step"] != 2]
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    assert changes(run, seen_by(checkpoints(run)[-1])["files"]).keys() == {"metrics.jsonl"}, "by this very test"


def harm(path: Path, rng: random.Random) -> int:
    """Flip a bit, or cut a file off; where."""
    before, bit = path.read_bytes(), rng.randrange(8 * path.stat().st_size)
    (flip if rng.random() < 0.7 else lambda path, bit: cut(path, bit // 8))(path, bit)
    return -1 if path.read_bytes() == before else bit // 8


def is_said(name: str, said: list[str], at: int, run: Path, before: bytes) -> bool:
    """Whether damage at a byte is said, or is none, or lies where a checkpoint has not seen the file."""
    if any(name in line for line in said):
        return True
    if name == "config.json":
        try:
            return bool(json.loads(before) == json.loads((run / name).read_bytes()))
        except ValueError:
            return False
    return at >= kept_bytes(seen_by(checkpoints(run)[-1])["files"], name)


def test_harm_to_any_file_is_said_by_the_report(whole: Path, tmp_path: Path) -> None:
    run, rng = shutil.copytree(whole, tmp_path / "run", symlinks=True), random.Random(5)
    for name in FILES * 10:
        before, said = (run / name).read_bytes(), list[str]()
        at = harm(run / name, rng)
        try:
            page = write_report(run, said.append).read_text()
            assert all(line.partition(" (")[0].partition("'")[0] in page for line in said)
        except UserError as error:
            said = [str(error)]
        assert is_said(name, said, at, run, before), (name, at, said)
        about = listed(run, tmp_path, None).about
        assert name in about or name not in {"parts.json", "pairs.json", "before.json"}
        (run / name).write_bytes(before)
    write_report(run, said.append)


def test_harm_to_settings_is_said_on_resume(run: Path) -> None:
    rng, saved = random.Random(7), checkpoints(run)[-1]
    for name in ("config.json", "parts.json") * 40:
        before = (run / name).read_bytes()
        at = harm(run / name, rng)
        try:
            check_run(run, config_of(run), resume=True)
            said = list(check_files(run, saved))
        except UserError as error:
            said = [str(error)]
        is_refused = any("was made with" in line for line in said)
        assert is_refused or is_said(name, said, at, run, before), (name, at, said)
        (run / name).write_bytes(before)
    assert list(check_files(run, saved)) == []


def test_harm_to_rows_is_said_on_resume_or_made_good(run: Path, whole: Path, tmp_path: Path) -> None:
    for seed in range(2):
        copied, rng = shutil.copytree(run, tmp_path / str(seed) / "run"), random.Random(seed)
        seen = seen_by(checkpoints(copied)[-1])["files"]
        at = {name: harm(copied / name, rng) for name in ROWS}
        notes = resumed(copied)
        for name in ROWS:
            kept = kept_bytes(seen, name)
            assert any(name in line for line in notes) == (at[name] < kept), (seed, name, at[name], kept, notes)
            steps = [record["step"] for record in read_rows(copied / name)[0]]
            assert steps.count(3) == [record["step"] for record in read_rows(whole / name)[0]].count(3)


def changed(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


def test_what_was_measured_before_is_never_another(run: Path, whole: Path) -> None:
    for name in ("before.json", "pairs.json"):
        (run / name).write_text(json.dumps(json.loads((run / name).read_text())))
        with pytest.raises(UserError, match=rf"{name} has .* bytes instead of .*: restore it or start a new run"):
            resumed(run)
        shutil.copy(whole / name, run / name)


def test_settings_that_are_others_than_when_it_was_saved_are_said(run: Path) -> None:
    changed(run / "config.json", '"steps": 3', '"steps": 5')
    notes = resumed(run)
    assert notes[0] == f"{run / 'config.json'} says train.steps=5, and step-000002 was saved with 3"
    changed(run / "config.json", '"seed": 0', '"seed": 1')
    with pytest.raises(UserError, match=r"config.json says seed=1, and step-000003 .* is damaged; restore it or start"):
        resumed(run, "seed=1")


def test_the_best_checkpoint_is_not_removed_for_a_damaged_evaluation(run: Path) -> None:
    (run / "best").symlink_to("checkpoints/step-000001")
    lines = (run / EVALUATIONS).read_bytes().splitlines(keepends=True)
    (run / EVALUATIONS).write_bytes(b"".join([lines[0][1:], *lines[1:]]))
    with pytest.raises(UserError, match=r"best leads to step-000001, and by what is left of .* the best is step 2; re"):
        resumed(run, "train.keep=1")
    assert (run / "best").is_dir()
    (run / "best").unlink()
    assert f"{run / EVALUATIONS}: 1 of 2 rows is damaged and left out (line 1)" in resumed(run, "train.keep=1")


def test_a_run_of_before_says_nothing_of_its_files(run: Path) -> None:
    saved = run / "checkpoints" / "step-000002"
    (saved / SEEN).unlink()
    (run / "before.json").write_text(json.dumps(json.loads((run / "before.json").read_text())))
    said: list[str] = []
    write_report(run, said.append)
    assert (said, seen_by(saved)) == ([], {"config": {}, "files": {}})


def test_changes_are_of_sizes_and_contents(tmp_path: Path) -> None:
    files = {}
    for name in ("a.json", "b.json", "c.jsonl", "d.jsonl", "e.json", "f.jsonl"):
        (tmp_path / name).write_text("one\n")
        files[name] = held(tmp_path / name)
    assert changes(tmp_path, files) == {}
    for name in ("a.json", "c.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write("more\n")
    flip(tmp_path / "b.json", 3)
    cut(tmp_path / "d.jsonl", 3)
    (tmp_path / "e.json").unlink()
    flip(tmp_path / "f.jsonl", 9)
    assert changes(tmp_path, files) == {
        "a.json": "has 9 bytes instead of 4", "b.json": "holds other bytes than were written",
        "d.jsonl": "has 3 bytes instead of 4", "e.json": "is missing", "f.jsonl": "holds other bytes than were written",
    }  # fmt: skip
    assert changes(tmp_path, files, ["c.jsonl", "e.json"]) == {"e.json": "is missing"}
    for nonsense in ({}, {"a": 1}, {"../a": held(tmp_path / "b.json")}, [], {"a": {"bytes": True, "sha256": None}}):
        assert changes(tmp_path, nonsense) == {}
    assert read_rows(tmp_path / "c.jsonl")[1] is not None


@pytest.mark.parametrize("name", [*FILES, "report.html", "summary.json", ".lock", "README.md"])
@pytest.mark.parametrize("command", [["report"], ["train", "--resume", "--run-dir"]])
def test_nothing_is_written_through_a_link_in_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: list[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine\n")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(elsewhere)
    before = sorted(path.name for path in run.iterdir())
    assert main([*command, str(run)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spark-rl: ")]
    assert f"{name} is a link to {elsewhere}" in line or f"{name} can't be read" in line  # read before it is written
    assert elsewhere.read_text() == "mine\n"
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_model_that_is_a_link_is_replaced_and_what_it_led_to_is_kept(run: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "mine").write_text("mine\n")
    shutil.rmtree(run / "model")
    (run / "model").symlink_to(elsewhere)
    resumed(run)
    assert (run / "model" / "config.json").is_file()
    assert not (run / "model").is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", [*ROWS, "config.json"])
@pytest.mark.parametrize("command", [["report"], ["train", "--resume", "--run-dir"]])
def test_a_folder_and_what_can_not_be_read_in_place_of_a_file_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, command: list[str]
) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    if main([*command, str(run)]):
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spark-rl: ")]
        assert str(run) in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skipped", "policy"), ("skipped", {"policy": "one"}), ("seconds", float("inf")), ("seconds", float("nan")),
        ("tokens", "seven"), ("tokens", 1.5), ("step", None), ("steps", [3]), ("terms", 1), ("terms", {"threads": []}),
        ("dropped", []), ("dropped", float("inf")), ("pool", [1]), ("pool", {"a": 1}), ("pool", [{"images": 3}]),
    ],
)  # fmt: skip
def test_counters_of_wrong_types_in_a_checkpoint_are_one_line_though_its_manifest_says_so(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    folder = run / "checkpoints" / "step-000002"
    state = json.loads((folder / "state.json").read_text())
    assert name in state
    (folder / "state.json").write_text(json.dumps(state | {name: value}))
    (folder / MANIFEST).unlink()
    write_manifest(folder, 2)
    command = ["train", "--resume", "--run-dir", str(run)]
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spark-rl: ")]
    assert f"checkpoint {folder} can't be read (" in line
    (folder / "state.json").write_text(json.dumps(state))
    (folder / MANIFEST).unlink()
    write_manifest(folder, 2)
    assert main(command) == 0, "it was the value"


@pytest.mark.parametrize("name", ["before.json", "pairs.json", "parts.json"])
def test_a_file_nested_too_deeply_is_one_line(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (run / name).write_text("[" * 9000)
    assert main(["train", "--resume", "--run-dir", str(run)]) in {0, 2}
    capsys.readouterr()


@pytest.mark.parametrize("summary", [{"tokens": "many"}, {"tokens": []}, {"after": 3}, {"seconds": {}}])
def test_a_summary_that_no_run_writes_is_one_line_of_the_export(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: dict[str, object]
) -> None:
    copied = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    written = json.loads((copied / "summary.json").read_text())
    (copied / "summary.json").write_text(json.dumps(written | summary))
    if main(["export", str(copied), "--out", str(tmp_path / "out")]):
        assert "config.json or summary.json of " in capsys.readouterr().err
