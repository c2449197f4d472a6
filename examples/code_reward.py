r"""A code-execution reward in place of the verifier: the share of a row's tests that the code in a response passes.

    {"question": "Write a Python function add(a, b).", "tests": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]}

    spark-rl train --model Qwen/Qwen2.5-Coder-0.5B-Instruct --data code.jsonl \
        reward.function=examples/code_reward.py:passes_tests reward.threshold=1 \
        'chat.policy="{question}\nAnswer with one block of Python code."'

Rows need no answer. From ``reward.threshold`` on a response counts as right when it is recycled.

THIS IS NO SANDBOX. Each program runs in a process of its own, in an empty folder and an empty environment, with limits
on processor time, memory, file size and the clock: that stops endless loops and runaway memory. It does not stop
a program from reading your files or using the network, nor one that was made to fool its tests. Run it where there is
nothing to lose: in a container without network, as a user without rights.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import tempfile

SECONDS = 5
MEGABYTES = 512
AT_ONCE = os.cpu_count() or 1

RUNNER = """
import resource, sys
word, seconds, megabytes = sys.argv.pop(), int(sys.argv.pop()), int(sys.argv.pop())
for limit, value in (("CPU", seconds), ("AS", megabytes << 20), ("FSIZE", 1 << 20), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + limit), (value, value))
exec(compile(sys.stdin.read(), "response.py", "exec"), {"__name__": "__main__"})
sys.__stderr__.write("\\n" + word)
"""
"""Says a word that the program does not know, when it came to the end: ``exit(0)`` passes no test."""


async def passes_tests(completions: list[str], tests: list[list[str] | str]) -> list[float]:
    """For each completion the share of its row's ``tests``, pieces of Python, that its code passes."""
    free = asyncio.Semaphore(AT_ONCE)

    async def share(text: str, own: list[str] | str) -> float:
        each = [own] if isinstance(own, str) else own
        passed = await asyncio.gather(*(runs(f"{code_of(text)}\n\n{test}\n", free) for test in each))
        return sum(passed) / len(each)

    return await asyncio.gather(*(share(text, own) for text, own in zip(completions, tests, strict=True)))


def code_of(text: str) -> str:
    """The last block of code between fences, or the whole text."""
    blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)```", text, re.DOTALL)
    return blocks[-1] if blocks else text


async def runs(program: str, free: asyncio.Semaphore) -> bool:
    """Whether a program comes to its end without an error, within the limits."""
    word = secrets.token_hex(8).encode()
    async with free:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", RUNNER, str(MEGABYTES), str(SECONDS), word.decode(),
                cwd=folder, env={}, start_new_session=True, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            try:
                await asyncio.wait_for(process.communicate(program.encode(errors="replace")), 2 * SECONDS)
            except TimeoutError:
                return False
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with everything that it started
                await process.wait()
            errors.seek(0)
            return process.returncode == 0 and errors.read().endswith(word)
