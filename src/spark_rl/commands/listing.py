"""``spark-rl eval --list``: which benchmarks there are and whether their files are, or the items of some of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_rows
from spark_rl.commands.exams import DATA_ROOT, exams_of
from spark_rl.commands.lines import LineFile
from spark_rl.commands.models import inference_config
from spark_rl.commands.terminal import console, say, short
from spark_rl.errors import UserError

SHOWN = 20
"""Items of a set that are printed where they are not written to a file."""


def list_benchmarks(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """All benchmarks; with ``--bench`` or ``--data`` the items of those, in the form that ``--responses`` reads."""
    if arguments.bench or arguments.data:
        return _items(arguments)
    if arguments.out is not None:
        raise UserError("--list writes items to --out, those of --bench or --data; the table itself goes to --json")
    return _table(arguments)


def _table(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from spark_rl.evals.ask.exam import data_file
    from spark_rl.evals.benchmarks.catalogue import all_benchmarks

    place = arguments.data_root or os.environ.get(DATA_ROOT)
    root = None if place is None else Path(place)
    if root is not None and not root.is_dir():
        raise UserError(f"--data-root {root} is no folder")
    where = "files below the data root" if root is None else f"file below {root}"
    table = Table("name", "group", "items", "protocols", where, title="benchmarks", title_justify="left")
    facts = {}
    for one in all_benchmarks():
        found = None if root is None else data_file(one, root)
        facts[one.name] = {
            "title": one.title, "group": one.group, "items": one.published, "protocols": list(one.protocols),
            "files": list(one.files), "found": None if found is None else str(found), "source": one.source,
        }  # fmt: skip
        if root is None:
            files = Text(" or ".join(one.files))
        elif found is None:
            files = Text(f"missing: {' or '.join(one.files)}", style="yellow")
        else:
            files = Text(str(found.relative_to(root)), style="green")
        items = "" if one.published is None else f"{one.published:,}"
        table.add_row(one.name, one.group, items, ", ".join(one.protocols), files)
    console.print(table)
    say("--bench takes these names and groups (math-llm, math-vlm, reward, general, all); dashes and case don't matter")
    return facts


def _items(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """One line an item: id, prompt, images, and a null response to be filled in."""
    check_rows(arguments.out)
    from spark_rl.chat import policy_prompt

    config = inference_config(arguments, needs_model=False)
    exams = exams_of(arguments, config, show=False)
    if arguments.out is not None and len(exams) != 1:
        raise UserError(f"--responses is scored for one benchmark, not {len(exams)}; give one with --list --out")
    rows: dict[str, list[dict[str, Any]]] = {
        exam.name: [
            {"id": item.problem.id, "prompt": policy_prompt(item.problem, config.chat), "system": item.system,
             "images": [image if isinstance(image, str) else "embedded" for image in item.problem.images],
             "response": None}
            for item in exam.items
        ]
        for exam in exams
    }  # fmt: skip
    for name, own in rows.items():
        if arguments.out is not None:
            with LineFile(arguments.out, len(own), "writing") as file:
                file.write(own)
            continue
        table = Table("id", "prompt", title=f"{name}: {len(own):,} items", title_justify="left")
        for row in own[:SHOWN]:
            table.add_row(Text(row["id"]), Text(short(str(row["prompt"]).partition("\n")[0], 80)))
        console.print(table)
        if len(own) > SHOWN:
            say(f"the first {SHOWN} of {len(own):,}; --out FILE.jsonl writes all, ready for --responses")
    return rows
