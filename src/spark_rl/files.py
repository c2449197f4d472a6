"""Writing files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step: written beside it, synced to the disk, renamed.

    Raises:
        OSError: the folder is not there, or can't be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a value as indented JSON, in one step.

    Raises:
        OSError: the folder is not there, or can't be written.
        ValueError: the value holds NaN or infinity, or what JSON does not have.
    """
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is none, which whoever needs it will say."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
