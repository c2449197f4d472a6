"""vLLM's own processes, when signals reach them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from running import ENVIRONMENT
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
    _check_ended(processes)


ENGINE = """
import signal, threading, time
from spark_rl.config import load_config
from spark_rl.engine.vllm import VllmEngine
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()  # signals reach it, where the first blocks them
print("starts", flush=True)
try:
    engine = VllmEngine(load_config("tiny", ["engine.name=vllm"]))
except KeyboardInterrupt:
    print("stopped", flush=True)
else:
    print("runs", flush=True)
    time.sleep(600)
"""


def test_they_end_when_the_run_is_killed() -> None:
    """An engine that waited for ever for the next request kept the memory of its GPU."""
    run = _run_until("runs")
    processes = _descendants(run.pid)
    run.kill()
    run.communicate()
    assert len(processes) > 1
    _check_ended(processes)


def test_a_stop_while_they_start_ends_the_run() -> None:
    """vLLM swallows it, and then waited ten minutes for processes that nobody answered."""
    run = _run_until("starts")
    while not any("spawn_main" in _command(pid) for pid in _descendants(run.pid)):
        assert run.poll() is None
        time.sleep(0.1)
    time.sleep(1.0)
    processes = _descendants(run.pid)
    run.send_signal(signal.SIGINT)
    assert "stopped" in run.communicate(timeout=150)[0].splitlines()
    _check_ended(processes)


def _run_until(word: str) -> subprocess.Popen[str]:
    run = subprocess.Popen([sys.executable, "-c", ENGINE], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert any(line.strip() == word for line in run.stdout), f"it ended with {run.wait()}"
    return run


def _check_ended(processes: Sequence[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(_is_alive, processes)):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.1)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


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
