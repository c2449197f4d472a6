"""One process at a time writes a run directory.

It holds a lock of the operating system on ``RUN/.lock``, which ends with the process however that ends. Readers take no
lock. Nothing here imports torch.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from spark_rl.errors import ConfigError
from spark_rl.files import check_own, is_running, read_object
from spark_rl.runs import make_folder, remove_empty

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"

_ATTEMPTS, _PAUSE = 500, 0.02
"""How often and how many seconds apart a lock is tried that nobody holds but those who ask who does."""
_SETTLE = 25
"""Pauses in which whoever has just got a lock has written its name over that of who had it before."""
_LOCKED_BYTE = 1 << 30
"""Where Windows locks the file: beyond its content, which a locked byte would hide from readers."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes a run directory, or did last: what ``RUN/.lock`` holds.

    ``Holder(pid=4711, host="gpu-7", since=1795657623.0)``
    """

    pid: int
    host: str
    since: float
    """Seconds since 1970."""
    failed: bool = False
    """Whether it ended with an error."""

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


class Hold:
    """A run directory that this process alone writes, until it is released."""

    def __init__(self, run_dir: Path, descriptor: int, made: list[Path]) -> None:
        self.failed = False
        """Whether the run has ended with an error, which is then remembered."""
        self._lock, self._descriptor, self._made = run_dir / LOCK, descriptor, made
        self._holder = Holder(os.getpid(), socket.gethostname(), time.time())
        _write(descriptor, self._holder)
        _HELD.add(descriptor)
        self._close = weakref.finalize(self, _close, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed = kind is not None and issubclass(kind, Exception)
        self.release()

    def release(self) -> None:
        """Let others write; a directory that was made for this run and holds nothing is removed."""
        if not self._close.alive or os.getpid() != self._holder.pid:
            return
        there = list(self._lock.parent.glob("*")) if self._lock.parent.is_dir() else []
        if self.failed and there:
            _write(self._descriptor, replace(self._holder, failed=True))
        elif sys.platform != "win32":  # which removes no open file
            self._lock.unlink(missing_ok=True)
        self._close()
        if sys.platform == "win32" and not self.failed:
            with suppress(OSError):  # the next process has it already
                self._lock.unlink(missing_ok=True)
        remove_empty(self._made)


def hold(run_dir: Path) -> Hold:
    """Take a run directory for this process, made if it is not there; also a context manager.

    Raises:
        ConfigError: another process holds it, which is named, or it can't be written.
        UserError: a file of it is a link to elsewhere.
    """
    check_own(run_dir)
    made, path, before = make_folder(run_dir), run_dir / LOCK, _read(run_dir)
    try:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            locked = _locked(descriptor)
            if locked is False or (locked is None and _is_alive(_read(run_dir))):
                os.close(descriptor)
                for _ in range(_SETTLE if locked is False else 0):
                    if _read(run_dir) not in {before, None}:
                        break
                    time.sleep(_PAUSE)
                raise _refusal(run_dir, sure=locked is False)
            if _is_at(descriptor, path):
                return Hold(run_dir, descriptor, made)
            os.close(descriptor)  # whoever held it has just removed it
    except OSError as error:
        remove_empty(made)
        raise ConfigError(f"cannot write the run directory {run_dir}: {error.strerror}") from None


def check_free(run_dir: Path) -> None:
    """Raise :class:`ConfigError` if a process writes a run directory, naming it."""
    if holder(run_dir) is not None:
        raise _refusal(run_dir)


def holder(run_dir: Path) -> Holder | None:
    """Who writes a run directory now; changes nothing."""
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        held, found = _is_held(descriptor), _read(run_dir)
    finally:
        os.close(descriptor)
    if held is None:
        held = _is_alive(found)
    return (found or Holder(0, "an unknown host", 0.0)) if held else None


def last_holder(run_dir: Path) -> Holder | None:
    """Who has a run directory or left it without an end: whoever ends well leaves no record, and who is killed does."""
    return _read(run_dir)


def _refusal(run_dir: Path, *, sure: bool = True) -> ConfigError:
    found = _read(run_dir)
    who = "another process" if found is None else "this very process" if found.pid == os.getpid() else str(found)
    gone = "" if sure else f", or if it is gone, remove {run_dir / LOCK}: this file system has no locks to tell"
    return ConfigError(f"{run_dir} is in use by {who}; wait until that ends or choose another --run-dir{gone}")


def _locked(descriptor: int) -> bool | None:
    """Whether this process has the lock of an open file now; ``None`` where the file system has no locks.

    Those who ask (:func:`_is_held`) share it for an instant. If it can be shared nobody has it, so it is tried again.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        taken = _try_lock(descriptor)
        if taken is not False:
            return taken
        if _is_held(descriptor):
            return False
    return False


def _is_held(descriptor: int) -> bool | None:
    """Whether another process has the lock of an open file; ``None`` where the file system has no locks."""
    taken = _try_lock(descriptor, shared=True)
    if taken and sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    elif taken:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return None if taken is None else not taken


def _try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    try:
        if sys.platform == "win32":  # which shares none
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK} else None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_alive(found: Holder | None) -> bool:
    """Whether a process that took a file without locks is still there, as far as this machine can tell."""
    if found is None or found.failed or sys.platform == "win32":  # which can't tell
        return False
    if found.host != socket.gethostname():
        return True
    return found.pid != os.getpid() and is_running(found.pid)


def _read(run_dir: Path) -> Holder | None:
    found = read_object(run_dir / LOCK)
    try:
        time.localtime(found["since"])
        return Holder(int(found["pid"]), str(found["host"]), float(found["since"]), bool(found.get("failed")))
    except (KeyError, TypeError, ValueError, OverflowError, OSError):  # not what hold writes
        return None


def _write(descriptor: int, record: Holder) -> None:
    content = json.dumps(asdict(record)).encode() + b"\n"
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, content)
    os.ftruncate(descriptor, len(content))


_HELD: set[int] = set()
"""The open locks of this process."""


def _close(descriptor: int) -> None:
    if descriptor in _HELD:
        _HELD.discard(descriptor)
        os.close(descriptor)


def _leave_locks_to_the_parent() -> None:
    """A forked child that outlives a killed run must not keep its directory."""
    for descriptor in tuple(_HELD):
        _close(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_the_parent)
