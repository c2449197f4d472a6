"""Memory that tensors free on a CPU is used again, and not given back and cleared at every turn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from spark_rl.config import ModelConfig
from spark_rl.model.load import set_arithmetic
from spark_rl.model.memory import let_go

def pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

torch.set_num_threads(1)
if sys.argv[1] == "set":
    set_arithmetic(ModelConfig(device="cpu", threads=1))
for size in (2**23, 2**22):  # glibc learns from the first block that is freed, of up to 32 MB
    torch.ones(size)
before = pages()
for _ in range(10):
    many = [torch.ones(2**23) for _ in range(3)]
    del many
cleared = pages() - before
filled = held()
let_go(torch.device("cpu"))
print(cleared, filled - held())
"""
BLOCKS = 10 * 3 * 2**25 // 4096
"""Pages of all tensors."""


def _found(how: str, **env: str) -> tuple[int, int]:
    """Pages that were cleared, and pages that were given back at the end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True, env={**clean, **env}
    )
    cleared, given_back = map(int, done.stdout.split())
    return cleared, given_back


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_held_until_it_is_let_go() -> None:
    without, _ = _found("not")
    assert without > BLOCKS / 2, "otherwise there is nothing to mend"
    cleared, given_back = _found("set")
    assert cleared < BLOCKS / 5
    assert given_back > 2**25 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_a_user_told_the_allocator_is_left_alone() -> None:
    cleared, _ = _found("set", MALLOC_TRIM_THRESHOLD_="131072")
    assert cleared > BLOCKS / 2
