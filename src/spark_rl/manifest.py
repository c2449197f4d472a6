"""Folders that prove themselves: ``manifest.json`` in them holds the size and the SHA-256 of every other file.

It is written last, so a folder without it was never whole. What only people read, ``README.md``, may change; files that
were put beside the others later are not looked at. The same sizes and digests tell whether the files of a run are those
that a checkpoint has seen (:func:`changes`). Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from spark_rl.files import read_object, write_json

MANIFEST = "manifest.json"
_LEFT_OUT = {MANIFEST, "README.md"}
GROWS = ".jsonl"
"""How the name of a file ends to which is only appended: what it held once is its beginning."""
_THREADS = 8
"""At most; a digest is computed without Python's lock."""
_PIECE = 2**20


def write_manifest(folder: Path, step: int) -> None:
    """Take down what every file of a folder holds; ``step`` is when it was written.

    Raises:
        OSError: one can't be read, or the manifest can't be written.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _LEFT_OUT)
    digests = _digests(files)
    names = [path.relative_to(folder).as_posix() for path in files]
    facts = {
        name: {"bytes": path.stat().st_size, "sha256": digest}
        for name, path, digest in zip(names, files, digests, strict=True)
    }
    write_json(folder / MANIFEST, {"step": step, "files": facts})


def written_at(folder: Path) -> int | None:
    """The step of a folder with a manifest."""
    step = read_object(folder / MANIFEST).get("step")
    return step if isinstance(step, int) else None


def damage_of(folder: Path) -> str | None:
    """What of a folder is not as it was written, in words; ``None`` if all of it is.

    Sizes are compared before contents, so what is cut off or missing is found at once. Contents are read once a
    process: again only if the manifest or a size or a time of change is another.
    """
    files = _listed(read_object(folder / MANIFEST).get("files"))
    if files is None:
        gone = not (folder / MANIFEST).is_file()
        return f"{MANIFEST} is {'missing' if gone else 'damaged'}"
    marks = []
    for name, size, digest in files:
        path = folder / name
        try:
            found = path.stat()
        except OSError as error:
            return f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}"
        if found.st_size != size:
            return f"{name} has {found.st_size:,} bytes instead of {size:,}"
        marks.append((str(path), digest, found.st_mtime_ns))
    return _changed(str(folder), tuple(marks))


def held(path: Path, most: int | None = None) -> dict[str, Any]:
    """Size and SHA-256 of a file, or of its first ``most`` bytes: ``{"bytes": 3, "sha256": "2c26..."}``.

    Raises:
        OSError: it can't be read.
    """
    summed, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE if most is None else min(_PIECE, most - size)):
            summed.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": summed.hexdigest()}


def changes(folder: Path, files: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, str]:
    """Which files of a folder are not what they were, and how: ``{"before.json": "is missing"}``.

    Args:
        folder: where they are.
        files: name -> what :func:`held` said once; of a file that grows, its beginning is compared.
        names: of those that are compared; ``None`` is all.
    """
    found = {}
    for name, size, digest in _listed(files) or ():
        if names is not None and name not in names:
            continue
        path = folder / name
        try:
            there = path.stat().st_size
            if there < size or (there > size and not name.endswith(GROWS)):
                found[name] = f"has {there:,} bytes instead of {size:,}"
            elif held(path, size)["sha256"] != digest:
                found[name] = "holds other bytes than were written"
        except OSError as error:
            found[name] = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"
    return found


def _listed(files: Any) -> list[tuple[str, int, str]] | None:
    """(name, bytes, digest) of each file; ``None`` if there are none, or that is not what this holds."""
    if not isinstance(files, dict) or not files:
        return None
    listed = []
    for name, facts in files.items():
        size, digest = (facts.get("bytes"), facts.get("sha256")) if isinstance(facts, dict) else (None, None)
        if not isinstance(size, int) or not isinstance(digest, str) or not _is_inside(name):
            return None
        listed.append((name, size, digest))
    return listed


def _is_inside(name: str) -> bool:
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


@lru_cache(maxsize=64)
def _changed(folder: str, marks: tuple[tuple[str, str, int], ...]) -> str | None:
    try:
        digests = _digests(Path(path) for path, _, _ in marks)
    except OSError as error:
        return f"{error.filename} can't be read ({error.strerror})"
    for (path, wanted, _), digest in zip(marks, digests, strict=True):
        if digest != wanted:
            return f"{Path(path).relative_to(folder)} holds other bytes than were written"
    return None


def _digests(paths: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(found: dict[Path, str]) -> str:
    """Folders and what is wrong with each, in one line."""
    return "; ".join(f"{path.name}: {why}" for path, why in found.items())
