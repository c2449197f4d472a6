"""``spark-rl completion``: what a shell completes, as one static script that starts no Python while somebody types.

The script is shtab's, from the parser that the command line itself uses; file names are completed where an option takes
one, and settings (``rollout.samples=``) where KEY=VALUE may stand.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spark_rl.commands.terminal import console
from spark_rl.config import settings_table
from spark_rl.errors import UserError

_FILES = {"FILE", "PATH", "RUN", "SPEC", "FOLDER"}
"""What options are called that take a file or a folder; ``DIR`` is a folder alone."""
_OPTIONS = {"--config", "--model", "--data", "--heldout"}
"""Options that take a file or something else."""

_BASH = """
_spark_rl_settled() {  # no space behind KEY=
  _shtab_spark_rl
  [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
  return 0
}
complete -o bashdefault -F _spark_rl_settled spark-rl
"""


def completion(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl completion``: print the script.

    Raises:
        UserError: shtab, which writes it, is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs shtab: pip install shtab") from None
    parser = copy.deepcopy(arguments.parser)
    for command in _commands(parser):
        for action in command._actions:
            kind = str(action.metavar)
            if kind == "DIR" or action.dest == "run_dir":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # where shtab looks
            elif not action.choices and (
                action.type is Path or kind in _FILES or not _OPTIONS.isdisjoint(action.option_strings)
            ):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        if command.get_default("overrides") is not None:
            settings = [f"{name}=" for name, *_ in settings_table()]
            command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", choices=settings, help="a setting")
    script = str(shtab.complete(parser, arguments.shell))
    if arguments.shell == "bash":
        script += _BASH
    console.out(script, end="", highlight=False)
    return {"shell": arguments.shell, "script": script}


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()
