"""curve.html: accuracy against generated tokens, one chart and three tables a set of problems.

One self-contained page in the style of :mod:`spark_rl.report.html`, from what :mod:`spark_rl.evals.curves` measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_rl.report.charts import Series, overlay_chart
from spark_rl.report.markup import figure, page, swatch, table, text
from spark_rl.report.notation import DASH, percent, plain, points

STRATEGIES: Mapping[str, tuple[str, str]] = {
    "majority": ("majority voting", "s5"),
    "verdict": ("best-of-n by own P(Yes)", "s1"),
    "weighted": ("voting weighted by own P(Yes)", "s0"),
    "rounds": ("judge and reflect, rounds", "s2"),
    "adaptive": ("adaptive rounds, P(Yes) from", "s3"),
}
"""Strategy -> (what it is called, the CSS class that colours it)."""

_CALIBRATION = {"ece": "calibration error", "brier": "Brier score", "auroc": "AUROC"}


def curve_page(title: str, sets: Mapping[str, Mapping[str, Any]]) -> str:
    """The page. ``sets`` holds what :func:`spark_rl.evals.curves.measured` gives, by the name of the problems."""
    lead = "What tokens at test time buy: everything is drawn once, and each rule is given what it would have spent."
    return page(
        f"{title} · spark-rl eval --curve",
        f'<p class="brand">spark-rl eval --curve</p><h1>{text(title)}</h1><p class="lead">{lead}</p>',
        [_section(name, found) for name, found in sets.items()],
        ".line.thin { stroke-width: 2; } .scroll + .scroll { margin-top: 1.8rem; }\n",
    )


def equal_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of a table in plain text: what each strategy reaches with the tokens of 1, 2, 4, ... answers, and
    its gain over majority voting there."""
    budgets = found["budgets"]
    sizes = [point["at"] for point in found["curves"]["majority"]]
    head = ["", *(f"{size:g} × ({plain(tokens)})" for size, tokens in zip(sizes, budgets, strict=True))]
    rows = []
    for name, cells in found["equal_tokens"].items():
        written = [
            percent(cell["accuracy"], 1)
            if name == "majority"
            else f"{percent(cell['accuracy'], 1)} ({points(cell['gain'])}: {points(cell['gain_low'])} to "
            f"{points(cell['gain_high'])})"
            for cell in cells
        ]
        rows.append([STRATEGIES[name][0], *written])
    return head, rows


def calibration_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Rows (name, value, interval) in plain text; none where no probability is known."""
    return [
        [
            name,
            DASH if share["score"] is None else f"{share['score']:.3f}",
            f"{share['low']:.3f} to {share['high']:.3f}",
        ]
        for key, name in _CALIBRATION.items()
        if (share := found["calibration"].get(key)) is not None
    ]


def _section(name: str, found: Mapping[str, Any]) -> str:
    series = [
        Series(
            STRATEGIES[key][0], tuple((point["tokens"], point["accuracy"]) for point in points_of), STRATEGIES[key][1]
        )
        for key, points_of in found["curves"].items()
    ]
    chart = overlay_chart(
        f"Accuracy against tokens: {name}", series, y_label="right answers", scale="share",
        x_label="generated tokens a problem",
    )  # fmt: skip
    legend = [f"{swatch(one.tone, line=True)}{text(one.label)}" for one in series]
    note = (
        f"{found['problems']:,} problems, {found['samples']} answers each. A single answer takes "
        f"{plain(found['single']['tokens'])} tokens and is right {percent(found['single']['accuracy'], 1)} of the time."
    )
    data = _table("Points", ["", "at", "tokens", "accuracy", "95% interval"], [
        [STRATEGIES[key][0], f"{point['at']:g}", plain(point["tokens"]), percent(point["accuracy"], 1),
         f"{percent(point['low'], 1)} to {percent(point['high'], 1)}"]
        for key, points_of in found["curves"].items() for point in points_of
    ])  # fmt: skip
    head, rows = equal_rows(found)
    return (
        f"<section><h2>{text(name)}</h2>{figure('Accuracy against tokens', legend, chart, text(note), data)}"
        + _table("Accuracy at the tokens of so many answers, and the gain over majority voting in points (95 %)",
                 head, rows)
        + _table("Calibration of P(Yes), all answers judged", ["", "value", "95% interval"], calibration_rows(found))
        + "</section>"
    )  # fmt: skip


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(caption, head, [[text(cell) for cell in row] for row in rows]) if rows else ""
