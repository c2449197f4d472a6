"""Weights on their way into vLLM, and what a sender leaves that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from running import ENVIRONMENT
from spark_rl.engine.vllm import transfer

KILLED = """
import os, signal, sys, torch
from pathlib import Path
from spark_rl.engine.vllm import transfer

class Weights:
    version = 1
    def named(self):
        yield "a", torch.zeros(1000)

transfer.SHARED = Path(sys.argv[1])
def call(method, body=None):
    if method == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
transfer.send(Weights(), call)
"""


class Weights:
    """Two tensors, a bucket each."""

    version = 1

    def named(self) -> Any:
        yield "a", torch.ones(10)
        yield "b", torch.full((10,), 2.0)


@pytest.mark.parametrize("method", ["start_weight_update", "update_weights"])
def test_what_a_killed_sender_left_is_removed_and_what_others_need_is_not(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept := tmp_path / f"{transfer.PREFIX}notes").mkdir()
    (kept / "mine.txt").write_text("not a bucket")
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, method], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(tmp_path.iterdir()) - {kept}
    monkeypatch.setattr(transfer, "SHARED", tmp_path)
    seen: list[tuple[str, list[Path]]] = []
    transfer.send(Weights(), lambda *_: None)
    assert left.exists(), "it may be a sender's that has just begun"
    long_ago = time.time() - 2 * transfer.YOUNG
    for folder in (left, kept):
        os.utime(folder, (long_ago, long_ago))

    def call(method: str, body: Any = None) -> None:
        if method == "update_weights":
            path = Path(body["update_info"]["path"])
            seen.append((next(iter(load_file(path))), list(tmp_path.iterdir())))
            os.utime(path.parent, (long_ago, long_ago))
            transfer.send(Weights(), lambda *_: None)  # another run on this machine
            assert path.exists(), "this one is held"

    transfer.send(Weights(), call, bucket=40)
    assert [name for name, _ in seen] == ["a", "b"]
    assert left not in seen[0][1]
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "mine.txt").exists()
