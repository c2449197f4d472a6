"""``spark-rl train``, ``ablate`` and ``report``: runs and what is written about them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from spark_rl.commands.checks import check_config, check_device, check_folder, seeds_of
from spark_rl.commands.models import recipe_of, run_behind, settings_of_run
from spark_rl.commands.terminal import console, loading_torch, say, waiting
from spark_rl.config import Config, load_config, merge_settings, saved_settings
from spark_rl.errors import ConfigError, UserError
from spark_rl.files import user_path
from spark_rl.lock import check_free
from spark_rl.runs import LATEST, new_run, placed
from spark_rl.track import check_trackers

logger = logging.getLogger(__name__)


def train(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl train``."""
    config = resolve(arguments)
    if config.run_dir is not None:
        check_folder(Path(config.run_dir), "the run directory")
    check_device(config.model.device)
    with new_run(config.seed) if config.run_dir is None else nullcontext(Path(config.run_dir)) as run_dir:
        check_free(run_dir)
        say(f"run     {run_dir}")
        config = config.model_copy(update={"run_dir": str(run_dir)})
        if not arguments.resume:  # a run says which of its parts have moved
            check_config(config)
            check_places(config)
            if run_behind(arguments.model) is not None:
                say(f"trains  {config.model.path} further")
        check_trackers(config)
        with loading_torch(console):
            from spark_rl.report.console import before_after_table
            from spark_rl.report.watch import ConsoleWatcher
            from spark_rl.run import train as run

        with ConsoleWatcher(console, run_dir) as watcher:
            summary = run(config, resume=arguments.resume, watcher=watcher)
    if summary["before"] is not None:
        console.print(before_after_table(summary["before"], summary["after"], summary.get("transfer")))
    console.print(f"{summary['tokens']:,} tokens generated in {summary['seconds']:.0f} s of training")
    say(f"model   {run_dir / 'model'}\nreport  {run_dir / 'report.html'}")
    return summary


def check_places(config: Config) -> None:
    """Mistyped paths of model, data and reward functions are told before torch loads.

    Raises:
        UserError: there is no such model or file; the line names the nearest one.
    """
    from spark_rl.data.load import check_place
    from spark_rl.model.places import find_model
    from spark_rl.rewards.load import check_files

    check_files(config.reward)
    find_model(config.model.path)
    trained = config.data.train if isinstance(config.data.train, tuple) else (config.data.train,)
    sources = [entry if isinstance(entry, str) else entry.source for entry in trained]
    for source in (*sources, config.data.heldout, config.data.transfer):
        if source is not None and not source.startswith("split:"):
            check_place(source)


def resolve(arguments: argparse.Namespace) -> Config:
    """The configuration of ``train``: recipe, then options, then KEY=VALUE settings.

    A resumed run, the latest one where none is named, starts from its own settings instead of a recipe, so they need
    not be given again; so does a run whose model is trained further (``--model RUN``).
    """
    settings: dict[str, Any] = {}
    overrides = arguments.overrides
    recipe = arguments.config or recipe_of(arguments.model)
    if arguments.model is not None:
        settings["model"] = {"path": arguments.model}
        if not arguments.resume and (further := settings_of_run(arguments.model)) is not None:
            settings = further if arguments.config is None else {"model": {"path": further["model"]["path"]}}
    if arguments.data is not None:
        sources = arguments.data if len(arguments.data) > 1 else arguments.data[0]
        settings["data"] = {**settings.get("data", {}), "train": sources}
        if arguments.config is None and not arguments.resume:  # the default recipe's exams are about other data
            settings["data"] |= {"heldout": None, "transfer": None}
    if arguments.heldout is not None:
        settings.setdefault("data", {})["heldout"] = arguments.heldout
    for name in ("seed", "run_dir"):
        if getattr(arguments, name) is not None:
            settings[name] = getattr(arguments, name)
    if arguments.resume:
        run_dir = _to_resume(arguments)
        overrides = [override for override in overrides if not override.startswith("run_dir=")]
        settings["run_dir"] = str(run_dir)
        if arguments.config is None:
            recipe, settings = None, merge_settings(saved_settings(run_dir), settings)
    config = load_config(recipe, overrides, **settings)
    if not arguments.resume and config.run_dir is not None and Path(config.run_dir).name == LATEST:
        raise ConfigError(f"{config.run_dir} leads to the latest run; continue it with --resume or choose another name")
    return config


def _to_resume(arguments: argparse.Namespace) -> Path:
    """The directory of the run to continue: by path, name or ``latest``, which is also meant where none is given."""
    given = [text.removeprefix("run_dir=") for text in arguments.overrides if text.startswith("run_dir=")]
    named = given[-1] if given else arguments.run_dir
    if named is None and arguments.config is not None:
        named = load_config(arguments.config).run_dir
    return placed(named or LATEST)


def ablate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl ablate``."""
    seeds = seeds_of(arguments.seeds)
    from spark_rl.report.ablation import TONES

    arms = arguments.arms.split(",")
    unknown = [arm for arm in arms if arm not in TONES]
    if unknown:
        raise UserError(f"unknown arm {unknown[0]!r}; choose from {', '.join(TONES)}")
    config = load_config(arguments.config, arguments.overrides)
    check_config(config)
    check_folder(arguments.run_dir, "the run directories in")
    check_places(config)
    say(f"runs    {arguments.run_dir}")
    from spark_rl.ablate import ablate as run
    from spark_rl.ablate import ablation_table
    from spark_rl.report.arms import ConsoleArms

    with ConsoleArms(console) as watcher:
        results = run(
            arguments.config, arms, seeds, arguments.run_dir, arguments.overrides, watcher, arguments.jobs
        )  # fmt: skip
    console.print(ablation_table(results))
    if "transfer" in results[arms[0]][0]:
        console.print(ablation_table(results, "transfer"))
    say(f"report  {arguments.run_dir / 'report.html'}")
    return results


def report(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl report``."""
    runs = [placed(one) for one in arguments.run_dirs]
    if len(runs) == 1 and arguments.out is not None:
        raise UserError("--out is for comparisons, of two runs or more; the report of a run lies in its folder")
    with waiting(f"reading {', '.join(map(str, runs))}"):
        from spark_rl.report.html import write_report
        from spark_rl.report.several import write_comparison

        if len(runs) == 1:
            path = write_report(runs[0], logger.warning)
        else:
            path = write_comparison(runs, user_path(arguments.out or "comparison.html"), logger.warning)
    say(f"report  {path}")
    return {"report": str(path)}
