"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what follows."""

    what: str
    found: str
    meaning: str
    level: Literal["ok", "note", "missing", "wrong"] = "ok"
    """``missing``: something that the package needs. ``wrong``: it ran, and what it gave is not right."""


def judged(what: str, found: str, meaning: str, *, right: bool) -> Finding:
    """A finding of something that ran: right or wrong."""
    return Finding(what, found, meaning, "ok" if right else "wrong")


def not_here(what: str, mend: str) -> Finding:
    """Something that could not be tried on this machine, and what it would take."""
    return Finding(what, "not here", mend, "note")
