"""Run directories: what makes a folder one, how it is named, and which weights it holds.

A new run gets a directory of its own below ``runs/``, and ``runs/latest`` leads to the run that was started last.
Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spark_rl.errors import ConfigError
from spark_rl.files import check_regular, link_to, read_object, resolved, write_atomically
from spark_rl.manifest import changes, damage_of, describe, written_at

logger = logging.getLogger(__name__)

RUNS = Path("runs")
"""Where runs go and are looked for by name, below the directory that a command is started in."""
LATEST = "latest"
"""The name that leads to the newest run."""
SEEN = "run.json"
"""The file of a checkpoint that says what its run held when it was saved."""

WRITTEN_ONCE = ("parts.json", "pairs.json", "before.json")
"""Files of a run that no step changes."""

_NAME = re.compile(r"step-(\d{6,})")


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
    return resolved(path) if path.is_symlink() else path


def partial_of(final: Path) -> Path:
    """Where a folder is written before it is renamed to ``final``."""
    return final.with_name(f".{final.name}.partial")


def final_of(path: Path) -> Path:
    """Where a folder lies that was written as ``path``, which :func:`partial_of` may have named."""
    if path.exists():
        return path
    return path.with_name(path.name.removeprefix(".").removesuffix(".partial"))


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in (run_dir / "checkpoints").glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(folder.name.removeprefix("step-"))


def trained_weights(run: Path) -> Path:
    """The weights of a run: its final ones, else those of its last checkpoint, which is said; of a checkpoint its own.

    Final ones that are older than a checkpoint are those of a run that goes on. What is damaged is said and left out.

    Raises:
        ConfigError: it has neither, or all of them are damaged.
    """
    if is_checkpoint(run):
        return undamaged(_led(run)) / "model"
    final, damaged = run / "model", dict[Path, str]()
    found = checkpoints(run)
    if final.is_dir():
        step = written_at(final)
        newer = [path for path in found if step is not None and step_of(path) > step]
        found = [*(path for path in found if path not in newer), final, *newer]
    if not found:
        raise ConfigError(f"the run {run} has no trained model yet; it has neither finished nor saved a checkpoint")
    for path in reversed(found):
        made_before_manifests = path == final and written_at(path) is None
        why = None if made_before_manifests else damage_of(path)
        if why is None:
            break
        damaged[path] = why
    else:
        raise ConfigError(f"no model of the run {run} is whole ({describe(damaged)}); restore one of them")
    if damaged:
        logger.warning("%s: damaged and left out: %s", run, describe(damaged))
    if path == final:
        return final
    logger.warning("the run %s has not finished; the model of its checkpoint %s is taken", run, path.name)
    return path / "model"


def undamaged(folder: Path) -> Path:
    """A checkpoint, if it is as it was written.

    Raises:
        ConfigError: it is damaged; the line says what is.
    """
    if (why := damage_of(folder)) is not None:
        raise ConfigError(f"checkpoint {folder} is damaged: {why}; restore it or take another")
    return folder


def newest_whole(run_dir: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint that is as it was written, and those newer ones that are not, with what is wrong.

    Raises:
        ConfigError: there are checkpoints, and all of them are damaged.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(checkpoints(run_dir)):
        if (why := damage_of(path)) is None:
            return path, damaged
        damaged[path] = why
    if damaged:
        raise ConfigError(f"every checkpoint of {run_dir} is damaged ({describe(damaged)}); restore one, or remove "
                          "them all to begin again")  # fmt: skip
    return None, damaged


def seen_by(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """What a checkpoint says of the run that it belongs to: ``config``, its settings, and ``files``, for each of its
    files what :func:`spark_rl.manifest.held` said when it was saved. Both are empty in one of before.
    """
    parts = read_object(checkpoint / SEEN)
    return {name: part if isinstance(part := parts.get(name), dict) else {} for name in ("config", "files")}


def kept_bytes(files: Mapping[str, Any], name: str) -> int:
    """How long a file of a run was when a checkpoint was saved, by the files of :func:`seen_by`; 0 without a word."""
    size = files[name].get("bytes") if isinstance(files.get(name), dict) else None
    return size if isinstance(size, int) else 0


def changed_files(run_dir: Path, checkpoint: Path, names: Iterable[str] | None = None) -> list[str]:
    """What a checkpoint has seen otherwise of the files of its run, in one line or none.

    Args:
        run_dir: the run.
        checkpoint: one of its checkpoints.
        names: of the files that are compared; ``None`` is all.
    """
    found = changes(run_dir, seen_by(checkpoint)["files"], names)
    said = "; ".join(f"{name} {how}" for name, how in found.items())
    return [f"{run_dir}: changed since {checkpoint.name} was saved: {said}"] if found else []


def changed_settings(run_dir: Path, checkpoint: Path) -> dict[str, str]:
    """The settings that are others in the ``config.json`` of a run than a checkpoint has seen -> a line about each."""
    path = run_dir / "config.json"
    before, now = flatten(seen_by(checkpoint)["config"]), flatten(read_object(path))
    return {
        key: f"{path} says {key}={now.get(key)!r}, and {checkpoint.name} was saved with {value!r}"
        for key, value in before.items()
        if key not in now or now[key] != value
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty one is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def set_aside(folder: Path) -> Path:
    """Let a damaged checkpoint count no more: it is kept under a name that is none of a checkpoint."""
    numbers = (f"{folder.name}.damaged{'' if number == 1 else f'-{number}'}" for number in itertools.count(1))
    return folder.rename(next(path for name in numbers if not (path := folder.with_name(name)).exists()))


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
        UserError: it is a folder with a pipe or a device in it.
    """
    path = _placed(Path(name))
    return check_regular(path) if is_run(path) or is_checkpoint(path) else path


def _placed(path: Path) -> Path:
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
    try:
        link_to(link, run_dir)
    except (OSError, NotImplementedError):
        try:
            write_atomically(link, f"{run_dir.name}\n".encode())
        except OSError as error:
            logger.warning("%s can't be written (%s), so it does not lead to %s", link, error.strerror, run_dir.name)


def _is_our_file(link: Path) -> bool:
    return link.is_file() and bool(re.fullmatch(r"[^/\\\n]{1,255}\n", link.read_text("utf-8", errors="replace")))


@contextmanager
def new_run(seed: int, folder: Path = RUNS) -> Iterator[Path]:
    """A directory that no other run has, named after the minute and the seed; removed again if it is left empty.

    Raises:
        ConfigError: it can't be made.
    """
    made = make_folder(folder)
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
        remove_empty([*made, run_dir])


def new_run_dir(seed: int, folder: Path = RUNS) -> str:
    """A directory that no other run has, which is not made yet; named as :func:`new_run` names them."""
    run_dir = next(_names(seed, folder))
    return str(run_dir)


def _names(seed: int, folder: Path) -> Iterator[Path]:
    """Names for a new run, the first that nothing has."""
    name = f"{time.strftime('%Y%m%d-%H%M')}-seed{seed}"
    paths = (folder / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return (path for path in paths if not path.exists())


def make_folder(folder: Path) -> list[Path]:
    """Make a directory; returns those that were not there, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {folder}: {error.strerror}") from None
    return missing


def remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # one that holds something, and so do those around it
        for folder in reversed(folders):
            folder.rmdir()
