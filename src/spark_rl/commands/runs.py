"""``spark-rl runs``: the runs below a folder, what each was trained on and reached, and whether it is still going."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from spark_rl.commands.terminal import console, say
from spark_rl.errors import ConfigError, UserError
from spark_rl.files import odd_file, parse_json, read_object, resolved
from spark_rl.lock import LOCK, holder, last_holder
from spark_rl.report.metrics import finite, read_rows
from spark_rl.report.notation import DASH, percent
from spark_rl.report.settings import setting
from spark_rl.runs import LATEST, RUNS, WRITTEN_ONCE, changed_files, checkpoints, is_run, latest_run

SIGNS = ("config.json", "metrics.jsonl", "summary.json", LOCK)
"""Any of these makes a folder one to look at."""
SCORES = {"policy_accuracy": "policy", "judge_accuracy": "judge", "tts_accuracy": "with TTS"}
STYLES = {"running": "green", "starting": "green", "failed": "red", "killed": "red", "damaged": "red"}
DEPTH = 2
"""How deep runs are looked for: ``runs/NAME`` and, of an ablation, ``runs/ablation/NAME``."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One run as it is listed."""

    name: str
    """Its path below the folder; it names the run where the folder is ``runs``."""
    path: str
    state: str
    """``starting``, ``running``, ``finished``, ``stopped``, ``failed`` (it ended with an error), ``killed`` (its
    process is gone without an end) or ``damaged``."""
    about: str
    """Who writes it, and what of it is damaged."""
    model: str
    data: str
    step: int
    steps: int | None
    """How many steps it is to do; ``None`` where only the data would tell."""
    before: dict[str, float | None]
    after: dict[str, float | None]
    started: float
    """Seconds since 1970: when the oldest of its files was written."""
    latest: bool
    """Whether ``latest`` leads to it."""


def list_runs(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl runs``."""
    folder: Path = arguments.folder
    if not folder.is_dir() and folder != RUNS:
        raise UserError(f"there is no folder {folder}; give one that holds runs (default: {RUNS})")
    try:
        newest = resolved(latest_run(folder))
    except ConfigError:
        newest = None
    found = [listed(path, folder, newest) for path in run_folders(folder)]
    found.sort(key=lambda run: (run.started, run.name), reverse=True)
    if not found:
        say(f"there are no runs in {folder}; spark-rl train makes one")
        return {"runs": []}
    for run in found:
        console.print(*_lines(run), sep="\n", highlight=False, soft_wrap=True)
    return {"runs": [asdict(run) for run in found]}


def run_folders(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Folders that hold at least one file of a run, even a damaged one."""
    try:
        children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return
    for path in children:
        if _is_listed(path):
            yield path
        elif depth > 1:
            yield from run_folders(path, depth - 1)


def listed(path: Path, folder: Path, newest: Path | None) -> Listed:
    """What the files of a run say, read while it may still be written; nothing in them is trusted to be in order."""
    config, summary, early = (read_object(path / name) for name in ("config.json", "summary.json", "before.json"))
    state, about = _state(path, config, summary)
    saved = checkpoints(path)[-1:]
    progress = read_object(saved[0] / "state.json") if saved else {}
    step, damage = _last_step(path / "metrics.jsonl")
    damage += changed_files(path, saved[0], WRITTEN_ONCE) if saved else []  # logs would take too long to read
    about = "; ".join([*([about] if about else []), *damage])
    by_tokens = finite(setting(config, "train.tokens")) is not None  # the steps are an estimate, as of the checkpoint
    steps = (None if by_tokens else finite(setting(config, "train.steps"))) or finite(progress.get("steps"))
    return Listed(
        name=path.relative_to(folder).as_posix(), path=str(path), state=state, about=about,
        model=_short_path(setting(config, "model.path")), data=_data(setting(config, "data.train")),
        step=step, steps=None if steps is None else int(steps),
        before=_scores(summary.get("before") or early.get("heldout")), after=_scores(summary.get("after")),
        started=_started(path), latest=newest is not None and resolved(path) == newest,
    )  # fmt: skip


def _is_listed(path: Path) -> bool:
    if not any((path / name).exists() for name in SIGNS):
        return False
    config = read_object(path / "config.json")
    return is_run(path) or (path / LOCK).exists() or (not config and (path / "config.json").exists())


def _state(path: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[str, str]:
    if (odd := odd_file(path)) is not None:
        return "damaged", f"{odd.relative_to(path)} is neither a file nor a folder"
    who = holder(path)
    if who is not None:
        return ("running" if config else "starting"), str(who)
    if (why := _damage(path)) is not None:
        return "damaged", why
    last = last_holder(path)
    if last is not None:
        return ("failed" if last.failed else "killed"), str(last)
    return ("finished" if summary and summary.get("config") == config else "stopped"), ""


def _damage(path: Path) -> str | None:
    """The first file that can't be read as what it is."""
    for name in ("config.json", "summary.json", "before.json"):
        file = path / name
        if not file.exists():
            if name == "config.json":
                return f"no {name}"
            continue
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return f"{name} can't be read"
        if not isinstance(content, dict):
            return f"{name} is no object"
    return None


def _last_step(metrics: Path) -> tuple[int, list[str]]:
    """The step of the last whole record, 0 if there is none; and which records are damaged, in one line or none."""
    if not metrics.is_file():
        return 0, []
    try:
        records, damage = read_rows(metrics)
    except OSError:
        return 0, []
    return records[-1]["step"] if records else 0, [] if damage is None else [str(damage)]


def _started(path: Path) -> float:
    times = []
    for file in path.iterdir():
        try:
            if file.name != LOCK and file.is_file():
                times.append(file.stat().st_mtime)
        except OSError:  # just replaced
            continue
    return min(times, default=path.stat().st_mtime)


def _scores(found: Any) -> dict[str, float | None]:
    return {key: finite(found.get(key)) for key in SCORES} if isinstance(found, Mapping) else {}


def _data(value: Any) -> str:
    entries = value if isinstance(value, list) else [value]
    sources = [entry.get("source") if isinstance(entry, Mapping) else entry for entry in entries]
    return ", ".join(_short_path(source) for source in sources)


def _short_path(value: Any) -> str:
    """An absolute path by its last names, the run's own where it is the model of one; a name as it is."""
    if not isinstance(value, str):
        return DASH if value is None else str(value)
    path = Path(value)
    return path.name if path.name != "model" or not path.parent.name else f"{path.parent.name}/model"


def _lines(run: Listed) -> Iterator[Text]:
    """A run as two lines: what it is, and what it was trained on and reached."""
    steps = f"{run.step}/{DASH if run.steps is None else run.steps}"
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    name = f"{run.name} ({LATEST})" if run.latest else run.name
    yield Text.assemble(
        (f"{name:<34}", "bold"), f"{steps:>11}  {started}  ", (run.state, STYLES.get(run.state, "")),
        f" ({run.about})" if run.about else "",
    )  # fmt: skip
    if run.model == DASH:
        return
    scores = [
        f"{name} {' -> '.join(percent(found.get(key), 1) for found in (run.before, run.after) if found)}"
        for key, name in SCORES.items()
        if run.before or run.after
    ]
    yield Text(f"    {'  '.join([f'{run.model}, {run.data}', *scores])}", style="dim")
