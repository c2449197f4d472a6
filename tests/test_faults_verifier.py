"""Workers of the verifier that are killed in the middle of a run, and machines that can start none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from running import ENVIRONMENT, facts, small
from spark_rl.backend import engine_of_its_own
from spark_rl.chat import Prompt
from spark_rl.engine.base import Sampling
from spark_rl.errors import VerifierError
from spark_rl.given import Given
from spark_rl.problem import Completion, Problem
from spark_rl.report.watch import Silent
from spark_rl.run import Run, train
from spark_rl.runs import checkpoints

SETTINGS = ("train.steps=3", "train.save_every=9", "recycle.preset=policy-only", "verify.workers=2",
            "reward.form=equivalent")  # fmt: skip
ROOTS = (2, 3, 5)
PROBLEMS = tuple(Problem(f"p-{n}", f"What is root {n}?", rf"\sqrt{{{ROOTS[n % 3]}}}") for n in range(12))
NOBODY = 54321
"""A user with no processes."""


class Roots:
    """Answers that only a worker can compare, a third of them right, in place of what the model says."""

    def __init__(self, run_dir: Path) -> None:
        self.engine: Any = engine_of_its_own(small(run_dir), None)[0]

    version = property(lambda self: self.engine.version)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        drawn = self.engine.generate(prompts, sampling)
        texts = [rf"\boxed{{\frac{{\sqrt{{{4 * n}}}}}{{2}}}}" for n in ROOTS]
        return [
            [replace(one, text=texts[(len(prompt.token_ids) + sum(prompt.token_ids) + place) % 3])
             for place, one in enumerate(group)]
            for prompt, group in zip(prompts, drawn, strict=True)
        ]  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def given(run_dir: Path) -> Given:
    engine: Any = Roots(run_dir)
    return Given(train=PROBLEMS, engine=engine)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(small(run_dir, *SETTINGS), given=given(run_dir))
    return run_dir


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_run_whose_workers_are_killed_is_the_same(tmp_path: Path, undisturbed: Path) -> None:
    """All at once while they start, then after each step."""

    class Kills(Silent):
        def step(self, metrics: Mapping[str, Any]) -> None:
            kill(run.verifier.pids)

    def at_the_start() -> None:
        while len(run.verifier.pids) < 2:
            time.sleep(0.01)
        kill(run.verifier.pids)

    with Run(small(tmp_path / "run", *SETTINGS), given=given(tmp_path), watcher=Kills()) as run:
        killer = threading.Thread(target=at_the_start)
        killer.start()
        summary = run.train()
        killer.join()
        assert summary["restarts"] == {"learner": 0, "engine": 0, "verifier": run.verifier.deaths}
        assert run.verifier.deaths >= 2
    found = facts(tmp_path / "run")
    assert sum(record.pop("restarts/verifier", 0) for record in found) >= 2
    assert found == facts(undisturbed)
    rewards = [record["reward/policy"] for record in facts(undisturbed)]
    assert max(rewards) > 0


def test_a_machine_that_can_start_no_more_workers_is_one_line_and_goes_on_later(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(Silent):
        def step(self, metrics: Mapping[str, Any]) -> None:
            patch.setattr(sys, "executable", "/nowhere/python")
            kill(run.verifier.pids)

    config = small(tmp_path / "run", *SETTINGS)
    with (
        monkeypatch.context() as patch,
        Run(config, given=given(tmp_path), watcher=Breaks()) as run,
        pytest.raises(VerifierError) as caught,
    ):
        run.train()
    assert str(caught.value).startswith("the verifier can't start a worker process (No such file or directory); raise")
    assert "continue with train(resume_from_checkpoint=" in str(caught.value)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000001"]
    train(config, resume=True, given=given(tmp_path))
    assert facts(tmp_path / "run") == facts(undisturbed)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize(("most", "what"), [(1, "a thread"), (2, "a worker process")])
def test_a_limit_of_processes_is_one_line(most: int, what: str) -> None:
    program = (
        "import os, resource, sys\nfrom spark_rl.errors import VerifierError\nfrom spark_rl.verify import Verifier\n"
        "asked, most = (r'\\boxed{\\sqrt{12}}', r'2\\sqrt{3}'), int(sys.argv[1])\n"
        "with Verifier() as verifier:\n    print(verifier.verify(*asked).status)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (most, most))\n"
        f"os.setgroups([])\nos.setuid({NOBODY})\n"
        "try:\n    with Verifier() as verifier:\n        verifier.verify(*asked)\n"
        "except VerifierError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(most)], capture_output=True, text=True, env=ENVIRONMENT, timeout=200,
        check=True,
    )  # fmt: skip
    right, line = done.stdout.splitlines()
    assert right == "correct"
    assert line.startswith(f"the verifier can't start {what} (")
    assert "(ulimit -u)" in line
