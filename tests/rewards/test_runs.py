"""Whole runs with reward functions: the verifier's numbers again, every failure, resuming, data without golds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from running import SMALL, json_lines, small, spark_rl_process, write_lines
from spark_rl import Problem, train
from spark_rl.errors import ConfigError, DataError
from spark_rl.given import Given, load_all_problems
from spark_rl.problem import TASKS
from spark_rl.report.watch import Silent
from test_train import base_weights, facts, same, weights

from .functions import ROOM, by_column, exact

FUNCTIONS = Path(__file__).parent / "functions.py"
FAILING = (
    "raises", "leaves", "hangs", "waits", "nan", "nothing", "short", "words", "none", "lazy", "rude", "interrupts",
)  # fmt: skip


class Listener(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def without(records: list[dict[str, Any]], *prefixes: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if not k.startswith(prefixes)} for record in records]


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the verifier alone rewards."""
    run_dir = tmp_path_factory.mktemp("runs") / "verified"
    train(small(run_dir, "reward.form=equivalent", "data.heldout=procedural:missing"))
    return run_dir


# --- a function that says what the verifier says --------------------------------------------------------------------


def test_beside_the_verifier_a_function_that_agrees_changes_nothing(tmp_path: Path, verified: Path) -> None:
    run_dir = tmp_path / "run"
    config = small(run_dir, "reward.form=equivalent", "reward.verifier=2", "data.heldout=procedural:missing")
    summary = train(config, given=Given(rewards=(exact,)))
    assert without(facts(run_dir), "reward_f") == facts(verified)
    assert {record["reward_failed/exact"] for record in facts(run_dir)} == {0.0}
    assert same(weights(run_dir / "model"), weights(verified / "model"))
    before = json.loads((verified / "summary.json").read_text())
    assert (summary["before"], summary["after"]) == (before["before"], before["after"])


def test_in_its_place_rewards_and_updates_are_the_same(tmp_path: Path) -> None:
    """Only statuses differ: without the verifier an answer that can't be read is wrong."""
    for name, setting in (("ours", "reward.verifier=null"), ("own", f"reward.function={FUNCTIONS}:exact")):
        config = ("reward.form=equivalent", "recycle.preset=policy-only", "data.heldout=procedural:missing", setting)
        train(small(tmp_path / name, *config))
    assert without(facts(tmp_path / "own"), "reward_f", "status/") == without(facts(tmp_path / "ours"), "status/")
    assert any(record["reward/policy"] for record in facts(tmp_path / "own"))
    assert same(weights(tmp_path / "own" / "model"), weights(tmp_path / "ours" / "model"))
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("ours", "own")]
    for key in ("policy_accuracy", "tts_accuracy", "judge_accuracy", "reflection_fix"):
        assert summaries[0]["after"][key] == summaries[1]["after"][key]


def test_without_functions_nothing_of_theirs_is_written(verified: Path) -> None:
    assert not any(name.startswith("reward_f") for record in facts(verified) for name in record)
    assert not any("values" in row for row in json_lines(verified / "rollouts.jsonl"))


# --- failures -------------------------------------------------------------------------------------------------------


def test_every_failure_from_the_command_line(tmp_path: Path) -> None:
    """All at once, beside the verifier: each is named, and the run is that of the verifier."""
    shutil.copy(FUNCTIONS, tmp_path / "mine.py")
    functions = ", ".join(f"mine.py:{name}" for name in FAILING)
    done = spark_rl_process(
        "train", "--config", "tiny", "--run-dir", "run", *SMALL, f"reward.function=[{functions}]", "reward.verifier=1",
        "reward.timeout=0.2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for name in FAILING:
        told = name != "nothing"  # it does not apply, and the verifier does
        assert done.stdout.count(f"the reward function {name} failed: ") == told, name
    records = facts(tmp_path / "run")
    assert len(records) == 2
    for record in records:
        assert {name: record[f"reward_failed/{name}"] for name in FAILING} == dict.fromkeys(FAILING, 1.0) | {
            "nothing": 0.0
        }
    # values that are no numbers take the reward, or to make a function stumble would pay
    assert {record["reward/policy"] for record in records} == {0.0}
    assert (tmp_path / "run" / "report.html").exists()
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["reward"]["function"]
    assert saved == [f"{tmp_path / 'mine.py'}:{name}" for name in FAILING], "it can be resumed from anywhere"


@pytest.mark.parametrize("name", ["raises", "hangs", "short", "nothing", "nan"])
def test_a_run_whose_only_reward_fails_goes_on_and_learns_nothing(tmp_path: Path, name: str) -> None:
    heard = Listener()
    function = f"reward.function={FUNCTIONS}:{name}"
    train(small(tmp_path / "run", function, "reward.timeout=0.2", "train.steps=3"), watcher=heard)
    records = facts(tmp_path / "run")
    assert [record["status/failed"] for record in records] == [1.0] * 3
    assert [record["flat"] for record in records] == [1.0] * 3, "no response is better than another"
    assert [record["pool"] for record in records] == [0] * 3, "nothing is recycled"
    assert len(heard.notes) == 2
    assert heard.notes[0].startswith(f"the reward function {name} failed: ")
    assert heard.notes[1].startswith(f"the reward function {name} has failed 3 times in a row")
    assert same(weights(tmp_path / "run" / "model"), base_weights())


def test_one_that_fails_from_python_leaves_the_others(tmp_path: Path) -> None:
    def graded(completions: list[str]) -> list[float]:
        return [min(1.0, len(text) / 20) for text in completions]

    def broken(completions: list[str]) -> list[float]:
        raise ValueError("no")

    heard = Listener()
    train(small(tmp_path / "run", "reward.threshold=0.5"), watcher=heard, given=Given(rewards=(graded, broken)))
    for record in facts(tmp_path / "run"):
        assert record["reward_failed/broken"] == 1.0
        assert record["reward_failed/graded"] == record["status/failed"] == 0.0
    for row in json_lines(tmp_path / "run" / "rollouts.jsonl"):
        if row["task"] in {"policy", "reflection"}:
            assert row["reward"] == min(1.0, len(row["response"]) / 20)
            assert row["values"] == {"graded": row["reward"], "broken": None}
            assert row["status"] == ("correct" if row["reward"] >= 0.5 else "wrong")


# --- columns and resuming -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base's puzzles as a file, with a column of their own."""
    problems, _ = load_all_problems(small(Path("unused")))
    rows = [
        {"question": p.question, "answer": p.answer, "hint": f"hint of {n}", "deep": {"a": [n, None]}}
        for n, p in enumerate(problems[:30])
    ]
    return write_lines(tmp_path_factory.mktemp("data") / "puzzles.jsonl", *rows)


def test_a_resumed_run_is_the_run_that_was_never_stopped_columns_included(tmp_path: Path, data: Path) -> None:
    settings = (f"data.train={data}", "data.kind=exact", "recycle.ready=3", "recycle.form=answer", "train.save_every=2")
    file = tmp_path / "functions.py"
    shutil.copy(FUNCTIONS, file)
    function = f"reward.function={file}:by_column"
    train(small(tmp_path / "straight", *settings, function, "train.steps=4"))
    train(small(tmp_path / "stopped", *settings, function, "train.steps=2"))
    state = json.loads((tmp_path / "stopped" / "checkpoints" / "step-000002" / "state.json").read_text())
    waiting = [problem for problem in state["pool"] if problem["task"] == "reflection"]
    assert waiting, "or this test shows nothing"
    assert all(problem["columns"]["hint"].startswith("hint of ") for problem in waiting)

    moved = tmp_path / "elsewhere.py"
    file.rename(moved)
    with pytest.raises(ConfigError, match=r"reward.function of .* is not at .*; if it moved, say where"):
        train(small(tmp_path / "stopped", *settings, function, "train.steps=4"), resume=True)
    with pytest.raises(ConfigError, match=r"was made with reward.function="):
        train(small(tmp_path / "stopped", *settings, f"reward.function={moved}:exact"), resume=True)
    resumed = small(tmp_path / "stopped", *settings, f"reward.function={moved}:by_column", "train.steps=4")
    train(resumed, resume=True)
    assert facts(tmp_path / "stopped") == facts(tmp_path / "straight")
    assert same(weights(tmp_path / "stopped" / "model"), weights(tmp_path / "straight" / "model"))
    assert {record["reward_failed/by_column"] for record in facts(tmp_path / "straight")} == {0.0}
    assert any(record.get("reward/reflection") is not None for record in facts(tmp_path / "straight"))


def test_columns_reach_the_functions_and_nothing_else(tmp_path: Path, data: Path) -> None:
    ROOM.clear()
    given = Given(rewards=(by_column,))
    config = small(tmp_path / "run", f"data.train={data}", "data.kind=exact", "recycle.ready=3", "train.steps=3")
    train(config, given=given)
    assert {"policy", "reflection"} <= set(ROOM)
    logged = (tmp_path / "run" / "rollouts.jsonl").read_text()
    assert "hint" not in logged
    assert set(json_lines(tmp_path / "run" / "rollouts.jsonl")[0]["task"].split()) <= set(TASKS)
    problems, _ = load_all_problems(config, given)
    assert problems[3].columns == {
        "question": problems[3].question, "answer": problems[3].answer, "hint": "hint of 3", "deep": {"a": [3, None]},
    }  # fmt: skip
    assert not any(problem.columns for problem in load_all_problems(config)[0]), "nobody asked for them"


def test_a_column_that_is_not_there_is_told_before_the_run_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the reward function by_column needs 'hint', which is no column of the data"):
        train(small(tmp_path / "run", f"reward.function={FUNCTIONS}:by_column"))
    assert not (tmp_path / "run").exists()


# --- data without gold answers --------------------------------------------------------------------------------------


def test_rows_without_answers_train_and_are_evaluated_by_the_functions(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?{n}=1", "level": n} for n in range(12)]
    file = write_lines(tmp_path / "d.jsonl", *rows)
    settings = (f"data.train={file}", "data.heldout=split:4")

    def boxed(completions: list[str], level: list[int], answer: list[str]) -> list[float]:
        assert set(answer) == {""}
        return [
            (1.0 if level % 2 else 0.6) * (r"\boxed{" in text) for text, level in zip(completions, level, strict=True)
        ]

    with pytest.raises(DataError, match="no column for the answer"):
        train(small(tmp_path / "a", *settings))
    with pytest.raises(DataError, match="no column for the answer"):
        train(small(tmp_path / "a", *settings, "reward.verifier=1"), given=Given(rewards=(boxed,)))
    scores = []
    for threshold in (1.0, 0.5):
        config = small(tmp_path / f"run{threshold}", *settings, f"reward.threshold={threshold}")
        summary = train(config, given=Given(rewards=(boxed,)))
        scores.append(summary["before"]["policy_accuracy"])
        assert {record["reward_failed/boxed"] for record in facts(Path(str(config.run_dir)))} == {0.0}
    heldout = load_all_problems(config, Given(rewards=(boxed,)))[1]["heldout"]
    assert scores == [sum(p.columns["level"] % 2 for p in heldout) / 4, 1.0], "the base always boxes something"


def test_problems_in_memory_need_no_answer_either(tmp_path: Path) -> None:
    problems = [Problem(f"p-{n}", f"{n}?{n}=1", "", columns={"level": n}) for n in range(6)]

    async def leveled(completions: list[str], level: list[int]) -> list[float]:
        return [each / 6 for each in level]

    train(small(tmp_path / "run"), given=Given(train=problems, rewards=(leveled,)))
    assert {record["reward_failed/leveled"] for record in facts(tmp_path / "run")} == {0.0}
