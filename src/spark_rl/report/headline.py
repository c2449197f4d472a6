"""What training changed, in one sentence, and policy and judge over the steps in one chart.

The sentence says no more than the held-out numbers: how many problems, what a constant verdict would earn the judge,
and where the intervals do not tell two numbers apart. The chart holds the held-out points with their intervals, and as
thin lines what the same roles earn while training, which is something else, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_rl.report import markup
from spark_rl.report.charts import Estimated, moving_average, score_chart, smoothing_window
from spark_rl.report.comparison import Estimate, estimate
from spark_rl.report.metrics import finite
from spark_rl.report.notation import percent, points
from spark_rl.report.settings import setting

CONSTANT = "judge_constant_accuracy"
"""What always giving the commoner of Yes and No would earn: the chance line of the judge, in a few problems' favour."""


@dataclass(frozen=True, slots=True)
class _Role:
    """A line of the chart."""

    key: str
    label: str
    tone: str
    reward: str | None
    """The training metric of the same role."""


_ROLES = (
    _Role("policy_accuracy", "policy: first answers", "s0", "reward/policy"),
    _Role("judge_accuracy", "judge: verdicts on them", "s1", "reward/pointwise"),
    _Role("tts_accuracy", "after judging and reflecting", "s2", None),
)


def headline(evaluations: Sequence[Mapping[str, Any]], steps: int, *, finished: bool) -> str:
    """One sentence or two as HTML; ``evaluations`` by step, the first before training; ``steps`` are done."""
    if not evaluations or estimate(evaluations[0], "policy_accuracy").value is None:
        if finished:
            return "The run was not evaluated on held-out problems, so what training changed there is not known."
        return f"{steps:,} steps are done; no held-out problems have been answered yet."
    before, after = evaluations[0], evaluations[-1]
    count = finite(after.get("n"))
    on = "held-out problems" if count is None else f"{count:,.0f} held-out problems"
    old, new = (estimate(one, "policy_accuracy") for one in (before, after))
    judge_old, judge_new = (estimate(one, "judge_accuracy") for one in (before, after))
    if len(evaluations) == 1:
        judged = "" if judge_old.value is None else f" and judged {_bold(judge_old)} of those answers rightly"
        return f"Before training the model answered {_bold(old)} of {on} right{judged}.{_when(before, steps, finished)}"
    said = f"Training took the policy from {_bold(old)} to {_bold(new)} of {on} right{_doubt(old, new)}"
    if judge_old.value is not None and judge_new.value is not None:
        said += f", and the judge of its own answers from {_bold(judge_old)} to {_bold(judge_new)}"
        said += _doubt(judge_old, judge_new) + _beside_chance(judge_new, after)
    gains = [_gain(one) for one in (before, after)]
    end = "."
    if gains[0] is not None and gains[1] is not None:
        end = (
            f". Judging and reflecting at test time changed its answers by {points(gains[0])} points before, "
            f"and by <b>{points(gains[1])}</b> now."
        )
    return said + end + _when(after, steps, finished)


def _bold(one: Estimate) -> str:
    return f"<b>{percent(one.value, 1)}</b>"


def _doubt(one: Estimate, other: Estimate) -> str:
    """Whether two estimates are told apart."""
    if one.interval is None or other.interval is None:
        return ""
    apart = one.interval[1] < other.interval[0] or other.interval[1] < one.interval[0]
    return "" if apart else " (their intervals overlap)"


def _beside_chance(judge: Estimate, scores: Mapping[str, Any]) -> str:
    constant = finite(scores.get(CONSTANT))
    if constant is None or judge.value is None:
        return ""
    low, high = judge.interval or (judge.value, judge.value)
    than = "more than" if low > constant else "less than" if high < constant else "no surer than"
    return f", {than} a constant verdict, which would be right {percent(constant, 1)} of the time"


def _gain(scores: Mapping[str, Any]) -> float | None:
    scaled, single = finite(scores.get("tts_accuracy")), finite(scores.get("policy_accuracy"))
    return None if scaled is None or single is None else scaled - single


def _when(scores: Mapping[str, Any], steps: int, finished: bool) -> str:
    if finished:
        return ""
    step = finite(scores.get("step")) or 0
    measured = "before the first step" if not step else f"after step {step:,.0f}"
    return f" The run goes on: {steps:,} steps are done, and this was measured {measured}."


def coevolution(
    evaluations: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> str:
    """The chart of policy and judge as a ``<figure>``, or nothing where no held-out problem was answered."""
    lines = []
    for role in _ROLES:
        found = [(float(one["step"]), estimate(one, role.key)) for one in evaluations]
        known = tuple((step, one.value, one.interval) for step, one in found if one.value is not None)
        beside = [(float(r["step"]), value) for r in records if (value := finite(r.get(role.reward or ""))) is not None]
        smooth = moving_average([value for _, value in beside], smoothing_window(len(beside)))
        faint = tuple((step, value) for (step, _), value in zip(beside, smooth, strict=True))
        if known:
            lines.append(Estimated(role.label, role.tone, known, faint))
    if not lines:
        return ""
    chance = tuple((float(e["step"]), value) for e in evaluations if (value := finite(e.get(CONSTANT))) is not None)
    title = "Policy and judge learn together"
    charts = "".join(
        f'<div class="{kind}">{score_chart(title, lines, chance, width, height)}</div>'
        for kind, width, height in (("wide", 900, 330), ("narrow", 360, 300))
    )
    legend = [
        f"{markup.swatch(f'{one.tone} {dash}', line=True)}{markup.text(one.label)} "
        f"<b>{' → '.join(percent(value, 1) for _, value, _ in (*one.points[:1], *one.points[1:][-1:]))}</b>"
        for one, dash in zip(lines, ("", "dashed", "dashed"), strict=False)
    ]
    if chance:
        legend.append(f"{markup.swatch('chance', line=True)}chance line of the judge: a constant verdict")
    return markup.figure(title, legend, charts, _note(lines, evaluations, config), _data(lines, chance, evaluations))


def _note(lines: Sequence[Estimated], evaluations: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    count = finite(evaluations[-1].get("n"))
    many = "" if count is None else f" of the same {count:,.0f} problems"
    said = (
        f"Points: held-out scores{many} with 95% intervals; first answers and verdicts are decoded greedily unless "
        "inference.* says otherwise."
    )
    if any(one.beside for one in lines):
        temperature = finite(setting(config, "rollout.temperature"))
        at = "" if temperature is None else f" at temperature {temperature:g}"
        said += (
            f" Thin lines: mean reward of the training batches, other problems, answers sampled{at}, which is why they "
            "lie apart from the points; the judge trains on a mixture of right and wrong answers of its own, so its "
            "chance level is another there too."
        )
    if len(evaluations) < 3 and setting(config, "train.eval_every") is None:
        said += " For points along the way set train.eval_every."
    return markup.text(said)


def _data(
    lines: Sequence[Estimated], chance: Sequence[tuple[float, float]], evaluations: Sequence[Mapping[str, Any]]
) -> str:
    lookup = [{step: (value, interval) for step, value, interval in one.points} for one in lines]
    constant = dict(chance)
    rows = []
    for step in sorted({float(one["step"]) for one in evaluations}):
        cells = [_cell(values.get(step)) for values in lookup]
        rows.append([f"{step:,.0f}", *cells, percent(constant.get(step), 1)])
    head = ["step", *(one.label for one in lines), "constant verdict"]
    return markup.table("Held-out scores, 95% intervals", head, rows)


def _cell(found: tuple[float, tuple[float, float] | None] | None) -> str:
    if found is None:
        return percent(None)
    value, interval = found
    share = percent(value, 1)
    return share if interval is None else f"{share} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
