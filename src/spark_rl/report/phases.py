"""Where the time of a run went: its phases, summed over all steps, as one bar and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_rl.report.markup import figure, swatch, table, text
from spark_rl.report.metrics import finite
from spark_rl.report.notation import duration, percent

_PHASES = {
    "time/sample": ("sampling", "s0", "answers of the policy, verdicts and reflections"),
    "time/verify": ("verifying", "s4", "the verifier and reward functions"),
    "time/update": ("updating", "s1", "gradients, and the engine taking the new weights"),
    "time/recycle": ("recycling", "s2", "making judge, pair and reflection problems"),
    "time/other": ("other", "s5", "what a step took beyond its phases"),
}
"""Metric -> (name, tone, what it is); further ones under ``time/`` keep their name."""


def phases_figure(records: Sequence[Mapping[str, Any]]) -> str:
    """The phases as a ``<figure>``, of the records of ``metrics.jsonl`` with ``time/other``, or nothing where none was
    timed."""
    sums: dict[str, float] = {}
    for record in records:
        for key, value in record.items():
            if key.startswith("time/") and (seconds := finite(value)) is not None:
                sums[key] = sums.get(key, 0.0) + max(0.0, seconds)
    steps = sum(sums.values())
    if steps <= 0:
        return ""
    parts = [
        (*_PHASES.get(key, (key.removeprefix("time/"), "s3", "")), sums[key])
        for key in sorted(sums, key=lambda key: -sums[key])
    ]
    left, drawn = 0.0, []
    for name, tone, _about, seconds in parts:
        width = 1000 * seconds / steps
        said = f"{name}: {percent(seconds / steps)}"
        drawn.append(f'<rect class="fill {tone}" x="{left:.1f}" y="0" width="{max(0.0, width - 1.5):.1f}" height="26">'
                     f"<title>{text(said, 80)}</title></rect>")  # fmt: skip
        left += width
    described = "; ".join(f"{name}: {percent(seconds / steps)}" for name, _, _, seconds in parts)
    chart = (
        '<svg class="bar-of-time" viewBox="0 0 1000 26" preserveAspectRatio="none" role="img">'
        f"<title>Phases of time</title><desc>{text(described)}</desc>{''.join(drawn)}</svg>"
    )
    legend = [f"{swatch(tone)}{text(name, 80)} <b>{percent(s / steps)}</b>" for name, tone, _, s in parts]
    rows = [[text(name, 80), duration(seconds), percent(seconds / steps, 1), text(about)]
            for name, _, about, seconds in parts]  # fmt: skip
    each = duration(steps / len(records))
    note = (
        f"{duration(steps)} in {len(records):,} steps, {each} each. Loading, evaluations and checkpoints come on top."
    )
    return figure("Phases of time", legend, chart, note, table("Phases of time", ["phase", "time", "share", ""], rows))
