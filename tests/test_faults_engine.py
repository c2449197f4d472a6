"""An engine of the user's own that gives what no engine should, in the middle of a run: one line that names it and what
it gave, all whole steps saved, and a resumed run that is the same as one without the fault."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from running import ENVIRONMENT, SMALL, command, facts, small
from spark_rl.backend import open_reasoner
from spark_rl.errors import EngineError
from spark_rl.manifest import damage_of
from spark_rl.problem import Problem
from spark_rl.run import train
from spark_rl.runs import checkpoints

FAULTY = '''
import os, pathlib, time
from dataclasses import replace
from spark_rl.backend import engine_of_its_own
from spark_rl.config import EngineConfig


def first(drawn, **parts):
    """The first completion of the last prompt, with other parts."""
    *before, (one, *others) = drawn
    return [*before, [replace(one, **{name: make(getattr(one, name)) for name, make in parts.items()}), *others]]


FAULTS = {
    "none": lambda drawn: drawn,
    "nan": lambda drawn: first(drawn, logprobs=lambda old: (float("nan"), *old[1:])),
    "nothing": lambda drawn: None,
    "empty": lambda drawn: [[replace(one, text="", token_ids=(), logprobs=()) for one in group] for group in drawn],
}


class Faulty:
    """The embedded engine on a copy of the weights, until the update of the environment's number."""

    def __init__(self, config, chat):
        self.engine, _ = engine_of_its_own(config.model_copy(update={"engine": EngineConfig()}), None)

    version = property(lambda self: self.engine.version)

    def generate(self, prompts, sampling):
        drawn, fault = self.engine.generate(prompts, sampling), os.environ["FAULT"]
        if self.version < int(os.environ["FROM"]):
            return drawn
        while fault == "hangs":
            pathlib.Path(os.environ["HANGS"]).touch()
            time.sleep(0.05)
        return FAULTS[fault](drawn)

    def __getattr__(self, name):
        return getattr(self.engine, name)
'''
SETTINGS = ("train.steps=4", "train.save_every=10", "engine.max_kl=null", "optimiser.lr=1e-4")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("engine") / "faulty.py"
    file.write_text(FAULTY)
    return f"engine.name={file}:Faulty"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, "none", 0)
        train(small(run_dir, *SETTINGS, engine))
    return run_dir


def inject(patch: pytest.MonkeyPatch, fault: str, since: int) -> None:
    """Have engines of the file fail from an update on."""
    patch.setenv("FAULT", fault)
    patch.setenv("FROM", str(since))


def check_the_same(run_dir: Path, undisturbed: Path) -> None:
    assert facts(run_dir) == facts(undisturbed)
    one, other = (path / "model" / "model.safetensors" for path in (run_dir, undisturbed))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("since", "saved"), [(2, ["step-000001"]), (3, [])])
def test_a_resumed_run_is_the_same(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch, undisturbed: Path, since: int, saved: list[str]
) -> None:
    """After the first update of a step the weights are those of no step, and are not saved."""
    inject(monkeypatch, "nan", since)
    config = small(tmp_path / "run", *SETTINGS, engine)
    with pytest.raises(EngineError) as caught:
        train(config)
    told = "Faulty, prompt 6 of 6: the log-probability of token 1 is nan, no finite number of 0 or less; once that is "
    assert str(caught.value).startswith(told if since == 2 else "Faulty, prompt")
    assert "continue with: spark-rl train --run-dir" in str(caught.value)
    assert [path.name for path in checkpoints(tmp_path / "run")] == saved
    assert [damage_of(path) for path in checkpoints(tmp_path / "run")] == [None] * len(saved)
    inject(monkeypatch, "none", 0)
    train(config, resume=True)
    check_the_same(tmp_path / "run", undisturbed)


def test_an_engine_that_gives_nothing_is_told(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, "empty", 0)
    with pytest.raises(EngineError, match=r"^step 3: every response of 3 steps in a row is empty; once that is mended"):
        train(small(tmp_path, "train.steps=9", engine))


def test_it_is_told_wherever_the_engine_is_asked(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the comparison after the update, and by whoever asks for answers."""
    inject(monkeypatch, "nothing", 0)
    with pytest.raises(EngineError, match="Faulty gave a NoneType"):
        open_reasoner(small(tmp_path, engine)).answer([Problem("p", "5?2?7=10", "")])
    inject(monkeypatch, "nothing", 1)
    with pytest.raises(EngineError, match="Faulty gave a NoneType"):
        train(small(tmp_path / "run", engine, "train.steps=1", "recycle.preset=policy-only"))


def test_an_engine_that_hangs_ends_at_the_second_signal(tmp_path: Path, engine: str) -> None:
    hangs = tmp_path / "hangs"
    environment = {**ENVIRONMENT, "FAULT": "hangs", "FROM": "1", "HANGS": str(hangs)}
    words = ("train", "--config", "tiny", "--run-dir", tmp_path / "run", *SMALL, *SETTINGS, engine)
    with subprocess.Popen(
        command(*words), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 200
            while not hangs.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            _, told = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "stopped by SIGINT; continue with: spark-rl train --run-dir" in told
