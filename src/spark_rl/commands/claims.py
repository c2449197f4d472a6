"""``spark-rl claims``: the paper's claims, run and decided."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_config, check_folder, seeds_of
from spark_rl.commands.terminal import console, quiet_libraries, say
from spark_rl.commands.training import check_places
from spark_rl.config import load_config
from spark_rl.errors import UserError

DEFAULT = "claims"
"""The recipe that is run where none is named."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_STYLES = {"HOLDS": "bold green", "FAILS": "bold red"}


def claims(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl claims``."""
    from spark_rl.claims.catalogue import CLAIMS, of_own_arm

    known = {claim.name: claim for claim in CLAIMS}
    own = _own_arms(arguments.arm, known)
    names = arguments.claims or ([] if own else list(known))
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise UserError(f"unknown claim {unknown[0]!r}; {hint}")
    chosen = tuple(known[name] for name in dict.fromkeys(names))
    chosen += tuple(of_own_arm(name, settings) for name, settings in own.items())
    if arguments.list:
        table = Table("claim", "says", "where in the paper", "comparisons")
        for claim in chosen:
            count = sum(len(comparison.budgets) for comparison in claim.comparisons)
            table.add_row(claim.name, claim.sentence, claim.source, str(count or "apart"))
        console.print(table)
        return {"claims": [{"name": c.name, "sentence": c.sentence, "source": c.source} for c in chosen]}

    from spark_rl.claims.page import facts, write_pages
    from spark_rl.claims.run import MODELS, QUICK_RECIPE, REPEATS, SEEDS, Campaign, decide, fewer, jobs, run_claims
    from spark_rl.report.arms import ConsoleArms

    quick = arguments.quick
    recipe = arguments.config or (QUICK_RECIPE if quick else DEFAULT)
    config = load_config(recipe, arguments.overrides)
    overrides = [*(fewer(config) if quick else ()), *arguments.overrides]
    models = arguments.models.split(",") if arguments.models else MODELS if recipe == DEFAULT else (config.model.path,)
    seeds = seeds_of(arguments.seeds) if arguments.seeds else range(1 if quick else SEEDS)
    campaign = Campaign(
        chosen, recipe, tuple(overrides), tuple(models), tuple(seeds), arguments.run_dir, own, 1 if quick else REPEATS
    )
    check_folder(arguments.run_dir, "the run directories in")
    count = len(jobs(campaign))
    if missing := [model for model in models if model in MODELS and not Path(model).exists()]:
        raise UserError(f"there is no {missing[0]}; `make bases` makes it, or name other bases with --models")
    for model in models:
        check = load_config(recipe, [*overrides, f"model.path={model}"])
        check_config(check)
        check_places(check)
    say(f"runs    {arguments.run_dir} ({count} runs)")
    with ConsoleArms(console) as watcher:
        outcome, found = run_claims(campaign, watcher, arguments.jobs)
        costs = _costs(campaign, watcher) if known["cost"] in chosen else ()
        watcher.note("deciding ...")
        verdicts = decide(chosen, found, costs)
    paths = write_pages(campaign, verdicts, found)
    _print(verdicts)
    for path in paths:
        say(f"wrote   {path}")
    if outcome.problem is not None:  # what is known is decided and written all the same
        print(f"spark-rl: {outcome.problem}", file=sys.stderr)
        arguments.code = 2
    return facts(campaign, verdicts)


def _costs(campaign: Any, watcher: Any) -> Sequence[Any]:
    """What has been found of the claim about cost, for which alone this process imports torch."""
    quiet_libraries()
    from spark_rl.claims.costs import find_costs, measure_costs

    return find_costs(measure_costs(campaign, watcher))


def _own_arms(given: Sequence[Sequence[str]], taken: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Name -> settings of each arm of the user's own.

    Raises:
        UserError: a name is no folder's name or taken, or a setting is none.
    """
    from spark_rl.ablate import ARMS, FORMS

    arms: dict[str, tuple[str, ...]] = {}
    for name, settings in given:
        if not _NAME.fullmatch(name):
            raise UserError(f"--arm {name!r}: the name is of lower-case letters, digits and hyphens")
        if name in {*taken, *ARMS, *FORMS, *arms, "base"}:
            raise UserError(f"--arm {name!r}: there is a claim or an arm of that name; choose another")
        words = tuple(settings.split())
        if wrong := [word for word in words if "=" not in word]:
            raise UserError(f"--arm {name}: {wrong[0]!r} is no setting; they are KEY=VALUE, with spaces between them")
        if not words:
            raise UserError(f"--arm {name}: there are no settings; they are KEY=VALUE, with spaces between them")
        arms[name] = words
    return arms


def _print(verdicts: Sequence[Any]) -> None:
    from spark_rl.claims.page import HEAD, row

    table = Table("claim", *HEAD)
    for one in verdicts:
        where = f"{one.claim.sentence} ({one.claim.source})"
        table.add_row(Text(one.claim.name, style="bold"), where, *[""] * (len(HEAD) - 2), _decided(one.decision))
        for finding in one.findings:
            *cells, decision = row(finding)
            table.add_row("", *cells, _decided(decision))
        table.add_section()
    console.print(table)


def _decided(decision: str) -> Text:
    return Text(decision, style=_STYLES.get(decision, ""))
