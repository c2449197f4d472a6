"""``spark-rl eval --curve``: accuracy against generated tokens for every way of spending them at test time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_outputs
from spark_rl.commands.models import open_reasoner
from spark_rl.commands.terminal import console, say
from spark_rl.config import Config
from spark_rl.errors import UserError
from spark_rl.files import write_output

if TYPE_CHECKING:
    from spark_rl.evals.ask.exam import Exam

ROUNDS = 4
"""Judge-and-reflect rounds at most, unless ``--tts`` says otherwise."""
NAMES = ("curve.json", "curve.html")
"""What is written into the folder of ``--out``."""


def check_curve(arguments: argparse.Namespace) -> None:
    """Options that go with ``--curve``. Raises :class:`UserError`."""
    if arguments.curve < 2:
        raise UserError("--curve draws several answers a problem; give 2 or more")
    if arguments.samples > 1 or arguments.judge or arguments.resume or arguments.bench or arguments.grader:
        raise UserError(
            "--curve draws and judges answers by itself, of sets of problems; leave --samples, --judge, --resume, "
            "--bench and --grader out"
        )
    if arguments.temperature == 0:
        raise UserError("--curve needs answers that differ; give a --temperature above 0")
    if arguments.out is not None:
        if arguments.out.suffix or arguments.out.is_file():
            raise UserError(
                f"cannot write {arguments.out}: --curve writes {' and '.join(NAMES)} into a folder; name one"
            )
        check_outputs(*(arguments.out / name for name in NAMES))


def curve(
    arguments: argparse.Namespace, config: Config, exams: Sequence[Exam], temperature: float
) -> Mapping[str, Any]:
    """Draw, measure, show and write. ``config`` is that of the command."""
    from spark_rl.evals.curves import attempts, measured
    from spark_rl.report.curves import calibration_rows, curve_page, equal_rows
    from spark_rl.rewards import Grader
    from spark_rl.verify import Verifier

    rounds = arguments.tts or ROUNDS
    settings = config.model_dump(mode="json")
    settings["inference"] |= {"temperature": temperature, "rounds": rounds}
    reasoner = open_reasoner(arguments, Config.model_validate(settings))
    found: dict[str, Any] = {}
    with Verifier(config.verify) as verifier:
        for exam in exams:
            problems, drawn = [item.problem for item in exam.items], []
            for batch in attempts(reasoner, Grader(verifier, config.reward), problems, arguments.curve, rounds):
                drawn += batch
                say(f"{exam.name} | {len(drawn)}/{len(problems)} problems")
            unread = config.inference.judge_unparsed == "accept"
            found[exam.name] = measured(drawn, rounds, config.seed, unread_accepts=unread) | {
                "temperature": temperature
            }
    for name, one in found.items():
        head, rows = equal_rows(one)
        _show(f"{name}: accuracy at the tokens of so many answers (gain over majority voting)", head, rows)
        _show(f"{name}: calibration of P(Yes)", ["", "value", "95% interval"], calibration_rows(one))
    if arguments.out is not None:
        _write(arguments.out, found, curve_page(str(arguments.model or config.model.path), found))
    return found


def _show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    shown = Table(*head, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)


def _write(folder: Path, found: Mapping[str, Any], page: str) -> None:
    for name, content in zip(NAMES, (json.dumps(found, indent=2, allow_nan=False) + "\n", page), strict=True):
        write_output(folder / name, content)
        say(f"wrote   {folder / name}")
