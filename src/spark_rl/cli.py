"""The command line: ``spark-rl train | solve | judge | eval | recycle | data | ablate | claims | runs | report | ...``.

Arguments are parsed before anything heavy is imported, so ``--help`` answers at once. Every command prints for people
and, with ``--json FILE``, writes the same facts for programs. Exit code 2 is the user's mistake, told in one line;
1 is ours, with a traceback, or a machine on which ``doctor --gpu`` found something wrong.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from spark_rl.options import build_parser

FUNCTIONS = {"eval": "evaluate", "runs": "list_runs"}
"""Commands whose function can't have their name."""

POSITIONAL = {"solve": "question", "data": "source"}
"""Command -> what it takes beside options and settings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _run(argv)
    except KeyboardInterrupt:  # before the command has begun
        print("spark-rl: stopped", file=sys.stderr)
        return 130


def _run(argv: Sequence[str] | None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding lacks is replaced, and never ends a command
        sys.stdout.reconfigure(errors="replace")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    from spark_rl import commands
    from spark_rl.commands.checks import check_outputs
    from spark_rl.commands.terminal import console, log_to_terminal
    from spark_rl.errors import Stopped, UserError
    from spark_rl.files import disk_error, write_output

    log_to_terminal()
    facts_alone = arguments.json == Path("-")
    console.stderr = facts_alone  # what is for people makes room for what is for programs
    try:
        check_outputs(None if facts_alone else arguments.json, kinds=(".json",))
        run = getattr(commands, FUNCTIONS.get(arguments.command, arguments.command))
        facts: dict[str, Any] = run(arguments)
        written = json.dumps(facts, indent=2, allow_nan=False)
        if facts_alone:
            print(written)
        elif arguments.json is not None:
            write_output(arguments.json, written + "\n")
    except UserError as error:
        print(f"spark-rl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has gone, and what is still in the buffer has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        saved = "; the run is saved, and continues with --resume" if arguments.command == "train" else ""
        print(f"spark-rl: the reader of the output is gone{saved}", file=sys.stderr)
        return 1
    except OSError as error:
        if (why := disk_error(error)) is None:
            raise
        print(f"spark-rl: cannot read or write {error.filename or 'a file'}: {why}", file=sys.stderr)
        return 2
    except Stopped as stop:
        with suppress(OSError):  # the terminal is gone, which may be why
            print(f"spark-rl: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        kept = arguments.command == "eval" and arguments.out is not None
        more = "; the same command continues with --resume" if kept else ""
        print(f"spark-rl: stopped{more}", file=sys.stderr)
        return 130
    finally:
        console.stderr = False
    return int(arguments.code)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of one command; exits with code 2 and one line on a mistake."""
    parser = build_parser()
    _check_command(parser, argv)
    arguments, rest = parser.parse_known_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"spark-rl {version('spark-rl')}")
        raise SystemExit(0)
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(2)
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unknown argument {rest[0]!r}{_nearest_option(parser, arguments.command, rest[0])}")
    if (name := POSITIONAL.get(arguments.command)) is not None:  # it may stand before, after or between the settings
        words = [word for word in (getattr(arguments, name), *rest) if word is not None]
        asked = [word for word in words if not word.startswith("--") and not _is_setting(word)][:1]
        setattr(arguments, name, asked[0] if asked else None)
        rest = [word for word in words if word not in asked]
    if arguments.command == "claims":  # names and settings may stand in any order
        words = [*arguments.claims, *rest]
        arguments.claims = [word for word in words if "=" not in word and not word.startswith("--")]
        rest = [word for word in words if word not in arguments.claims]
    if arguments.command == "recycle":
        words = [*arguments.files, *rest]
        named = [word for word in words if not word.startswith("--") and not _is_setting(word)]
        arguments.files = list(map(Path, named))
        rest = [word for word in words if word not in named]
        arguments.typed = ["spark-rl", *argv]  # for the card of a data set
    for extra in rest:
        key = extra.removeprefix("--")
        near = _nearest_option(parser, arguments.command, extra)
        if near or "=" not in key:
            why = near or "; settings are given as KEY=VALUE, e.g. rollout.samples=4"
            parser.error(f"unknown argument {extra.partition('=')[0] if near else extra!r}{why}")
        arguments.overrides.append(key)
    return arguments


def _check_command(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """One line for a command that there is not, with the one that is meant."""
    known = _commands(parser)
    word = next(iter(argv), "-")
    if word.startswith("-") or word in known:
        return
    near = difflib.get_close_matches(word, known, n=1)
    parser.error(f"unknown command {word!r}; " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"))


def _nearest_option(parser: argparse.ArgumentParser, command: str, word: str) -> str:
    """What to say of ``--optoin`` or ``--optoin=value``; nothing if no option is near, or it is KEY=VALUE."""
    name, separator, _ = word.partition("=")
    if not name.startswith("--") or (separator and ("." in name or name in {"--seed", "--run_dir"})):
        return ""
    options = [option for action in _commands(parser)[command]._actions for option in action.option_strings]
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Command name -> its parser."""
    found = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def _is_setting(text: str) -> bool:
    """Whether a word is KEY=VALUE with the key of a setting, rather than a question such as ``7*_-4=17``."""
    key, separator, _ = text.partition("=")
    return bool(separator) and (key == "seed" or ("." in key and all(part.isidentifier() for part in key.split("."))))
