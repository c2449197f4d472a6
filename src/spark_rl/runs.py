"""Run directories: what makes a folder one, how it is named, who writes it, and which weights it holds.

A new run gets a directory of its own below ``runs/``, and ``runs/latest`` leads to the run that was started last. One
process at a time writes a run directory: it holds a lock of the operating system on ``RUN/.lock``, which ends with the
process however that ends. Readers take no lock. Nothing here imports torch.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from spark_rl.errors import ConfigError
from spark_rl.files import read_object, write_atomically

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

RUNS = Path("runs")
"""Where runs go and are looked for by name, below the directory that a command is started in."""
LATEST = "latest"
"""The name that leads to the newest run."""
LOCK = ".lock"

_NAME = re.compile(r"step-(\d{6,})")
_ATTEMPTS, _PAUSE = 500, 0.02
"""How often and how many seconds apart a lock is tried that nobody holds but those who ask who does."""
_LOCKED_BYTE = 1 << 30
"""Where Windows locks the file: beyond its content, which a locked byte would hide from readers."""


# What a folder is


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run, begun or finished."""
    try:
        return path.is_dir() and ((path / "metrics.jsonl").exists() or "rollout" in read_object(path / "config.json"))
    except (OSError, ValueError):  # too long to be a path, or with a NUL in it
        return False


def is_checkpoint(path: Path) -> bool:
    """Whether a directory is a checkpoint of a run, ``RUN/checkpoints/step-N``, or the link ``RUN/best`` to one."""
    try:
        found = _led(path)
        if not _NAME.fullmatch(found.name) or found.parent.name != "checkpoints":
            return False
        return is_run(found.parents[1]) or (found / "model").is_dir()
    except (OSError, ValueError):  # too long to be a path, or with a NUL in it
        return False


def _led(path: Path) -> Path:
    """Where a link such as ``RUN/best`` leads; any other path as it is."""
    return path.resolve() if path.is_symlink() else path


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in (run_dir / "checkpoints").glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def trained_weights(run: Path) -> Path:
    """The weights of a run: its final ones, else those of its last checkpoint, which is said; of a checkpoint its own.

    Raises:
        ConfigError: it has neither.
    """
    if is_checkpoint(run):
        return _led(run) / "model"
    if (run / "model").is_dir():
        return run / "model"
    saved = checkpoints(run)
    if not saved:
        raise ConfigError(f"the run {run} has no trained model yet; it has neither finished nor saved a checkpoint")
    logger.warning("the run %s has not finished; the model of its checkpoint %s is taken", run, saved[-1].name)
    return saved[-1] / "model"


def run_of(folder: Path) -> Path | None:
    """The run that a directory of weights belongs to, as ``RUN/model`` or ``RUN/checkpoints/step-N/model``."""
    if folder.name != "model":
        return None
    above = [folder.parent, *folder.parents[2:3]]
    return next((run for run in above if is_run(run)), None)


# Names


def find_run(name: str | Path) -> Path | None:
    """The run that a name means, or ``None``: ``latest``, a run's name below ``runs/``, its path, or that of one of its
    checkpoints.

    Raises:
        ConfigError: ``latest``, and there is none.
    """
    path = placed(name)
    if is_checkpoint(path):
        return _led(path).parents[1]
    return path if is_run(path) else None


def placed(name: str | Path) -> Path:
    """The path that a name stands for: itself if something is there, else what is there below ``runs/``.

    A folder or file that lies where the command is started wins over a run of its name, a folder called ``latest`` too.

    Raises:
        ConfigError: ``latest``, and there is none.
    """
    path = Path(name)
    try:
        is_link = path.name == LATEST and (path.is_symlink() or path.is_file())
        is_there, is_below = path.exists() or path.is_absolute(), (RUNS / path).is_dir()
    except (OSError, ValueError):  # too long to be a path, or with a NUL in it
        return path
    if is_link:
        return latest_run(path.parent)
    if not is_there and path.parts[:1] == (LATEST,):
        return latest_run(RUNS).joinpath(*path.parts[1:])
    return RUNS / path if is_below and not is_there else path


def latest_run(folder: Path = RUNS) -> Path:
    """The run that ``folder/latest`` leads to.

    Raises:
        ConfigError: there is none, or it is gone.
    """
    link = folder / LATEST
    if link.is_symlink():
        run = folder / link.readlink()
    elif link.is_file():
        run = folder / link.read_text(encoding="utf-8", errors="replace").strip()
    elif link.is_dir():
        return link
    else:
        raise ConfigError(f"there is no latest run: {link} is not there; name a run (spark-rl runs lists them)")
    if not run.is_dir():
        raise ConfigError(f"{link} leads to {run}, which is not there any more; name a run (spark-rl runs lists them)")
    return run


def mark_latest(run_dir: Path) -> None:
    """Let ``latest`` beside a run in a folder called ``runs`` lead to it; a run elsewhere leaves any ``latest`` alone.

    It is a symbolic link, or a text file with the run's name where the file system has none. A folder or file of that
    name which isn't ours is kept, and said.
    """
    run_dir = run_dir.absolute()
    folder, link = run_dir.parent, run_dir.parent / LATEST
    if folder.name != RUNS.name or run_dir == link:
        return
    if not link.is_symlink() and link.exists() and not _is_our_file(link):
        logger.warning("%s is not ours, so it is kept and does not lead to the latest run", link)
        return
    scratch = folder / f".{LATEST}.{os.getpid()}.tmp"
    try:
        scratch.symlink_to(run_dir.name, target_is_directory=True)
        scratch.replace(link)
    except (OSError, NotImplementedError):
        try:
            write_atomically(link, f"{run_dir.name}\n".encode())
        except OSError as error:
            logger.warning("%s can't be written (%s), so it does not lead to %s", link, error.strerror, run_dir.name)
    finally:
        scratch.unlink(missing_ok=True)


def _is_our_file(link: Path) -> bool:
    return link.is_file() and bool(re.fullmatch(r"[^/\\\n]{1,255}\n", link.read_text("utf-8", errors="replace")))


@contextmanager
def new_run(seed: int, folder: Path = RUNS) -> Iterator[Path]:
    """A directory that no other run has, named after the minute and the seed; removed again if it is left empty.

    Raises:
        ConfigError: it can't be made.
    """
    made = _make(folder)
    try:
        for run_dir in _names(seed, folder):
            with suppress(FileExistsError):  # another process has just made it
                run_dir.mkdir()
                break
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {run_dir}: {error.strerror}") from None
    try:
        yield run_dir
    finally:
        _remove_empty([*made, run_dir])


def new_run_dir(seed: int, folder: Path = RUNS) -> str:
    """A directory that no other run has, which is not made yet; named as :func:`new_run` names them."""
    run_dir = next(_names(seed, folder))
    return str(run_dir)


def _names(seed: int, folder: Path) -> Iterator[Path]:
    """Names for a new run, the first that nothing has."""
    name = f"{time.strftime('%Y%m%d-%H%M')}-seed{seed}"
    paths = (folder / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return (path for path in paths if not path.exists())


def _make(folder: Path) -> list[Path]:
    """Make a directory; returns those that were not there, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {folder}: {error.strerror}") from None
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # one that holds something, and so do those around it
        for folder in reversed(folders):
            folder.rmdir()


# One process a run directory


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
        if self.failed and any(path.name != LOCK for path in self._lock.parent.iterdir()):
            _write(self._descriptor, replace(self._holder, failed=True))
        elif sys.platform != "win32":  # which removes no open file
            self._lock.unlink(missing_ok=True)
        self._close()
        if sys.platform == "win32" and not self.failed:
            with suppress(OSError):  # the next process has it already
                self._lock.unlink(missing_ok=True)
        _remove_empty(self._made)


def hold(run_dir: Path) -> Hold:
    """Take a run directory for this process, made if it is not there; also a context manager.

    Raises:
        ConfigError: another process holds it, which is named, or it can't be written.
    """
    made, path = _make(run_dir), run_dir / LOCK
    try:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            locked = _locked(descriptor)
            if locked is False or (locked is None and _is_alive(_read(run_dir))):
                os.close(descriptor)
                raise _refusal(run_dir)
            if _is_at(descriptor, path):
                return Hold(run_dir, descriptor, made)
            os.close(descriptor)  # whoever held it has just removed it
    except OSError as error:
        _remove_empty(made)
        raise ConfigError(f"cannot write the run directory {run_dir}: {error.strerror}") from None


def check_free(run_dir: Path) -> None:
    """Raise :class:`ConfigError` if a process writes a run directory, naming it."""
    if holder(run_dir) is not None:
        raise _refusal(run_dir)


def holder(run_dir: Path) -> Holder | None:
    """Who writes a run directory now; changes nothing."""
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDONLY)
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


def _refusal(run_dir: Path) -> ConfigError:
    found = _read(run_dir)
    who = "another process" if found is None else "this very process" if found.pid == os.getpid() else str(found)
    return ConfigError(f"{run_dir} is in use by {who}; wait until that ends or choose another --run-dir")


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
    if found is None or found.failed or sys.platform == "win32":  # where os.kill would end it
        return False
    if found.host != socket.gethostname():
        return True
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return found.pid != os.getpid()


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
