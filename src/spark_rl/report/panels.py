"""Which metric goes into which chart of the report, and what a reader should look for in it.

A metric that no panel names is still drawn, in a chart of its own in the last section, so a new key of the training
loop never disappears. ``KEY/recycled``, of the update on recycled problems, is a second line beside ``KEY``. Panels
without data are left out; those of constants are a few words each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from spark_rl.report import markup
from spark_rl.report.charts import PERCENT, Scale, Series, line_chart, moving_average, smoothing_window, stacked_chart
from spark_rl.report.metrics import finite
from spark_rl.report.notation import percent, plain

_TABLE_ROWS = 50
_RECYCLED = "/recycled"
_FEWEST = 3
"""Steps from which on a metric that never changes is called constant."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: which metrics, on which axis, and one sentence on how to read it."""

    title: str
    y_label: str
    keys: tuple[tuple[str, str, str], ...]
    """(metric, label, tone)."""
    scale: Scale = "zero"
    kind: Literal["lines", "stack"] = "lines"
    note: str = ""
    prefix: str = ""
    """Metrics with this prefix that ``keys`` does not name join the chart, e.g. a further phase under ``time/``."""
    usual: float | None = None
    """The value that says nothing: the chart is left out while its metrics have no other."""


@dataclass(frozen=True, slots=True)
class Section:
    """Charts that answer one question."""

    anchor: str
    heading: str
    question: str
    panels: tuple[Panel, ...]
    constants: tuple[tuple[str, str], ...] = ()
    """(title, value) of panels whose metrics have had one value in all steps."""


SECTIONS = (
    Section("rewards", "Rewards", "Does it get better at answering, and at judging itself?", (
        Panel("Reward: policy", "mean reward", (("reward/policy", "policy", "s0"),), "unit",
              note="Problems of the data: the share of sampled answers that are right. Held-out answers are greedy."),
        Panel("Reward: pointwise", "mean reward", (("reward/pointwise", "pointwise", "s1"),), "unit",
              note="Is this response correct? Always saying the commoner label earns that label's share."),
        Panel("Reward: pairwise", "mean reward", (("reward/pairwise", "pairwise", "s2"),), "unit",
              note="Which of two responses is correct? Guessing earns 0.5."),
        Panel("Reward: reflection", "mean reward", (("reward/reflection", "reflection", "s3"),), "unit",
              note="Problems the policy has just failed, with the failed response in the prompt."),
    )),
    Section("verifier", "Verifier", "What became of the responses?", (
        Panel("Verifier statuses", "share of responses (%)", (
            ("status/correct", "correct", "good"), ("status/wrong", "wrong", "bad"),
            ("status/no_answer", "no box", "s4"), ("status/unparsable", "unparsable", "s3"),
            ("status/timeout", "timeout", "s5"), ("status/failed", "reward failed", "s1"),
        ), "share", "stack", "Only correct earns the verifier's reward; the others are never mixed up.", "status/"),
        Panel("Responses cut at the limit", "share of responses (%)", (("clipped", "cut", "s1"),), "part",
              note="Cut responses rarely hold an answer. A rising curve wants a higher rollout.max_new_tokens."),
        Panel("Flat groups", "share of groups (%)", (("flat", "flat", "s5"),), "part",
              note="Groups whose rewards are all equal carry no signal: too easy, or too hard."),
    )),
    Section("self", "Without gold answers", "Are the answers right that the model gives itself?", (
        Panel("Pseudo golds that are right", "share (%)", (
            ("self/votes", "votes alone", "s5"), ("self/accuracy", "votes that the judge accepts", "s0"),
        ), "share", note="On groups with a gold answer, where it can be told. The run ends below reward.self.floor."),
        Panel("The judge on the votes", "share (%)", (("self/judge", "right verdicts", "s1"),), "share",
              note="On groups with a gold answer: a Yes to a right majority answer, or no Yes to a wrong one."),
        Panel("Groups trained on without a gold answer", "share (%)", (("self/used", "used", "s2"),), "share",
              note="The others are left out: the judge did not say Yes to what most of their responses answer."),
        Panel("Reward: pseudo golds", "mean reward", (("reward/pseudo_policy", "policy", "s0"),), "unit",
              note="The share of responses that agree with the majority: it rises when the policy agrees with itself."),
    )),
    Section("balance", "Judge balance", "Does the judge judge, or always say the same?", (
        Panel("Saying Yes", "share (%)", (("verdict/yes", "verdicts", "s0"), ("label/yes", "labels", "s1")), "share",
              note="The two curves should stay close. Readable verdicts near 0% or 100% mean a collapsed judge."),
        Panel("Saying A", "share (%)", (("verdict/a", "verdicts", "s0"), ("label/a", "labels", "s1")), "share",
              note="Verdicts far from the labels show a position bias. Few pairs a step make both curves noisy."),
        Panel("Saying A of one response", "share (%)", (
            ("verdict/letter", "verdicts", "s0"), ("label/letter", "labels", "s1"),
        ), "share", note="Pointwise templates whose verdict is a letter: A means correct in some, wrong in others."),
        Panel("Unreadable verdicts", "share of verdicts (%)", (
            ("unreadable/yes", "Yes or No", "s0"), ("unreadable/a", "pairwise", "s1"),
            ("unreadable/letter", "letter", "s2"),
        ), "part", note="Verdicts without a box, or with both labels in it. They count as neither label."),
    )),
    Section("learner", "Learner", "Is the optimisation healthy?", (
        Panel("Entropy", "nats per token", (("entropy", "entropy", "s0"),),
              note="A fall to 0 ends exploration."),
        Panel("KL to the reference", "nats per token", (("kl", "KL", "s1"),),
              note="How far the policy has moved."),
        Panel("Gradient norm", "L2 norm before clipping", (("grad_norm", "gradient norm", "s2"),)),
        Panel("Loss", "loss (no unit)", (("loss", "loss", "s5"),), "free",
              note="The surrogate of Eq. 4. Its gradient counts; its level does not say how good the policy is."),
        Panel("Learning rate", "per update", (("lr", "learning rate", "s5"),)),
        Panel("KL between engine and learner", "nats per token", (("engine_kl", "engine KL", "s1"),),
              note="Mean over the sampled tokens (k3); 0 means exactly on-policy."),
        Panel("Engine gap", "largest |Δ log-prob| (nats)", (("engine_gap", "engine gap", "s3"),),
              note="The one token on which engine and learner differ most: rounding noise, in bfloat16 a lot of it."),
        Panel("Importance ratio", "mean ratio", (("ratio", "ratio", "s5"),), "free",
              note="Current over sampling policy. 1 with a single on-policy update per batch.", usual=1.0),
        Panel("Updates left out", "updates per step", (
            ("nonfinite", "policy", "s0"),
        ), note="Their gradient was not finite, so the weights stayed as they were."),
        Panel("Clipped tokens", "share of tokens (%)", (("ratio_clipped", "clipped", "s5"),), "part",
              note="Tokens whose ratio the surrogate of Eq. 4 cut off.", usual=0.0),
    )),
    Section("responses", "Responses and recycling", "How long are responses, and what is recycled from them?", (
        Panel("Mean response length", "tokens", (("length/mean", "mean", "s0"),)),
        Panel("Longest response", "tokens", (("length/max", "longest", "s5"),)),
        Panel("Recycled problems answered", "problems per step", (
            ("recycled/pointwise", "pointwise", "s1"), ("recycled/pairwise", "pairwise", "s2"),
            ("recycled/reflection", "reflection", "s3"),
        ), note="Judging and reflection problems trained on, all made from earlier responses.", prefix="recycled/"),
        Panel("Pool", "problems waiting", (("pool", "pool", "s5"),),
              note="Recycled problems that no step has taken yet."),
        Panel("Dropped from the pool", "problems per step", (("dropped", "dropped", "s5"),),
              note="The oldest, because recycle.pool_size was reached.", usual=0.0),
    )),
    Section("speed", "Speed", "Where does the time go?", (
        Panel("Time per phase", "seconds per step", (
            ("time/sample", "sample", "s0"), ("time/verify", "verify", "s4"), ("time/update", "update", "s1"),
            ("time/recycle", "recycle", "s2"), ("time/other", "other", "s5"),
        ), "zero", "stack", "Other is what the step took beyond its phases.", "time/"),
        Panel("Throughput", "generated tokens per second", (("tokens_per_second", "tokens/s", "s0"),)),
        Panel("Tokens", "tokens per step", (("tokens", "generated", "s0"), ("prompt_tokens", "in prompts", "s5")),
              note="Each prompt is read once for all its responses, and counted once."),
        Panel("Images", "images per step", (("images", "images", "s2"),),
              note="In the prompts of all tasks; each is looked at once a prompt."),
        Panel("Skipped problems", "problems per step", (
            ("skipped/policy", "policy", "s0"), ("skipped/pointwise", "pointwise", "s1"),
            ("skipped/pairwise", "pairwise", "s2"), ("skipped/reflection", "reflection", "s3"),
            ("skipped", "all", "s5"),
        ), note="Prompts longer than rollout.max_prompt_tokens.", usual=0.0),
    )),
)  # fmt: skip

_NOT_DRAWN = {"step", "seconds"}
_TONES = ("s0", "s1", "s2", "s3", "s4", "s5")


def with_other_time(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record plus ``time/other``: the seconds of the step that no phase accounts for."""
    seconds = finite(record.get("seconds"))
    phases = [finite(value) or 0.0 for key, value in record.items() if key.startswith("time/")]
    if seconds is None or not phases or "time/other" in record:
        return dict(record)
    return {**record, "time/other": max(0.0, seconds - sum(phases))}


def sections(records: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """The sections that have data, each with the panels that have data, unknown metrics last."""
    found = list(dict.fromkeys(key for record in records for key, value in record.items() if _is_number(key, value)))
    named = {key for section in SECTIONS for panel in section.panels for key, _, _ in panel.keys} | _NOT_DRAWN
    prefixes = tuple(panel.prefix for section in SECTIONS for panel in section.panels if panel.prefix)
    for section in SECTIONS:
        filled = tuple(_fill(panel, found) for panel in section.panels)
        if any(panel.keys for panel in filled):
            yield from _told(replace(section, panels=filled), records)
    unknown = [key for key in found if key not in named and not key.startswith(prefixes)]
    second = {f"{key}{_RECYCLED}" for key in found}
    alone = [key for key in unknown if key not in second]
    others = tuple(_fill(Panel(key, "value", ((key, key, "s5"),), "free"), found) for key in alone)
    if others:
        about = "Keys of metrics.jsonl that this report has no chart for."
        yield from _told(Section("other", "Other metrics", about, others), records)


def _told(section: Section, records: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """The section with its charts, its constants as text, and nothing where a metric is what it always is."""
    panels, constants = list[Panel](), list[tuple[str, str]]()
    for panel in section.panels:
        if not panel.keys or _says_nothing(panel, records):
            continue
        values = _constant(panel, records)
        if values is None:
            panels.append(panel)
        elif panel.kind == "lines":
            constants.append((panel.title, values))
        else:
            panels.append(panel)
    if panels or constants:
        yield replace(section, panels=tuple(panels), constants=tuple(constants))


def _constant(panel: Panel, records: Sequence[Mapping[str, Any]]) -> str | None:
    """The values of a panel's metrics, if none of them ever changes."""
    found = []
    for key, label, _ in panel.keys:
        values = [finite(record[key]) for record in records if key in record]
        first = values[0] if values else None
        if len(values) < _FEWEST or first is None or any(value != first for value in values):
            return None
        found.append((label, _number(panel, first)))
    if len({value for _, value in found}) == 1:
        return f"{found[0][1]} {panel.y_label.removesuffix(' (%)')}"
    return ", ".join(f"{label} {value}" for label, value in found)


def figure(panel: Panel, records: Sequence[Mapping[str, Any]]) -> str:
    """A panel as an HTML ``<figure>``: title, legend, chart, note and the numbers as a table."""
    series = [Series(label, _points(records, key), tone) for key, label, tone in panel.keys]
    draw = line_chart if panel.kind == "lines" else stacked_chart
    chart = draw(panel.title, series, y_label=panel.y_label, scale=panel.scale)
    notes = [markup.text(panel.note)] if panel.note else []
    if panel.kind == "lines" and any(value is None for one in series for _, value in one.points):
        notes.append('<span class="bad">×</span> marks a step without a finite value.')
    legend = [_legend_entry(panel, one, named=len(series) > 1) for one in series]
    return markup.figure(panel.title, legend, chart, " ".join(notes), _table(panel, series))


def _is_number(key: str, value: object) -> bool:
    # A null is a number that was not finite; text is not a metric.
    return key != "step" and (value is None or finite(value) is not None)


def _fill(panel: Panel, found: Sequence[str]) -> Panel:
    keys = [entry for entry in panel.keys if entry[0] in found]
    again = [(f"{key}{_RECYCLED}", label) for key, label, _ in keys if f"{key}{_RECYCLED}" in found]
    if again and panel.kind == "lines":
        one = len(keys) == 1
        keys = [(key, "on problems of the data" if one else label, tone) for key, label, tone in keys]
        keys += [(key, "on recycled problems" if one else f"{label}, recycled", "s3") for key, label in again]
    if panel.prefix:
        named = {key for key, _, _ in panel.keys}
        extra = [key for key in found if key.startswith(panel.prefix) and key not in named | {k for k, *_ in keys}]
        keys += [(key, key.removeprefix(panel.prefix), _TONES[i % len(_TONES)]) for i, key in enumerate(extra)]
    return replace(panel, keys=tuple(keys))


def _says_nothing(panel: Panel, records: Sequence[Mapping[str, Any]]) -> bool:
    if panel.usual is None:
        return False
    values = [finite(record[key]) for record in records for key, _, _ in panel.keys if key in record]
    return all(value is not None and math.isclose(value, panel.usual, abs_tol=1e-6) for value in values)


def _points(records: Sequence[Mapping[str, Any]], key: str) -> tuple[tuple[float, float | None], ...]:
    return tuple((float(record["step"]), finite(record[key])) for record in records if key in record)


def _number(panel: Panel, value: float | None, digits: int = 1) -> str:
    return percent(value, digits) if panel.scale in PERCENT else plain(value)


def _legend_entry(panel: Panel, series: Series, *, named: bool) -> str:
    """What a line is, with its smoothed first and last value: the change at a glance."""
    values = [value for _, value in series.known]
    smooth = moving_average(values, smoothing_window(len(values)))
    first_and_last = smooth[:1] + smooth[1:][-1:]
    digits = 1 if any(0 < value < 0.02 for value in first_and_last) else 0
    ends = [_number(panel, value, digits) for value in first_and_last]
    lines = panel.kind == "lines"
    tone = f"{series.tone} dashed" if named and lines else series.tone
    name = f"{markup.text(series.label)} " if named else ""
    return f"{markup.swatch(tone, line=lines)}{name}<b>{' → '.join(ends) or 'no finite value'}</b>"


def _table(panel: Panel, series: Sequence[Series]) -> str:
    steps = sorted({step for one in series for step, _ in one.points})
    lookup = [dict(one.points) for one in series]
    stride = max(1, -(-len(steps) // _TABLE_ROWS))
    shown = steps if stride == 1 else [*steps[:-1:stride], steps[-1]]
    every = "" if stride == 1 else f"; one step in {stride}, all are in metrics.jsonl"
    rows = [[f"{step:,.0f}", *(_number(panel, values.get(step)) for values in lookup)] for step in shown]
    return markup.table(f"{panel.title}: {panel.y_label}{every}", ["step", *(one.label for one in series)], rows)
