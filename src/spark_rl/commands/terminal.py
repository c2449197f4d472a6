"""How commands talk: one console, lines that are never wrapped, and libraries kept quiet."""

from __future__ import annotations

import logging
import warnings

from rich.console import Console

console = Console()


def say(text: str) -> None:
    """A line that others may read or paste: as it is, never wrapped."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


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
