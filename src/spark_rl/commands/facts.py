"""``spark-rl doctor`` and ``spark-rl config``: facts about this machine and about the settings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_outputs
from spark_rl.commands.terminal import console, quiet_libraries, say, waiting
from spark_rl.config import load_config, settings_table
from spark_rl.errors import UserError
from spark_rl.files import write_output


def doctor(_arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl doctor``."""
    with waiting("loading torch"):
        quiet_libraries()
        from spark_rl.doctor import examine_machine

    with waiting("trying what this machine can do"):
        facts = examine_machine()
    table = Table("what", "found", "so", title="spark-rl doctor", title_justify="left")
    for finding in facts:
        mark = {"ok": "green", "note": "yellow", "missing": "red"}[finding.level]
        table.add_row(finding.what, Text(finding.found, style=mark), finding.meaning)
    console.print(table)
    return {finding.what: finding.found for finding in facts}


def config(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl config``."""
    check_outputs(arguments.markdown, kinds=(".md", ".markdown"))
    if arguments.config is not None or arguments.overrides:
        if arguments.markdown is not None:
            raise UserError("--markdown writes the list of all settings, whatever a configuration says; leave one out")
        import yaml

        tree = load_config(arguments.config, arguments.overrides).model_dump(mode="json")
        say(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        return tree
    if arguments.markdown is not None:
        write_output(arguments.markdown, settings_markdown())
        say(f"wrote   {arguments.markdown}")
    table = Table("setting", "default", "meaning", title="settings", title_justify="left")
    for key, _, default, about in settings_table():
        table.add_row(*(Text(x) for x in (key, json.dumps(default, default=str, ensure_ascii=False), about)))
    console.print(table)
    return {key: default for key, _, default, _ in settings_table()}


def settings_markdown() -> str:
    """docs/configuration.md: every setting, its type, default and docstring."""
    lines = [
        "# Settings", "",
        "Written by `make docs` from the docstrings in `src/spark_rl/config/`.",
        "Give any of them as `KEY=VALUE` on the command line, or nested in a YAML file.", "",
        "| setting | type | default | meaning |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for key, kind, default, about in settings_table():
        cells = (f"`{key}`", f"`{kind}`", f"`{json.dumps(default, default=str, ensure_ascii=False)}`", about)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
