"""Files, written so that a reader sees the old content or the new, never a part of it; and YAML, read strictly."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from spark_rl.errors import ConfigError, UserError

if sys.platform != "win32":
    import fcntl

_DEEP = 4
"""``RUN/checkpoints/step-N/model/FILE`` is so deep."""
MOST_YAML = 1_000_000
"""Values of a YAML text, with those that are named by aliases."""

_OF_DISKS = {
    getattr(errno, name) for name in (
        "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "ENODEV", "ESTALE",
        "EMFILE", "ENFILE", "ENAMETOOLONG", "EISDIR", "ELOOP", "ENXIO",
    ) if hasattr(errno, name)
}  # fmt: skip
"""What says that a file can't be read or written where it should be, and not that a program or a server is at fault."""


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
        sync_names(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def link_to(link: Path, target: Path) -> None:
    """Make a relative symbolic link to something beside or below it, or let it lead there from now on.

    Raises:
        OSError: the file system has no such links, or the folder can't be written.
    """
    scratch = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    try:
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(target.relative_to(link.parent), target_is_directory=True)
        scratch.replace(link)
    finally:
        scratch.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Wait until every file of a folder is on the disk, and the names of all of them.

    Raises:
        OSError: one can't be read.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_names(path)
    sync_names(folder)


def sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can say so: what was renamed stays so."""
    with suppress(OSError):  # Windows opens no folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_folder(final: Path, partial: Path) -> None:
    """Put a folder that is whole in the place of another, which has its name until then and is gone after.

    Raises:
        OSError: it can't be done.
    """
    sync_tree(partial)
    if final.exists():
        remove_folder(final, partial)
    else:
        partial.replace(final)
    sync_names(final.parent)


def remove_folder(folder: Path, instead: Path | None = None) -> None:
    """Remove a folder that nothing sees half of: it loses its name first, to ``instead`` if there is one. Of a link to
    a folder, the link is removed.

    Raises:
        OSError: it can't be done.
    """
    going = folder.with_name(f".{folder.name}.removed")
    if going.is_symlink():
        going.unlink()
    shutil.rmtree(going, ignore_errors=True)
    folder.replace(going)
    if instead is not None:
        instead.replace(folder)
    sync_names(folder.parent)
    if going.is_symlink():  # what it leads to is not ours
        going.unlink()
    else:
        shutil.rmtree(going)


@contextmanager
def whole_folder(folder: Path, also: type[Exception] = OSError) -> Iterator[Path]:
    """A folder to write in, which is renamed to ``folder`` when all is there, and removed when something goes wrong.
    What a process that was killed left of the same one is removed first.

    Args:
        folder: what is not there yet, or is an empty folder, or a link to one.
        also: an error beside ``OSError`` that says that something can't be written.

    Raises:
        ConfigError: it can't be written; one line that says why.
    """
    final = resolved(folder)  # of a link, what it leads to is replaced
    scratch = final.with_name(f".{final.name}.{os.getpid()}.partial")
    lock = None
    try:
        scratch.mkdir(parents=True)
        lock = _locked(scratch)
        _remove_abandoned(scratch, final.name)
        yield scratch
        sync_tree(scratch)
        if final.is_dir():
            final.rmdir()
        scratch.replace(final)
    except (OSError, also) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        full = "; free some space" if getattr(error, "errno", None) == errno.ENOSPC else ""
        raise ConfigError(f"cannot write {folder}: {why}{full}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds a lock on a folder until it is closed or its process ends; ``None`` if there is none to
    be had: somebody else has it, or the system has no such locks."""
    if sys.platform == "win32":
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _remove_abandoned(own: Path, name: str) -> None:
    """Remove the partial folders for ``name`` of processes that have ended: not here, and nobody holds their lock, so
    that on a disk of several machines those of others stay."""
    with suppress(OSError):
        for path in own.parent.iterdir():
            of, dot, kind = path.name.removeprefix(f".{name}.").partition(".")
            if path == own or not path.name.startswith(f".{name}.") or dot + kind != ".partial" or not of.isdecimal():
                continue
            if path.is_dir() and not path.is_symlink() and not is_running(int(of)):
                lock = _locked(path)
                if lock is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(lock)


def is_running(process: int) -> bool:
    """Whether there is a process of this number, as far as this machine can tell."""
    if sys.platform == "win32":  # where os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def disk_error(error: BaseException) -> str | None:
    """Why something can't be written or read, in words, if that is what an error says; safetensors has one of its own.

    ``disk_error(OSError(errno.ENOSPC, "No space left on device"))`` is ``"No space left on device"``.
    """
    if type(error).__name__ == "SafetensorError":  # which would have to be imported
        found = _OS_ERROR.search(str(error))
        return None if found is None else os.strerror(int(found[1]))
    if isinstance(error, OSError) and error.errno is not None and error.errno in _OF_DISKS:
        return os.strerror(error.errno)
    return None


def sweep(folder: Path) -> None:
    """Remove what a process that was ended left half written or half removed directly in a folder."""
    for path in folder.glob(".*"):
        if path.name.endswith(".tmp") and not path.is_dir():
            path.unlink(missing_ok=True)
        elif path.name.endswith((".partial", ".removed")) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write a value as indented JSON, in one step.

    Raises:
        OSError: the folder is not there, or can't be written.
        ValueError: the value holds NaN or infinity, or what JSON does not have.
    """
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def write_output(path: Path, content: str) -> None:
    """Write a file that a user asked for, in one step; its folder is made. A device or a pipe is written to as it is.

    Raises:
        UserError: it can't be written; one line that says why.
    """
    data = content.encode("utf-8", errors="replace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)
        else:
            write_atomically(resolved(path), data)  # of a link, what it leads to is replaced
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def resolved(path: Path) -> Path:
    """Absolute and without links, as far as they lead anywhere: ``Path.resolve`` raises a ``RuntimeError`` for a link
    that leads to itself, where this leaves a path that can't be opened.
    """
    return Path(os.path.realpath(path))


def user_path(text: str | Path) -> Path:
    """A path as people write it: ``~`` and ``~name`` are expanded, where somebody has that name."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def odd_file(path: Path) -> Path | None:
    """A pipe, a device or a socket, which reading may wait for without end: ``path`` itself, or as deep in that folder
    as a run or a model has files; ``None`` if there is none. What a link leads to counts.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # nothing is there, or it is a link to itself: who reads it is told
        return None
    if not stat.S_ISDIR(mode):
        return None if stat.S_ISREG(mode) else path
    deep = (child for level in range(1, _DEEP + 1) for child in path.glob("/".join("*" * level)))
    return next((child for child in deep if not child.is_dir() and odd_file(child) is not None), None)


def check_regular(path: Path) -> Path:
    """The path, if nothing there is a pipe or a device (:func:`odd_file`).

    Raises:
        UserError: something is; one line that names it.
    """
    if (odd := odd_file(path)) is not None:
        raise UserError(f"{odd} is neither a file nor a folder, and reading it may never end; remove it")
    return path


def check_own(folder: Path) -> None:
    """Raise if a file directly in a folder is a link: what is written there would be written to where it leads.

    Links to folders may be there: ``best`` is one, and checkpoints may lie on another disk.

    Raises:
        UserError: one is; one line that names it.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() and not path.is_dir():
            raise UserError(f"{path} is a link to {path.readlink()}, which would be written to; put the file itself "
                            "there, or remove the link")  # fmt: skip


class DuplicateKeyError(yaml.MarkedYAMLError):
    """A mapping names one key twice, of which YAML would drop the first in silence."""


class _UniqueKeys(yaml.SafeLoader):
    """Reads plain values only, and no mapping that has a key twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"on lines {lines[name]} and {line}" if line != lines[name] else f"on line {line}"
                raise DuplicateKeyError(problem=f"{key.value!r} is given twice, {where}; remove one of the two")
            lines[name] = line
        return node


def read_yaml(text: str) -> Any:
    """What a YAML text holds: plain values only, and no key twice.

    Raises:
        yaml.YAMLError: it is not valid, nested too deeply, or holds more than :data:`MOST_YAML` values because it
            names the same ones again and again.
        DuplicateKeyError: a mapping has a key twice; the message names it and both lines.
    """
    try:
        loader = _UniqueKeys(text)
        node = loader.get_single_node()
        if _values(node, {}) > MOST_YAML:
            raise yaml.YAMLError("its aliases make far more values of it than it has, or contain themselves")
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # dates such as 2024-99-99
        raise yaml.YAMLError(" ".join(str(error).split())) from None


def _values(node: Any, counted: dict[int, float]) -> float:
    """The values that a node stands for, with everything that an alias names counted where it is named."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = math.inf  # until it is known: what contains itself never ends
        members = [member for entry in node.value for member in (entry if isinstance(entry, tuple) else (entry,))]
        counted[id(node)] = 1 + sum(_values(member, counted) for member in members)
    return counted[id(node)]


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, not text, or nested too deeply to be read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ``{}`` if the file is missing, no regular one or holds anything else."""
    try:
        content = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
