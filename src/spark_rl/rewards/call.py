"""Calling a user's function so that it can raise, hang or return nonsense without harm to the run.

Each call runs in a daemon thread of its own, so that whoever waits can stop waiting, Ctrl-C ends the run at once, and a
thread that never ends does not keep the process. An ``async`` function has an event loop of its own that lives as long
as the run, so that clients and connections it keeps go on working, and no other function can hold it up.

A call that takes too long is ended as well as Python can: an ``async`` one is cancelled; otherwise an exception is
raised in its thread from outside (``PyThreadState_SetAsyncExc``). That is a rough tool, and right here: the thread runs
nothing but the user's function and holds no lock of ours, no other tool ends a loop in code that we don't know, and a
process of its own would lose what the function keeps in memory. It acts between two Python instructions, so a function
that waits in C is left behind until it comes back, and is not called again before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import math
import threading
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

from spark_rl.plugins import MOST, said
from spark_rl.rewards.base import Reward

GRACE = 0.5
"""Seconds that a function has to end when it is told to."""
LIMIT = 1e6
"""Rewards further from zero are refused: the advantage squares them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call: ``Outcome((1.0, None, 0.0), ("", "", "nan"))`` had no usable third value."""

    values: tuple[float | None, ...] = ()
    """One a completion; ``None`` too where the value was refused. Empty if the whole call failed."""
    refused: tuple[str, ...] = ()
    """For each completion the value that is no number within :data:`LIMIT`, or an empty text."""
    error: str = ""
    """Why the whole call failed."""


class Caller:
    """One function, called again and again, one call at a time."""

    def __init__(self, function: Reward) -> None:
        self.function = function
        self.is_async = any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: _Call | None = None
        self._deadline = 0.0

    def begin(self, arguments: Mapping[str, Any], timeout: float) -> None:
        """Start a call in the background; if one that was given up still runs, wait for its end as long first."""
        if self._call is not None and self._call.left:
            self._call.wait(timeout)
            if self._call.runs:
                return
        if self._loop is None and self.is_async:
            self._loop = asyncio.new_event_loop()
        self._deadline = time.monotonic() + timeout
        self._call = _Call(self.function, arguments, self._loop)
        self._timeout = timeout

    def end(self, count: int) -> Outcome:
        """Wait for the call that was begun, and say what came of it; ``count`` values are expected."""
        call = self._call
        assert call is not None, "begin comes first"
        if call.left:
            return Outcome(error="it is still busy with an earlier batch")
        call.wait(self._deadline - time.monotonic())
        if call.runs:
            call.leave()
            self._loop = None  # its thread closes it
            return Outcome(error=f"it took longer than reward.timeout ({self._timeout:g} s)")
        self._call = None
        if call.error:
            return Outcome(error=call.error)
        if len(call.values) != count:
            return Outcome(error=f"it returned {len(call.values)} values for {count} completions")
        return Outcome(tuple(value for value, _ in call.values), tuple(refused for _, refused in call.values))

    def close(self) -> None:
        """Close the event loop, and leave a call that still runs."""
        if self._call is not None and self._call.runs and not self._call.left:  # the run was interrupted
            self._call.leave()
            self._loop = None
        if self._loop is not None:
            # in a thread: who calls may be inside of an event loop, as in a notebook
            thread = threading.Thread(target=_shut, args=(self._loop,), daemon=True)
            thread.start()
            thread.join(GRACE)
            self._loop = None


class _Ended(SystemExit):
    """Raised in a thread from outside. No ``except Exception`` stops it, and a thread may end with it in silence."""


class _Call:
    """One call in its thread."""

    def __init__(self, function: Reward, arguments: Mapping[str, Any], loop: asyncio.AbstractEventLoop | None) -> None:
        self.error = ""
        self.values: list[tuple[float | None, str]] = []
        self.left = False
        """Whether nobody waits for it any more."""
        self._function, self._arguments, self._loop = function, arguments, loop
        self._thread = threading.Thread(target=self._run, name="spark-reward", daemon=True)
        self._thread.start()

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Until it is done, at most so long."""
        self._thread.join(max(0.0, seconds))

    def leave(self) -> None:
        """Tell it to end, and wait for it no longer than :data:`GRACE`."""
        self.left = True
        if self._loop is not None and self._loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has just been closed
                self._loop.call_soon_threadsafe(_cancel_everything)
            self.wait(GRACE)
        if self.runs:
            assert self._thread.ident is not None, "it was started"
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Ended))
            self.wait(GRACE)

    def _run(self) -> None:
        try:
            result = self._function(**self._arguments)
            if inspect.isawaitable(result):
                run = asyncio.run if self._loop is None else self._loop.run_until_complete
                result = run(_awaited(result))
            if hasattr(result, "tolist"):  # of an array or a tensor
                result = result.tolist()
            if isinstance(result, list | tuple):
                self.values = [_number(value) for value in result]
            else:
                self.error = f"it returned a value of type {type(result).__name__}, not a list of numbers"
        except BaseException as error:  # noqa: BLE001  # the user's own code, which may do anything
            self.error = said(error)
        finally:
            if self.left and self._loop is not None:
                self._loop.close()


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _shut(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _cancel_everything() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def _number(value: Any) -> tuple[float | None, str]:
    """A value as a number, and what it is if it is none within :data:`LIMIT`."""
    if value is None:
        return None, ""
    if hasattr(value, "item"):  # of numpy and torch
        value = value.item()
    if not isinstance(value, int | float):
        return None, f"{value!r}"[:MOST]
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return (number, "") if abs(number) <= LIMIT else (None, str(number))
