"""``spark-rl doctor`` and ``spark-rl config``: facts about this machine and about the settings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_outputs
from spark_rl.commands.terminal import console, loading_torch, say, waiting
from spark_rl.config import load_config, settings_table
from spark_rl.doctor.finding import Finding
from spark_rl.errors import UserError
from spark_rl.files import write_output


def doctor(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl doctor``: with ``--gpu`` exit code 1 if something that ran is wrong."""
    with loading_torch():
        from spark_rl.doctor.machine import examine_machine

    if arguments.gpu:
        return _gpu(arguments)
    with waiting("trying what this machine can do"):
        facts = examine_machine()
    console.print(_findings(facts, "spark-rl doctor"))
    return {finding.what: finding.found for finding in facts}


def _gpu(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """What only a GPU can show, or on a CPU the parts of it that run there."""
    from spark_rl.doctor.gpu import PARTS, tried
    from spark_rl.model.load import resolve_device

    device, facts = resolve_device("auto"), list[Finding]()
    try:
        for name, part in PARTS.items():
            with waiting(f"trying {name} on {device}"):
                facts += tried(name, part, device)
    finally:  # of one that is stopped, what it has found
        console.print(_findings(facts, f"spark-rl doctor --gpu, on {device}"))
    wrong = [finding.what for finding in facts if finding.level == "wrong"]
    absent = sum(finding.level == "note" for finding in facts)
    say(f"{len(facts) - len(wrong) - absent} right, {len(wrong)} wrong, {absent} not here"
        + (f"; wrong: {', '.join(wrong)}" if wrong else ""))  # fmt: skip
    arguments.code = int(bool(wrong))
    return {
        finding.what: {"found": finding.found, "meaning": finding.meaning, "level": finding.level} for finding in facts
    }


def _findings(findings: Sequence[Finding], title: str) -> Table:
    """One row each, its colour the level."""
    table = Table("what", "found", "so", title=title, title_justify="left")
    for finding in findings:
        mark = {"ok": "green", "note": "yellow"}.get(finding.level, "red")
        table.add_row(finding.what, Text(finding.found, style=mark), Text(finding.meaning))
    return table


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
