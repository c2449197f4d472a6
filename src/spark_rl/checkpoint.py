"""Run directories and checkpoints: written atomically, resumed exactly.

A run directory holds ``config.json``, ``parts.json``, ``metrics.jsonl``, ``rollouts.jsonl``, ``pairs.json``
(what is compared before and after), ``before.json``, ``evaluations.jsonl``, ``outcomes.jsonl``, ``checkpoints/``,
``best`` (a link to one of them), ``model/`` (the final weights), ``summary.json`` and ``report.html``;
``docs/running.md`` describes them.

A checkpoint holds the weights in the Hugging Face layout, the optimiser's moments, the recycle pool and the counters,
and a manifest by which it is checked before it is used (:mod:`.manifest`).
Random states and the data position are not in it: every random stream is a function of (seed, step, purpose), so the
step number is all it takes to draw the same numbers again.

A resumed run goes on bit for bit where the arithmetic is the same: on the same device, with as many threads, the same
``learner.micro_tokens`` and the same torch. Elsewhere sums round differently, sooner or later a token is sampled
differently, and the run goes its own way; :func:`resume_notes` says so.
"""

from __future__ import annotations

import logging
import platform
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError

from spark_rl.config import Config, saved_settings
from spark_rl.errors import ConfigError, DataError
from spark_rl.files import link_to, parse_json, remove_folder, replace_folder, resolved, sweep, sync_names, write_json
from spark_rl.learner.base import Learner
from spark_rl.manifest import changes, write_manifest
from spark_rl.parts import PARTS, digests, gone, is_the_same_part, part, texts
from spark_rl.recycle import Pool
from spark_rl.report.metrics import read_rows
from spark_rl.runs import SEEN, changed_files, changed_settings, checkpoints, flatten, partial_of, seen_by

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = frozenset({
    "run_dir", "train.steps", "train.tokens", "train.episodes", "train.save_every", "train.keep",
    "train.sample_rollouts", "train.report_every", "train.eval_every", "train.patience", "learner.micro_tokens",
    "verify.workers", "reward.timeout", "model.device", "model.threads", "model.deterministic", "cluster.learners",
    "cluster.engines", "cluster.address", "engine.servers", "track",
})  # fmt: skip
"""Settings a resumed run may change: how long, how often, where. Another device, other threads and other
``micro_tokens`` round sums differently (:func:`resume_notes`). Those of :data:`spark_rl.parts.PARTS` may name the same
thing in another place."""


_BEFORE = {**flatten(Config().model_dump(mode="json")), "model.lora.dropout": 0.0}
"""The values of settings that runs from before them were made with."""


@dataclass(slots=True)
class Progress:
    """The counters of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    step: int = 0
    """Steps finished."""
    tokens: int = 0
    """Tokens generated for training."""
    seconds: float = 0.0
    """Seconds of training, over all sessions of the run."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Problems by task that were not asked, because their prompt is longer than ``rollout.max_prompt_tokens``."""
    steps: int = 0
    """Steps of the whole run, as asked for or expected when this was saved: where the learning rate's schedule ends."""
    terms: dict[str, str | int] = field(default_factory=dict)
    """What the last bits of a run depend on beside its settings (:func:`arithmetic`)."""


def check_run(run_dir: Path, config: Config, resume: bool) -> None:
    """Whether a run may start or go on in ``run_dir``; writes nothing.

    Raises:
        ConfigError: the directory already holds a run and ``resume`` is false, holds none and ``resume`` is true, was
            made with other settings, or needs a part that is not where it was.
    """
    saved = run_dir / "config.json"
    if run_dir.is_file():
        raise ConfigError(f"cannot write the run directory {run_dir}: it is a file")
    if not resume:
        if saved.exists():
            raise ConfigError(f"{run_dir} already holds a run; continue it with --resume or choose another --run-dir")
        return
    settings, current = saved_settings(run_dir), config.model_dump(mode="json")
    if "max_prompt_tokens" not in config.rollout.model_fields_set:  # the model says then, the same as when it began
        current["rollout"]["max_prompt_tokens"] = part(settings, "rollout.max_prompt_tokens")
    recorded = _recorded(run_dir)
    moved = {key for key in PARTS if is_the_same_part(part(settings, key), part(current, key), recorded)}
    before, now = ({key: value for key, value in flatten(tree).items() if value != {} and not _is_one_of(key, moved)}
                   for tree in (settings, current))  # fmt: skip
    before = {key: _BEFORE[key] for key in now.keys() - before.keys() if key in _BEFORE} | before
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and key not in FREE_TO_CHANGE:
            is_part = _is_one_of(key, PARTS) and list(texts(before.get(key))) != list(texts(now.get(key)))
            raise ConfigError(
                f"{run_dir} was made with {key}={before.get(key)!r}, not {now.get(key)!r}; resume it with the "
                "same settings or start a new run"
                + (" (what lies there is not what the run was made with)" if is_part else "")
            )
    needs_base = config.model.lora is not None or config.objective.kl > 0 or not checkpoints(run_dir)
    missing = gone(config, PARTS if needs_base else [key for key in PARTS if key != "model.path"])
    if missing is not None:
        key, path = missing
        raise ConfigError(f"{key} of {run_dir} is not at {path!r} any more; if it moved, say where: {key}=PATH")


def open_run(run_dir: Path, config: Config, resume: bool) -> None:
    """Make a run directory, or go on in one. Raises like :func:`check_run`, and if it can't be written."""
    check_run(run_dir, config, resume)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for folder in (run_dir, run_dir / "checkpoints"):
            sweep(folder)
        write_json(run_dir / "config.json", config.model_dump(mode="json"))
        write_json(run_dir / "parts.json", _recorded(run_dir) | digests(config))
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {run_dir}: {error.strerror}") from None


def _recorded(run_dir: Path) -> dict[str, str]:
    """What ``parts.json`` holds; nothing in runs of versions before it."""
    try:
        content = parse_json((run_dir / "parts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run_dir / 'parts.json'} can't be read ({error}); restore it, or remove it") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ConfigError(f"{run_dir / 'parts.json'} must hold a digest for each path; restore it, or remove it")
    return content


def _is_one_of(key: str, parts: Collection[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in parts)


def check_files(run_dir: Path, saved: Path) -> Iterator[str]:
    """What someone should know of the files of a run that goes on from a checkpoint, one line each; nothing if they are
    as it has seen them. ``pairs.json`` and ``before.json`` are :func:`remembered` only if they are.

    Raises:
        ConfigError: a setting that may not change is another one in ``config.json``.
    """
    for key, line in changed_settings(run_dir, saved).items():
        if key not in FREE_TO_CHANGE and not _is_one_of(key, PARTS):
            raise ConfigError(f"{line}, so config.json is damaged; restore it or start a new run")
        yield line
    yield from changed_files(run_dir, saved, seen_by(saved)["files"].keys() - {"pairs.json", "before.json"})


def save_checkpoint(
    run_dir: Path, learner: Learner, pool: Pool, progress: Progress, keep: int, best: int | None = None,
    ahead: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write ``checkpoints/step-N`` by a single rename, then remove all but the newest ``keep`` and that of ``best``, a
    step. ``ahead`` is what :func:`spark_rl.ahead.state` says was sampled and not trained on yet, ``run`` what
    :func:`spark_rl.runs.seen_by` is to return.
    """
    return begin_checkpoint(run_dir, learner, pool, progress, keep, best, ahead, run)()


def begin_checkpoint(
    run_dir: Path, learner: Learner, pool: Pool, progress: Progress, keep: int, best: int | None = None,
    ahead: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None,
) -> Callable[[], Path]:  # fmt: skip
    """Take down what :func:`save_checkpoint` writes, so that training may go on; what is returned, called once and in
    whatever thread, waits until it is written and does the rest.

    A learner without ``begin_save`` has written its part when this returns.
    """
    folder = run_dir / "checkpoints"
    final = folder / f"step-{progress.step:06d}"
    partial = partial_of(final)
    folder.mkdir(exist_ok=True)  # and no run directory, which would be another one than that of the run
    sync_names(run_dir)
    with _or_nothing(partial):
        begin: Callable[[Path], Callable[[], None]] | None = getattr(learner, "begin_save", None)
        written = None if begin is None else begin(partial)
        if begin is None:
            learner.save(partial)
        write_json(partial / "state.json", {**asdict(progress), "pool": pool.state(), "dropped": pool.dropped})
        if run:
            write_json(partial / SEEN, run)
        if ahead:
            write_json(partial / "ahead.json", ahead)

    def finish() -> Path:
        with _or_nothing(partial, new=False):
            if written is not None:
                written()
            write_manifest(partial, progress.step)
            replace_folder(final, partial)
        rotate(run_dir, keep, best, final)
        return final

    return finish


def rotate(run_dir: Path, keep: int, best: int | None = None, final: Path | None = None) -> None:
    """Remove all checkpoints but the newest ``keep``, that of ``best``, a step, and ``final``, just written."""
    for old in checkpoints(run_dir)[:-keep]:
        if old != final and (best is None or old.name != f"step-{best:06d}"):
            remove_folder(old)


@contextmanager
def _or_nothing(partial: Path, *, new: bool = True) -> Iterator[None]:
    """A folder to write in, made first if it is a new one, and removed when something goes wrong: a disk that is full
    has the room again.
    """
    try:
        if new:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class Saver:
    """Writes the checkpoints of a run, one after another.

    A learner with ``begin_save`` trains on while its checkpoint is written. The folder has its name when it is whole,
    so whatever ends the run before leaves the one before it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._written: Path | None = None
        self._error: BaseException | None = None

    def save(
        self, run_dir: Path, learner: Learner, pool: Pool, progress: Progress, keep: int, best: int | None = None,
        ahead: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Begin to write a checkpoint, see :func:`save_checkpoint`; the one before must be collected."""
        assert self._thread is None, "one at a time"
        finish = begin_checkpoint(run_dir, learner, pool, progress, keep, best, ahead, run)
        if not hasattr(learner, "begin_save"):
            self._written = finish()
            return

        def write() -> None:
            try:
                self._written = finish()
            except BaseException as error:  # noqa: BLE001  # raised where the run can end by it
                self._error = error

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()

    def collect(self, *, wait: bool) -> Path | None:
        """The checkpoint that has been written since the last call, if there is one; what its writing raised."""
        if self._thread is not None:
            if not wait and self._thread.is_alive():
                return None
            self._thread.join()
            self._thread = None
        error, self._error, written, self._written = self._error, None, self._written, None
        if error is not None:
            raise error
        return written


def export_model(run_dir: Path, learner: Learner, step: int) -> Path:
    """Write ``model``, the weights after a step, by a single rename: whatever ends a run leaves no half of it."""
    final, partial = run_dir / "model", partial_of(run_dir / "model")
    with _or_nothing(partial):
        learner.export(partial)
        write_manifest(partial, step)
        replace_folder(final, partial)
    return final


def check_best(run_dir: Path, best: int | None) -> None:
    """Where evaluations are damaged: whether ``best`` leads to the step that is the best by those that are left. If
    not, its checkpoint would be removed.

    Raises:
        ConfigError: it leads to another.
    """
    link = run_dir / "best"
    if link.is_dir() and (best is None or resolved(link).name != f"step-{best:06d}"):
        found = "none" if best is None else f"step {best}"
        raise ConfigError(f"{link} leads to {resolved(link).name}, and by what is left of evaluations.jsonl, which is "
                          f"damaged, the best is {found}; restore the file, or remove {link} to go on")  # fmt: skip


def mark_best(run_dir: Path, step: int) -> None:
    """Make ``best`` a link to the checkpoint of a step, relative, so that a run can be moved whole."""
    link, target = run_dir / "best", run_dir / "checkpoints" / f"step-{step:06d}"
    if not target.is_dir() or resolved(link) == resolved(target):
        return
    try:
        link_to(link, target)
    except (OSError, NotImplementedError) as error:
        logger.warning("%s can't be made a link to %s (%s); summary.json names the step", link, target, error)


def load_checkpoint(path: Path, learner: Learner, pool_size: int) -> tuple[Pool, Progress]:
    """Give the learner its moments back; the weights are loaded from ``path / "model"`` when the model is made.

    Raises:
        ConfigError: the checkpoint can't be read.
        DataError: the file of a recycled problem's image is gone or has changed.
    """
    try:
        learner.load(path)
        state = parse_json((path / "state.json").read_text(encoding="utf-8"))
        pool = Pool.from_state(pool_size, state["pool"], int(state["dropped"]))
        counters = {counter.name: state[counter.name] for counter in fields(Progress)}
        return pool, TypeAdapter(Progress).validate_python(counters)
    except DataError:  # of an image, not of the checkpoint
        raise
    except (
        OSError, AssertionError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
        SafetensorError,
    ) as error:  # fmt: skip
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"checkpoint {path} can't be read ({why}); remove it to resume from the one before") from None


def arithmetic(config: Config, device: torch.device) -> dict[str, str | int]:
    """What the last bits of a run depend on beside its settings, by the names a user knows them by."""
    where: dict[str, str | int] = {"device": str(device.type), "learner.micro_tokens": config.learner.micro_tokens}
    where |= {
        f"cluster.{name}": number for name in ("learners", "engines") if (number := getattr(config.cluster, name))
    }
    if device.type == "cuda" and torch.cuda.is_available():  # with learners elsewhere there may be none here
        where["GPU"] = torch.cuda.get_device_name(device)
        where |= {"model.deterministic": "true"} if config.model.deterministic else {}
    else:
        where |= {"threads": torch.get_num_threads(), "machine": platform.machine(),
                  "instructions": torch.backends.cpu.get_cpu_capability()}  # fmt: skip
    return where | {name: _version(name) or "unknown" for name in ("torch", "transformers")}


def resume_notes(saved: Progress, now: Progress, learner: Learner, schedule: str) -> Iterator[str]:
    """What someone should know who resumes ``saved`` as ``now``, one line each; nothing if the run goes on as it was.

    Args:
        saved: the counters as the checkpoint holds them.
        now: the same with the steps and terms of this session.
        learner: with its state loaded.
        schedule: ``optimiser.schedule``.
    """
    names = [name for name in saved.terms | now.terms if saved.terms.get(name) != now.terms.get(name)]
    if names:
        changes = ", ".join(
            f"{name} {saved.terms.get(name, 'none')} -> {now.terms.get(name, 'none')}" for name in names
        )
        yield f"this run may diverge from one that was never interrupted: rounding depends on what changed ({changes})"
    if saved.steps != now.steps and schedule != "constant":
        was, becomes = learner.rate(saved.step, saved.steps), learner.rate(saved.step, now.steps)
        yield (
            f"the {schedule} schedule of the learning rate now ends at step {now.steps} instead of {saved.steps}: "
            f"at step {saved.step + 1} it goes on at {becomes:.3g} instead of {was:.3g}"
        )


def remembered(
    path: Path, make: Callable[[], dict[str, Any]], is_whole: Callable[[Any], bool], step: int = 0,
    files: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:  # fmt: skip
    """What ``path`` holds, or what ``make`` returns, written there for the next session of the run.

    Args:
        path: in the run directory.
        make: measures the untrained model.
        is_whole: whether a value is of the kind that ``make`` returns.
        step: how far the run is; later than 0 the untrained model is gone, and ``make`` would measure another.
        files: what the checkpoint has seen, from which the run goes on (:func:`spark_rl.runs.seen_by`).

    Raises:
        ConfigError: the file is damaged or has changed, or is missing where it can't be made again.
    """
    if step == 0 and not path.exists():
        write_json(path, made := make())
        return made
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    again = "remove it and resume: it is made again" if step == 0 else (
        "it holds what was measured before training, which can't be done again: restore it or start a new run"
    )  # fmt: skip
    if not is_whole(content):
        raise ConfigError(f"{path} is {'damaged' if path.exists() else 'missing'}; {again}")
    if changed := changes(path.parent, files, [path.name]):
        raise ConfigError(f"{path} {changed[path.name]}; {again}")
    found: dict[str, Any] = content
    return found


def resume_line(run_dir: Path, progress: Progress) -> str:
    """Where a resumed run goes on, and what it does again."""
    path = run_dir / "metrics.jsonl"
    dropped = sum(record["step"] > progress.step for record in read_rows(path)[0]) if path.exists() else 0
    if progress.step >= progress.steps:
        where = f"all {progress.steps} steps are done"
    else:
        where = f"goes on at step {progress.step + 1} of {progress.steps}"
    if not dropped:
        return where
    since = f"after checkpoint step-{progress.step:06d}" if progress.step else "before a checkpoint was saved"
    return f"{where}; drops {dropped} step{'s' if dropped > 1 else ''} logged {since}"


def summarise(config: Config, before: dict[str, Any], after: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The machine-readable result of a run: held-out scores before and after, cost, settings and versions."""
    transfer = {"before": before["transfer"], "after": after["transfer"]} if "transfer" in after else None
    return {
        "before": before.get("heldout"),
        "after": after.get("heldout"),
        **({"transfer": transfer} if transfer else {}),
        "seconds": progress.seconds,
        "tokens": progress.tokens,
        "skipped": progress.skipped,
        "config": config.model_dump(mode="json"),
        "versions": {name: _version(name) for name in ("spark-rl", "torch", "transformers")},
    }


def _version(name: str) -> str | None:
    """A package's version; ``None`` for a checkout that was never installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
