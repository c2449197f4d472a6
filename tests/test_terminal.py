"""What commands do while they load, and what a run leaves on a terminal."""

from __future__ import annotations

import codecs
import fcntl
import gc
import os
import pty
import re
import select
import struct
import sys
import termios
from contextlib import suppress

import pytest

from spark_rl.commands.terminal import loading_torch
from window import Window


def loads_and_fails() -> None:
    with loading_torch():
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_looked_for_while_torch_is_loaded(collects: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ImportError):
            loads_and_fails()
        assert gc.isenabled() is collects
        assert gc.get_freeze_count() > 0, "what was made is not looked through later"
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()


RUN = """
import logging, sys, time
from spark_rl.commands.terminal import console, log_to_terminal
from spark_rl.report.watch import ConsoleWatcher
log_to_terminal()
try:
    with ConsoleWatcher(console) as watcher:
        watcher.phase("loading")
        watcher.begin(300, 0)
        step = 0
        while True:
            step += 1
            watcher.step({"step": step, "reward/policy": 0.5, "entropy": 0.25, "tokens_per_second": 900.0})
            if step == 2:
                logging.getLogger("mine").warning("a warning of a library")
            time.sleep(0.2)
except KeyboardInterrupt:
    print("spark-rl: stopped", file=sys.stderr)
"""
"""A run as the terminal sees it: five steps a second, until Ctrl-C."""


class Terminal:
    """A program in a pseudo-terminal, and the window that shows it."""

    def __init__(self, program: str, width: int) -> None:
        self.window = Window(width, 40)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._process, self._fd = pty.fork()
        if not self._process:
            os.environ["TERM"] = "xterm"
            os.execv(sys.executable, [sys.executable, "-c", program])  # noqa: S606 - no shell is wanted
        self.resize(width)

    def resize(self, width: int) -> None:
        """As a person does it with the mouse, between two pictures: the program hears of it by SIGWINCH."""
        self._catch_up()
        self.window.resize(width)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))

    def press(self, keys: str) -> None:
        """Between two pictures: a key that interrupts throws away what the kernel still holds for the terminal."""
        self._catch_up()
        os.write(self._fd, keys.encode())

    def until(self, text: str) -> None:
        """Show what is written until this is on screen."""
        while not any(text in line for line in self.window.lines()):
            self._read()

    def end(self) -> int:
        """Show the rest; returns the exit code."""
        with suppress(OSError):
            while True:
                self._read()
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])

    def _catch_up(self) -> None:
        """Show what was written until now."""
        while select.select([self._fd], [], [], 0.05)[0]:
            self._read()

    def _read(self) -> None:
        if not (data := os.read(self._fd, 65536)):
            raise OSError
        self.window.write(self._decoder.decode(data))  # a read may end within a character, or within a command


@pytest.mark.parametrize(("before", "after"), [(120, 80), (80, 120)])
def test_a_run_in_a_terminal_leaves_each_line_once_after_a_warning_a_resize_and_a_stop(before: int, after: int) -> None:
    terminal = Terminal(RUN, before)
    terminal.until("step 1/300")
    terminal.until("step 2/300")
    terminal.resize(after)
    terminal.until("step 4/300")
    terminal.press("\x03")
    code = terminal.end()
    lines = [line for line in terminal.window.lines() if line]
    assert code == 0
    assert lines[:2] == ["loading ...", "spark-rl: a warning of a library"]
    assert re.match(r"spark-rl  step [4-9]/300", lines[2]), "the last one shown, and none before it"
    assert [line.split()[0] for line in lines[3:]] == ["reward", "learner", "spark-rl:"]
