"""``spark-rl train``, ``ablate`` and ``report``: runs and what is written about them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_rl.commands.checks import check_config, check_device, check_folder
from spark_rl.commands.models import recipe_of, settings_of_run
from spark_rl.commands.terminal import console, quiet_libraries, say
from spark_rl.config import Config, load_config, merge_settings, saved_settings
from spark_rl.errors import ConfigError, UserError


def train(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl train``."""
    config = resolve(arguments)
    if config.run_dir is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        config = config.model_copy(update={"run_dir": f"runs/{stamp}-seed{config.seed}"})
    assert config.run_dir is not None, "set just above"
    check_folder(Path(config.run_dir), "the run directory")
    check_device(config.model.device)
    if not arguments.resume:  # a run says which of its parts have moved
        check_config(config)
        check_places(config)
    quiet_libraries()
    from spark_rl.report.console import before_after_table
    from spark_rl.report.watch import ConsoleWatcher
    from spark_rl.run import train as run

    with ConsoleWatcher(console) as watcher:
        summary = run(config, resume=arguments.resume, watcher=watcher)
    if summary["before"] is not None:
        console.print(before_after_table(summary["before"], summary["after"], summary.get("transfer")))
    console.print(f"{summary['tokens']:,} tokens generated in {summary['seconds']:.0f} s of training")
    run_dir = Path(config.run_dir)
    say(f"model   {run_dir / 'model'}\nreport  {run_dir / 'report.html'}")
    return summary


def check_places(config: Config) -> None:
    """Mistyped paths of model and data are told before torch loads.

    Raises:
        UserError: there is no such model or file; the line names the nearest one.
    """
    from spark_rl.data.load import check_place
    from spark_rl.model.places import find_model

    find_model(config.model.path)
    trained = config.data.train if isinstance(config.data.train, tuple) else (config.data.train,)
    sources = [entry if isinstance(entry, str) else entry.source for entry in trained]
    for source in (*sources, config.data.heldout, config.data.transfer):
        if source is not None and not source.startswith("split:"):
            check_place(source)


def resolve(arguments: argparse.Namespace) -> Config:
    """The configuration of ``train``: recipe, then options, then KEY=VALUE settings.

    A resumed run starts from its own settings instead of a recipe, so they need not be given again; so does a run whose
    model is trained further (``--model RUN``).
    """
    settings: dict[str, Any] = {}
    recipe = arguments.config or recipe_of(arguments.model)
    if arguments.model is not None:
        settings["model"] = {"path": arguments.model}
        if not arguments.resume and (further := settings_of_run(arguments.model)) is not None:
            settings = further if arguments.config is None else {"model": {"path": further["model"]["path"]}}
            say(f"trains {settings['model']['path']} further")
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
    if arguments.resume and arguments.config is None:
        if arguments.run_dir is None:
            raise ConfigError("--resume needs --run-dir, the run to continue")
        recipe, settings = None, merge_settings(saved_settings(Path(arguments.run_dir)), settings)
    return load_config(recipe, arguments.overrides, **settings)


def ablate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl ablate``."""
    config = load_config(arguments.config, arguments.overrides)
    check_config(config)
    check_folder(arguments.run_dir, "the run directories in")
    check_places(config)
    quiet_libraries()
    from spark_rl.ablate import ARMS, ablation_table
    from spark_rl.ablate import ablate as run

    arms = arguments.arms.split(",")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise UserError(f"unknown arm {unknown[0]!r}; choose from {', '.join(ARMS)}")
    if not all(seed.isdecimal() for seed in arguments.seeds.split(",")):
        raise UserError(f"--seeds {arguments.seeds!r} is not a list of whole numbers such as 0,1,2")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    results = run(arguments.config, arms, seeds, arguments.run_dir, arguments.overrides, console.print)
    console.print(ablation_table(results))
    if "transfer" in results[arms[0]][0]:
        console.print(ablation_table(results, "transfer"))
    return results


def report(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl report``."""
    from spark_rl.report.html import write_report

    path = write_report(arguments.run_dir)
    say(f"report  {path}")
    return {"report": str(path)}
