"""What all groups of settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

IN_MEMORY = "memory:"
"""What a setting begins with that would name a model or data, where a run was given them from Python."""


class Section(BaseModel):
    """A group of settings. Frozen; unknown keys are errors; attribute docstrings become ``--help`` texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
