"""Trackers that can fail in any way without harm to the run: each has a thread of its own, and a time for everything.

What it is told waits in a queue; nothing that a run does waits for a tracker, but its start and its end, and those for
:data:`START_SECONDS` and :data:`FINISH_SECONDS` at most. A tracker that raises, hangs or falls behind is left, which is
said once, in one line.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spark_rl.config import Config
from spark_rl.errors import ConfigError, plain
from spark_rl.files import read_object, write_json
from spark_rl.track.names import STEP, eval_names, table_rows, train_names
from spark_rl.track.tools import TOOLS, Tool

START_SECONDS = 90.0
FINISH_SECONDS = 60.0
WAITING = 1000
"""Calls that may wait for a tracker; one that is further behind is left."""
TABLE_EVERY = 10
"""Steps between tables of rollouts; the first step has one too."""
KNOWN = "trackers.json"
"""In the run's directory: what each tracker knows the run by."""

Call = tuple[str, tuple[Any, ...]]


def check_trackers(config: Config) -> None:
    """Whether the trackers that a configuration asks for are installed.

    Raises:
        ConfigError: one is not; the line says what to install.
    """
    for name in config.track:
        if find_spec(name) is None:
            raise ConfigError(f"track: {name} is not installed; pip install {name}, or all of them: "
                              "pip install 'spark-rl[track]'")  # fmt: skip


class _Tracked:
    """One tracker in its thread."""

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self.name, self._note = name, note
        self._tool: Tool = TOOLS[name]()
        self._calls: queue.Queue[Call | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._why: str | None = None
        """Why it was left."""
        self._told = False
        self.began: tuple[str | None, str] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"track-{name}", daemon=True)

    def start(self, *arguments: Any) -> None:
        """Begin; what the tool prints meanwhile is not shown."""
        self._calls.put(("start", arguments))
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            self._thread.start()
            if not self._ready.wait(START_SECONDS):
                self._leave(f"it did not start in {START_SECONDS:.0f} s")
        self.tell()

    def call(self, method: str, *arguments: Any) -> None:
        """Have the tool do something later; after it was left, nothing."""
        self.tell()
        if self._why is not None:
            return
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._leave(f"it hangs, or is {WAITING:,} calls behind")
            self.tell()

    def finish(self, failed: bool) -> None:
        """Let it do what waits, and end it; a tool that takes too long is left to itself."""
        if self._why is None:
            end = time.monotonic() + FINISH_SECONDS
            try:
                self._calls.put(("finish", (failed,)), timeout=FINISH_SECONDS)
                self._calls.put(None, timeout=max(0.1, end - time.monotonic()))
            except queue.Full:
                pass
            self._thread.join(max(0.1, end - time.monotonic()))
            if self._thread.is_alive():
                self._leave(f"it did not finish in {FINISH_SECONDS:.0f} s; what it has not taken is in the run's files")
        self.tell()

    def tell(self) -> None:
        """Say once why it was left, from the thread of the run."""
        with self._lock:
            why, told = self._why, self._told
            self._told = why is not None
        if why is not None and not told:
            self._note(plain(f"tracker {self.name} is left, and the run goes on: {why}"))

    def _leave(self, why: str) -> None:
        with self._lock:
            self._why = self._why or why

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            method, arguments = call
            try:
                result = getattr(self._tool, method)(*arguments)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tracker raises must not end a run
                said = " ".join(str(error).split())[:300]
                self._leave(f"{type(error).__name__}{': ' if said else ''}{said} ({method})")
            if method == "start" and self._why is None:
                self.began = result
            self._ready.set()
            if self._why is not None:
                return


class Trackers:
    """All trackers of a run. Of none, everything here does nothing."""

    def __init__(self, config: Config, run_dir: Path, note: Callable[[str], None]) -> None:
        self.config, self.run_dir, self._note = config, run_dir, note
        self._all = [_Tracked(name, note) for name in dict.fromkeys(config.track)]
        self._finished = False
        self._tokens = 0

    def start(self, done: int, tokens: int) -> None:
        """Begin, or go on after ``done`` steps with so many tokens; where people find each is said."""
        self._tokens = tokens
        known = read_object(self.run_dir / KNOWN)
        settings = self.config.model_dump(mode="json")
        for one in self._all:
            name = known.get(one.name)
            one.start(self.run_dir, settings, name if isinstance(name, str) else None, done)
            if one.began is not None:
                name, where = one.began
                known = known | {one.name: name}
                self._note(f"{one.name:<7} {where}")
        if self._all:
            write_json(self.run_dir / KNOWN, known)

    def step(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """A step, as ``metrics.jsonl`` and ``rollouts.jsonl`` have it."""
        if not self._all:
            return
        step = int(metrics["step"])
        self._tokens += int(metrics["tokens"])
        self._call("log", train_names(metrics, self._tokens), step)
        if records and (step == 1 or step % TABLE_EVERY == 0):
            self._call("table", table_rows(records), step)

    def evaluated(self, step: int, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """The scores of exams after a step."""
        numbers = {name: value for exam, found in scores.items() for name, value in eval_names(found, exam).items()}
        if numbers:
            self._call("log", {STEP: float(step), **numbers}, step)

    def finish(self, failed: bool) -> None:
        """End all of them, once."""
        if not self._finished:
            self._finished = True
            for one in self._all:
                one.finish(failed)

    def _call(self, method: str, *arguments: Any) -> None:
        for one in self._all:
            one.call(method, *arguments)
