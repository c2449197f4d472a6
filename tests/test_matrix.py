"""Many runs at a time: the numbers of one alone, failures are named, what is stopped goes on, and the time left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from running import ENVIRONMENT, SMALL, command, facts, json_lines, small
from spark_rl.lock import holder
from spark_rl.matrix import Job, on_one_thread, room, run_matrix
from spark_rl.report.arms import Arms, ConsoleArms, Going, time_left
from spark_rl.run import train

EXAM = ("data.heldout=procedural:missing", "evaluation.problems=4")


class Heard(Arms):
    def __init__(self) -> None:
        self.events: list[str] = []

    def begins(self, number: int, label: str, run_dir: Path) -> None:
        self.events.append(f"{number} begins")

    def ends(self, number: int, label: str, kind: str, summary: Any, seconds: float) -> None:
        self.events.append(f"{number} ends")

    def fails(self, number: int, label: str, why: str) -> None:
        self.events.append(f"{number} fails")


def test_runs_beside_each_other_have_the_numbers_of_one_alone(tmp_path: Path) -> None:
    """One of them fails, another ends at the tokens of the first, and one needs what has failed."""
    jobs = [
        Job("first", "a", small(tmp_path / "first", *EXAM)),
        Job("broken", "a", small(tmp_path / "broken", "data.train=nowhere.jsonl")),
        Job("equal", "b", small(tmp_path / "equal", "recycle.preset=policy-only", *EXAM), budget="first"),
        Job("needs", "b", small(tmp_path / "needs", *EXAM), budget="broken"),
    ]
    heard = Heard()
    outcome = run_matrix(jobs, 2, heard)
    assert heard.events[:2] == ["1 begins", "2 begins"]
    assert heard.events.index("1 ends") < heard.events.index("3 begins")
    assert sorted(outcome.results) == ["equal", "first"]
    assert "nowhere.jsonl" in outcome.failures["broken"]
    assert outcome.failures["needs"] == "it ends at the tokens of broken, which failed"
    alone = train(small(tmp_path / "alone", *EXAM))
    assert facts(tmp_path / "first") == facts(tmp_path / "alone")
    assert outcome.results["first"]["after"] == alone["after"]
    tokens = [step["tokens"] for step in json_lines(tmp_path / "equal" / "metrics.jsonl")]
    assert sum(tokens[:-1]) < alone["tokens"] <= sum(tokens)
    before = heard.events.copy()
    assert run_matrix(jobs[::2], 2, heard).results == outcome.results
    assert heard.events == before, "what is finished is kept"


def waits_for(there: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not (there.exists() and there.read_text()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_stopped_matrix_leaves_no_process_and_saves_its_runs(tmp_path: Path) -> None:
    line = command(
        "ablate", "--run-dir", tmp_path / "arms", "--arms", "spark", "--seeds", "0", *SMALL, *EXAM, "train.steps=40",
        "train.save_every=100",
    )  # fmt: skip
    run_dir = tmp_path / "arms" / "spark-seed0"
    with subprocess.Popen(
        line, cwd=tmp_path, env=ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        waits_for(run_dir / "metrics.jsonl", process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "stopped by SIGINT with 0 of 1 runs done; the same command goes on; what is done is kept" in said
    assert holder(run_dir) is None, "the run goes on without whoever started it"
    saved = [path.name for path in (run_dir / "checkpoints").iterdir()]
    assert len(saved) == 1, "it has saved what it had done"


def test_there_is_room_for_one_run_a_core_or_one_in_all(tmp_path: Path) -> None:
    assert room(small(tmp_path, "model.device=cuda")) == 1
    assert room(small(tmp_path, "cluster.learners=2")) == 1
    if sys.platform == "linux":
        assert room(small(tmp_path, "model.device=cpu")) == len(os.sched_getaffinity(0))
    assert on_one_thread(small(tmp_path, "model.threads=0")).model.threads == 1
    assert on_one_thread(small(tmp_path, "model.threads=3")).model.threads == 3


def going(kind: str, seconds: float, share: float | None = None) -> Going:
    return Going("", kind, "", seconds, share)


def test_the_time_left_is_of_all_runs() -> None:
    assert time_left([going("a", 10)], ["a"], {}, 1) is None, "nothing can be said yet"
    assert time_left([going("a", 10, 0.25)], ["a", "b"], {}, 1) == 30 + 40 + 40
    assert time_left([going("a", 10)], ["b", "b"], {"a": [20, 40], "b": [100]}, 2) == (20 + 200) / 2
    assert time_left([going("a", 10), going("b", 10)], [], {"a": [20], "b": [100]}, 2) == 90, "the last run is one"
    assert time_left([going("a", 50)], [], {"a": [20]}, 1) == 0, "it takes longer than expected"
    assert time_left([], [], {}, 2) == 0


def test_runs_that_end_between_two_pictures_have_no_time_left() -> None:
    said = Console(file=StringIO(), width=200)
    watcher = ConsoleArms(said)
    watcher.begin(3, 3)
    watcher.show([Going(f"spark, seed {seed}", "spark", "", 10, 0.5) for seed in range(3)], [])
    watcher.ends(1, "spark, seed 0", "spark", {}, 20)
    watcher.fails(2, "spark, seed 1", "no such file")
    watcher.ends(3, "spark, seed 2", "spark", {}, 20)
    assert isinstance(said.file, StringIO)
    first, _, last = said.file.getvalue().splitlines()
    assert first.endswith("| 1 of 3 done, 10 s left")
    assert last.endswith("| 2 of 3 done, 0.0 s left")


def test_what_goes_on_is_shown_on_a_terminal_and_what_has_ended_stays() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with ConsoleArms(console) as watcher:
        watcher.begin(3, 2)
        watcher.begins(1, "spark, seed 0", Path("runs/a"))
        watcher.show([Going("spark, seed 0", "spark", "step 3/9 | reward policy 0.41", 30, 1 / 3)], ["spark", "spark"])
        watcher.ends(1, "spark, seed 0", "spark", {"after": {"policy_accuracy": 0.5}}, 100)
        watcher.fails(2, "spark, seed 1", "no such file")
        watcher.show([], [])
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "spark, seed 0 | step 3/9 | reward policy 0.41" in shown
    assert "0 of 3 runs done, 1 in flight, 2 min 00 s left" in shown, "60 s of this run and 2 of 90 s, two at a time"
    assert "[1/3] spark, seed 0: policy – -> 50.0%, judge – -> –, with TTS – -> – | 1 min 40 s | 1 of 3 done" in shown
    assert "[2/3] spark, seed 1 FAILED: no such file" in shown
