"""How commands talk: results on stdout, what is being waited for on stderr, and libraries kept quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

console = Console()
errors = Console(stderr=True)


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
    logging.basicConfig(level=logging.WARNING, format="spark-rl: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
