"""What all groups of settings have in common."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

IN_MEMORY = "memory:"
"""What a setting begins with that would name a model or data, where a run was given them from Python."""


class Section(BaseModel):
    """A group of settings. Frozen; unknown keys are errors; attribute docstrings become ``--help`` texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def changed(self, **changes: Any) -> Self:
        """The group with some settings changed. Raises pydantic's ``ValidationError`` where they don't go together."""
        return self.model_validate(self.model_dump() | changes)


def one_line(error: ValidationError) -> str:
    """What is wrong, where, and what was given, in one line."""
    errors = error.errors()
    # of a union, the member that fits furthest says what is wrong inside of it
    first = max((e for e in errors if e["loc"][:2] == errors[0]["loc"][:2]), key=lambda e: len(e["loc"]))
    # of a union, pydantic's location also names the member that was tried
    parts = [str(part) for part in first["loc"]]
    where = ".".join(part for part in parts if part.isdecimal() or (part.isidentifier() and not part[:1].isupper()))
    what = str(first["msg"]).removeprefix("Value error, ").replace("a valid tuple", "a list")
    if not where:
        return what
    return f"{where}: {what[:1].lower()}{what[1:]} (got {first['input']!r})"
