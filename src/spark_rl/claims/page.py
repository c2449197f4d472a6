"""What the claims came to, written down: ``report.html``, self-contained, ``claims.md`` and the facts of ``--json``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spark_rl.claims.catalogue import BASE, KEPT, NEGLIGIBLE, SPARK, Comparison
from spark_rl.claims.measures import MEASURES, columns
from spark_rl.claims.run import Campaign, Evaluations, Finding, Run, Verdict
from spark_rl.files import resolved, write_atomically
from spark_rl.report.charts import Effect, Series, effects_chart, overlay_chart
from spark_rl.report.markup import figure, page, swatch, table, text
from spark_rl.report.notation import DASH, compact, points

HEAD = ("comparison", "at equal", "effect", "95% interval", "bases", "runs", "problems", "decision")
COSTS = {"seconds": "seconds saved", "flops": "operations saved"}
"""Of all stages, in percent of RM-based RL's: what the claim about cost compares."""
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""First-answer accuracies of which the page says how many tokens they took."""

_TONES = {"HOLDS": "s2", "FAILS": "s1", "UNDECIDED": "s5"}
_CURVES = {"spark": "s0", "policy-only at equal tokens": "s5"}
_CSS = (
    ".HOLDS { color: #1f9d63; font-weight: 600; } .FAILS { color: #d9483b; font-weight: 600; }"
    ".scroll + .scroll { margin-top: 1.8rem; } .line.thin { stroke-width: 1.2; }\n"
)
_RULE = (
    "An effect is a difference in points: the mean over the seeds of each base, and then over the bases. Its interval "
    "is a paired bootstrap over bases, seeds and problems. A comparison HOLDS if its interval is above 0, FAILS if it "
    f"is below {100 * NEGLIGIBLE:g} point (no gain worth the name), and is UNDECIDED otherwise. Where a claim says "
    f"that something is kept, both bounds are a loss of {100 * KEPT:g} point. A claim holds if all its comparisons "
    "hold, and fails if one of them fails."
)


def named(comparison: Comparison) -> str:
    """A comparison in words: ``judge, balanced: spark − policy-only``."""
    if comparison.measure in COSTS:
        return f"{COSTS[comparison.measure]}, % of RM-based RL's"
    what = MEASURES[comparison.measure][0]
    who = comparison.arm if comparison.than is None else f"{comparison.arm} − {comparison.than}"
    where = "" if comparison.exam == "heldout" else f" ({comparison.exam})"
    return f"{what}: {who}{where}{', kept' if comparison.kept else ''}"


def row(finding: Finding) -> tuple[str, ...]:
    """The cells of :data:`HEAD`."""
    estimate = finding.estimate
    at = finding.budget if len(finding.comparison.budgets) > 1 else DASH
    interval = DASH if estimate is None else f"{points(estimate.low)} to {points(estimate.high)}"
    effect = DASH if estimate is None else points(estimate.effect)
    return (named(finding.comparison), at, effect, interval, str(finding.bases), str(finding.runs),
            str(finding.problems or DASH), finding.decision)  # fmt: skip


def facts(campaign: Campaign, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What ``--json`` writes; effects are shares, not points."""
    return {
        "models": campaign.bases, "seeds": list(campaign.seeds), "config": campaign.recipe,
        "overrides": list(campaign.overrides), "folder": str(campaign.folder),
        "arms": {name: list(settings) for name, settings in campaign.own.items()},
        "claims": [
            {
                "name": one.claim.name, "source": one.claim.source, "sentence": one.claim.sentence,
                "decision": one.decision, "comparisons": [_fact(finding) for finding in one.findings],
            }
            for one in verdicts
        ],
    }  # fmt: skip


def _fact(finding: Finding) -> dict[str, Any]:
    comparison, estimate = finding.comparison, finding.estimate
    numbers = {} if estimate is None else {"effect": estimate.effect, "low": estimate.low, "high": estimate.high}
    return {
        "measure": comparison.measure, "arm": comparison.arm, "than": comparison.than, "exam": comparison.exam,
        "at_equal": finding.budget, **numbers, "bounds": list(comparison.bounds), "decision": finding.decision,
        "bases": finding.bases, "runs": finding.runs, "problems": finding.problems,
    }  # fmt: skip


def write_pages(campaign: Campaign, verdicts: Sequence[Verdict], found: Mapping[Run, Evaluations]) -> list[Path]:
    """Write ``claims.md`` and ``report.html`` into the folder of the campaign."""
    campaign.folder.mkdir(parents=True, exist_ok=True)
    written = {"claims.md": markdown(campaign, verdicts), "report.html": _html(campaign, verdicts, found)}
    for name, content in written.items():
        write_atomically(campaign.folder / name, content.encode("utf-8", errors="replace"))
    return [campaign.folder / name for name in written]


def markdown(campaign: Campaign, verdicts: Sequence[Verdict]) -> str:
    """All comparisons as one Markdown table, a claim after the other."""
    lines = [f"`{_command(campaign)}`", "", f"| claim | {' | '.join(HEAD)} |", f"| {' | '.join(['---'] * 9)} |"]
    for one in verdicts:
        head = f"**{one.claim.name}** ({one.claim.source})"
        lines.append(f"| {head} | {one.claim.sentence} | | | | | | | **{one.decision}** |")
        lines += [f"| | {' | '.join(row(finding))} |" for finding in one.findings]
    return "\n".join([*lines, "", _RULE, ""])


def _command(campaign: Campaign) -> str:
    names = (claim.name for claim in campaign.claims if claim.name not in campaign.own)
    words = ["spark-rl claims", *names, "--config", campaign.recipe]
    words += ["--models", ",".join(campaign.models), "--seeds", ",".join(map(str, campaign.seeds))]
    words += [f"--arm {name} '{' '.join(settings)}'" for name, settings in campaign.own.items()]
    return " ".join([*words, *campaign.overrides])


def _html(campaign: Campaign, verdicts: Sequence[Verdict], found: Mapping[Run, Evaluations]) -> str:
    tiles = {
        "bases": ", ".join(campaign.bases), "seeds": ", ".join(map(str, campaign.seeds)),
        "recipe": campaign.recipe, "runs": f"{len(found):,}",
        "tokens generated": compact(sum(max(_tokens(run)) for run in found.values())),
    }  # fmt: skip
    shown = "".join(f"<div><dt>{name}</dt><dd>{text(value, 200)}</dd></div>" for name, value in tiles.items())
    header = (
        f'<header><p class="brand">spark-rl · claims</p><h1>{text(resolved(campaign.folder).name)}</h1>'
        f'<dl class="facts">{shown}</dl><nav aria-label="Sections"><a href="#claims">Claims</a>'
        '<a href="#arms">Arms</a><a href="#curves">Curves</a></nav></header>'
    )
    return page("spark-rl claims", header, [_claims(campaign, verdicts), _arms(found), _curves(found)], _CSS)


def _claims(campaign: Campaign, verdicts: Sequence[Verdict]) -> str:
    rows = [
        [text(one.claim.name), text(one.claim.sentence), text(one.claim.source), _decided(one.decision)]
        for one in verdicts
    ]  # fmt: skip
    decisions = table("The paper's claims", ("claim", "says", "where", "decision"), rows)
    figures = "".join(_effects(one) for one in verdicts if one.findings)
    return (
        f'<section id="claims"><h2>Claims</h2><p class="lead">{_RULE}</p>{decisions}'
        f'<div class="columns two">{figures}</div><p class="note"><code>{text(_command(campaign))}</code></p></section>'
    )


def _effects(verdict: Verdict) -> str:
    """The comparisons of one claim: a plot, and its table behind a line to click."""
    cells = [[*map(text, row(finding)[:-1]), _decided(finding.decision)] for finding in verdict.findings]
    title = f"{verdict.claim.name}: {verdict.claim.sentence}"
    effects = [_effect(finding) for finding in verdict.findings if finding.estimate is not None]
    chart = effects_chart(title, effects, "points, with 95% interval") if effects else ""
    legend = [f"{swatch(tone)}{text(decision)}" for decision, tone in _TONES.items()]
    return figure(title, legend, chart, "", table(title, HEAD, cells))


def _effect(finding: Finding) -> Effect:
    """A comparison as a row of the plot, in points."""
    at = f", equal {finding.budget}" if len(finding.comparison.budgets) > 1 else ""
    estimate = finding.estimate
    assert estimate is not None, "what was not measured is not drawn"
    label = f"{named(finding.comparison)}{at}"
    effect, low, high = (100 * value for value in (estimate.effect, estimate.low, estimate.high))
    return Effect(label, effect, low, high, _TONES.get(finding.decision, _TONES["UNDECIDED"]))


def _decided(decision: str) -> str:
    return f'<span class="{decision if decision in {"HOLDS", "FAILS"} else "other"}">{text(decision)}</span>'


def _arms(found: Mapping[Run, Evaluations]) -> str:
    """Every measure of every arm: the mean over bases and seeds."""
    tables = []
    for exam in dict.fromkeys(exam for run in found.values() for exam in run):
        taken = {at: run[exam] for at, run in found.items() if exam in run}
        arms = {BASE: [_measured(one, last=False) for at, one in taken.items() if at.arm == SPARK]}
        for at, one in taken.items():
            arms.setdefault(at.named, []).append(_measured(one, last=True))
        rows = [
            [name, *(_mean([one[key] for one in ones]) for ones in arms.values())]
            for key, (name, _) in MEASURES.items()
        ]
        spent = [[max(_tokens(run)) for at, run in found.items() if at.named == arm] for arm in list(arms)[1:]]
        rows.append(["tokens generated", "", *(f"{statistics.fmean(ones):,.0f}" for ones in spent)])
        tables.append(table(f"{exam} problems, percent, mean over bases and seeds", ("", *arms), rows))
    return f'<section id="arms"><h2>Arms</h2>{"".join(tables)}</section>'


def _measured(evaluations: Mapping[int, Any], *, last: bool) -> dict[str, float]:
    sums = columns(evaluations[max(evaluations) if last else min(evaluations)][1]).sum(axis=1)[None]
    return {name: float(function(sums)[0]) for name, (_, function) in MEASURES.items()}


def _mean(values: Sequence[float]) -> str:
    known = [100 * value for value in values if not np.isnan(value)]
    return f"{statistics.fmean(known):.1f}" if known else DASH


def _tokens(run: Evaluations) -> list[int]:
    return [tokens for exam in run.values() for tokens, _ in exam.values()]


def curve(run: Evaluations) -> tuple[tuple[float, float], ...]:
    """(tokens generated, first-answer accuracy) of every evaluation of the held-out problems."""
    evaluations = sorted(run.get("heldout", {}).items())
    return tuple((float(tokens), statistics.fmean(taken.first)) for _, (tokens, taken) in evaluations)


def tokens_until(points_: Sequence[tuple[float, float]], level: float) -> float | None:
    """Tokens after which a curve first reaches a level, on straight lines between evaluations."""
    for (before, low), (after, high) in pairwise(points_):
        if low >= level:
            return before
        if high >= level:
            return before + (after - before) * (level - low) / (high - low)
    return None


def _curves(found: Mapping[Run, Evaluations]) -> str:
    lines = {arm: [(at, curve(run)) for at, run in found.items() if at.named == arm] for arm in _CURVES}
    series = [Series(at.label, one, _CURVES[arm]) for arm, ones in lines.items() for at, one in ones if len(one) > 1]
    if not series:
        return '<section id="curves"><h2>Curves</h2><p class="note">No run was evaluated.</p></section>'
    chart = overlay_chart("First answers", series, y_label="accuracy", x_label="tokens generated", scale="share")
    legend = [f"{swatch(tone, line=True)}{text(arm)}" for arm, tone in _CURVES.items() if lines[arm]]
    rows = list(_level_rows({arm: [one for _, one in ones] for arm, ones in lines.items() if ones}))
    data = table("Tokens until a first-answer accuracy, median of the runs that reach it (and how many do)",
                 ("accuracy", *(arm for arm in lines if lines[arm])), rows)  # fmt: skip
    return (
        '<section id="curves"><h2>Curves</h2><p class="lead">One line a run: accuracy of first answers against tokens '
        f"generated in training.</p>{figure('First answers', legend, chart, '', data)}{data}</section>"
    )


def _level_rows(curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> Iterator[list[str]]:
    for level in LEVELS:
        cells = []
        for ones in curves.values():
            reached = [tokens for one in ones if (tokens := tokens_until(one, level)) is not None]
            cells.append(f"{statistics.median(reached):,.0f} ({len(reached)} of {len(ones)})" if reached else DASH)
        if any(cell != DASH for cell in cells):
            yield [f"{100 * level:g}%", *cells]
