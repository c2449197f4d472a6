"""How commands talk: results on stdout, what is being waited for on stderr, and libraries kept quiet."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.markup import escape
from rich.segment import Segment

from spark_rl.errors import plain
from spark_rl.report.live import OneByOne


@dataclass(frozen=True, slots=True)
class _Harmless:
    """What is printed, its texts without anything that steers a terminal; colours are no part of them."""

    printed: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self.printed, options):
            yield Segment(text if control else plain(text), style, control)


class _HarmlessTexts(RenderHook):
    """Names, answers and settings that are printed may come from anybody."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Harmless(printed) for printed in renderables]


def _console(**options: bool) -> Console:
    made = OneByOne(**options)
    made.push_render_hook(_HarmlessTexts())
    return made


console = _console()
errors = _console(stderr=True)


class Plain(logging.Formatter):
    """Lines of the log without anything that steers a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


class _OnStderr(logging.StreamHandler[TextIO]):
    """Writes to what is ``sys.stderr`` at the time: a live view stands in for it, and keeps lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute in the base class
        return sys.stderr


def log_to_terminal() -> None:
    """Warnings of ours and of libraries as lines on stderr."""
    handler = _OnStderr()
    handler.setFormatter(Plain("spark-rl: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def say(text: str) -> None:
    """A line that others may read or paste: as it is, never wrapped."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def waiting(text: str, on: Console = errors) -> Iterator[None]:
    """Show what the command is busy with: a spinner that goes away on a terminal, else one line.

    Args:
        text: what takes its time, such as ``loading torch``.
        on: where; stdout is for commands whose stdout is a log of what happens and not a result.
    """
    if on.is_terminal and not on.is_dumb_terminal:
        with on.status(f"{escape(text)} ..."):
            yield
    else:
        on.print(f"{text} ...", highlight=False, markup=False, soft_wrap=True)
        yield


@contextmanager
def loading_torch(on: Console = errors) -> Iterator[None]:
    """Around the imports of torch and of what needs it. What they make lives as long as the process, so garbage is not
    looked for meanwhile, which takes a sixth of their time, and not among it later.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with waiting("loading torch", on):
            quiet_libraries()
            yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def short(text: str, width: int = 400) -> str:
    """The text, cut where a table would become a wall."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def quiet_libraries() -> None:
    """Silence load bars and notices that say nothing to someone who runs a command."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    log_to_terminal()
    warnings.filterwarnings("ignore", category=FutureWarning)
