"""``spark-rl export``: the model of a run as a folder of its own, merged or not, and on the hub."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_rl.commands.terminal import quiet_libraries, say
from spark_rl.errors import ConfigError
from spark_rl.model.places import find_model, has_adapters
from spark_rl.runs import is_checkpoint, placed, run_of, step_of


def export(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl export``."""
    from spark_rl.export import check_place, check_push, export_run, push, weights_at

    named = Path(find_model(arguments.run))
    run = run_of(named)
    if run is None:
        raise ConfigError(f"{arguments.run!r} is not a run; export takes the directory of one")
    if arguments.checkpoint is None and is_checkpoint(placed(arguments.run)):
        arguments.checkpoint = step_of(named.parent)
    weights = weights_at(run, arguments.checkpoint)
    check_place(run, arguments.out, arguments.merge)
    if arguments.push is not None:  # what can be known before the work is
        check_push(arguments.push)
    quiet_libraries()
    if arguments.merge and has_adapters(weights):
        say("merging the adapters into their base")
    folder = export_run(run, arguments.out, arguments.merge, arguments.checkpoint)
    say(f"model   {folder}\ncard    {folder / 'README.md'}")
    facts = {"model": str(folder), "card": str(folder / "README.md")}
    if arguments.push is None:
        return facts
    say(f"pushing {folder} to {arguments.push}")
    address = push(folder, arguments.push, arguments.private or None)
    say(f"hub     {address}")
    return facts | {"hub": address}
