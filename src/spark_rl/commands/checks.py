"""What can be known to go wrong before anything heavy is imported: places to write to, devices, templates, folders.

Every command calls what concerns it first. A minute of loading, or an hour of asking, must not end in a mistake that
was there from the beginning.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spark_rl.config import Config
from spark_rl.errors import ConfigError, UserError
from spark_rl.files import user_path
from spark_rl.matrix import DRIVERS

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu")
"""Kinds of devices that torch computes on."""

_DEVICE = re.compile(rf"({'|'.join(DEVICES)})(:\d+)?")
_KIND = re.compile(r"\.[a-z][a-z0-9]*", re.IGNORECASE)
"""A suffix that says what kind of file a name is of; ``.5`` and ``.5-7b`` of a model's name say nothing."""

ROWS = (".jsonl", ".ndjson")
"""Suffixes of files of rows."""


def check_outputs(*paths: Path | None, kinds: Sequence[str] = ()) -> None:
    """Whether files can be written: a mistake is told before the work, and nothing is left behind.

    Folders that are not there yet are made when the file is written. Files that are there are replaced.

    Args:
        paths: the files, ``None`` for those that nobody asked for.
        kinds: suffixes that may say what the file is; a name without one is fine. Empty: any.

    Raises:
        UserError: a path is a directory, its name says that it is of another kind, or it can't be written.
    """
    for path in paths:
        if path is None:
            continue
        if _is_dir(path):
            raise UserError(f"cannot write {path}: it is a directory; give a file name")
        if kinds and file_kind(path) not in {None, *kinds}:
            raise UserError(f"cannot write {path}: what is written here is {' or '.join(kinds)}; name it so")
        _check_place(path)


def check_rows(path: Path | None, read: Path | None = None) -> None:
    """Whether a file of rows can be written that is not the one that they are made from. Raises :class:`UserError`."""
    check_outputs(path, kinds=ROWS)
    if path is not None and read is not None and path.exists() and read.exists() and path.samefile(read):
        raise UserError(f"--out {path} is the file that is read; name another, or a stop would leave you with neither")


def check_folder(path: Path, what: str) -> None:
    """Whether a folder can be made and written into. Raises :class:`UserError`."""
    if not _is_dir(path) and os.path.exists(path):  # noqa: PTH110 - of a name that is too long it says no
        raise ConfigError(f"cannot write {what} {path}: it is a file")
    _check_place(path / "file", f"{what} {path}")


def file_kind(path: Path) -> str | None:
    """The suffix by which a name says what kind of file it is of, in small letters, or ``None``."""
    return path.suffix.lower() if _KIND.fullmatch(path.suffix) else None


def check_config(config: Config, *, computes: bool = True) -> None:
    """Templates and folder of images of a configuration, and the device if anything is computed on it.

    Raises:
        UserError: one of them can't be used here.
    """
    if computes:
        check_device(config.model.device)
    check_templates(config.recycle.templates)
    if config.chat.template is not None and config.chat.template.endswith(".jinja"):
        _check_template_file(config.chat.template)
    root = config.data.images.root
    if root is not None and not _is_dir(user_path(root)):
        raise ConfigError(f"data.images.root {root!r} is no folder; give the one that image paths start from")


def check_device(name: str) -> None:
    """Whether ``model.device`` can be there at all, as far as can be told without torch.

    Raises:
        ConfigError: there is no such kind of device, or this machine has none.
    """
    if name == "auto":
        return
    found = _DEVICE.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"model.device {name!r} is no device; give auto, {', '.join(DEVICES)}, or one by number such as cuda:0"
        )
    if found[1] == "cuda" and shutil.which("nvidia-smi") is None and not any(map(os.path.exists, DRIVERS)):
        raise ConfigError(f"model.device {name!r} can't be used here: this machine has no driver of a GPU; give auto")
    if found[1] == "mps" and sys.platform != "darwin":
        raise ConfigError(f"model.device {name!r} can't be used here: only a Mac has it; give auto")


def check_templates(name: str) -> None:
    """Whether a set of templates (``recycle.templates``) can be read. Raises :class:`UserError`."""
    from spark_rl.recycle import load_templates

    load_templates(name)


def seeds_of(given: str) -> list[int]:
    """The seeds of ``--seeds 0,1,2``. Raises :class:`UserError` if it is something else."""
    if not all(seed.isdecimal() for seed in given.split(",")):
        raise UserError(f"--seeds {given!r} is not a list of whole numbers such as 0,1,2")
    return [int(seed) for seed in given.split(",")]


def _check_template_file(template: str) -> None:
    path = user_path(template)
    try:
        if "\n" not in template:
            path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"chat.template: cannot read {template}: {why}") from None


def _check_place(path: Path, named: str | None = None) -> None:
    """Try to write beside a path, in the nearest folder above it that is there."""
    try:
        if _exists(path) and not path.is_file():
            return  # a device or a pipe is opened when it is written
        if path.is_file() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        folder = path.parent
        while not _exists(folder) and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            what = "a file" if folder.exists() else "a link that leads nowhere"
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is {what}")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"cannot write {named or path}: {getattr(error, 'strerror', None) or error}") from None


def _is_dir(path: Path) -> bool:
    """Like ``Path.is_dir``, which a name that no file can have makes an error in some versions of Python."""
    return os.path.isdir(path)  # noqa: PTH112


def _exists(path: Path) -> bool:
    """Like ``Path.exists``, but a name that no file can have is an error."""
    try:
        path.stat()
    except FileNotFoundError:
        return path.is_symlink()
    except NotADirectoryError:
        return False
    return True
