"""``spark-rl cost``: RM-based RL in the same harness, and what it takes beside recycling (Table 7)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from spark_rl.commands.checks import check_config, check_folder, check_outputs
from spark_rl.commands.terminal import console, loading_torch, say
from spark_rl.commands.training import check_places
from spark_rl.config import load_config
from spark_rl.files import write_output


def cost(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl cost``."""
    config = load_config(arguments.config, arguments.overrides)
    check_config(config)
    check_folder(arguments.run_dir, "the run directories in")
    check_outputs(arguments.out, kinds=(".md",))
    check_places(config)
    say(f"runs    {arguments.run_dir}")
    with loading_torch(console):
        from spark_rl.cost.arms import measure_cost
        from spark_rl.cost.estimate import SCALES, estimate
        from spark_rl.cost.reward_model import RewardTraining
        from spark_rl.cost.table import markdown, tables
        from spark_rl.report.watch import ConsoleWatcher

    training = RewardTraining(arguments.rm_problems, arguments.rm_epochs, lr=arguments.rm_lr)
    with ConsoleWatcher(console) as watcher:
        measured = measure_cost(
            arguments.config, arguments.overrides, arguments.run_dir, steps=arguments.steps,
            repeats=arguments.repeats, training=training, watcher=watcher,
        )  # fmt: skip
    estimates = [estimate(scale) for scale in SCALES]
    for table in tables(measured, estimates):
        console.print(table.rich())
    if arguments.out is not None:
        write_output(arguments.out, markdown(measured, estimates))
        say(f"wrote   {arguments.out}")
    return {**measured.facts(), "by_arithmetic": [found.facts() for found in estimates]}
