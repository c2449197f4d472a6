"""vLLM's own processes, when signals reach them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from spark_rl.config import load_config
from spark_rl.engine.base import Sampling
from spark_rl.engine.vllm import VllmEngine
from spark_rl.engine.vllm.watched import STOPS
from spark_rl.errors import EngineError
from spark_rl.problem import Problem


def test_signals_that_stop_a_run_do_not_reach_them_and_the_end_of_one_ends_the_call() -> None:
    """Slurm and terminals signal all processes at once: a run then hung for ever in its next call."""
    engine = VllmEngine(load_config("tiny", ["engine.name=vllm"]))
    try:
        prompts = [engine.facts.chat.encode(Problem("p", "1?2=3", "3"))]
        before = engine.generate(prompts, Sampling(4, max_new_tokens=8))
        core = next(process.pid for process in engine._watched.processes)
        assert core is not None
        processes = _descendants(core)
        for number in STOPS:
            for process in processes:
                os.kill(process, number)
        again = engine.generate(prompts, Sampling(4, max_new_tokens=8))  # from the prefix cache, which rounds otherwise
        assert [c.token_ids for c in again[0]] == [c.token_ids for c in before[0]]
        threading.Timer(0.2, os.kill, (core, signal.SIGKILL)).start()
        with pytest.raises(EngineError, match=r"^vLLM failed \(generate\): "):
            engine.generate(prompts * 2000, Sampling(8, max_new_tokens=64))  # some minutes
    finally:
        engine.close()
    deadline = time.monotonic() + 60
    while any(map(_is_alive, processes)):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.1)


def _descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()]  # fmt: skip
    return [pid, *(found for child in children for found in _descendants(child))]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
