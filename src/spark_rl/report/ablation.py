"""report.html of an ablation: what every arm reached (Tables 1, 2 and 5 of the paper), and how it got there.

One self-contained page in the style of :mod:`spark_rl.report.html`, and its curves alone as a picture for documents.
A thin line is one run and a thick one the mean of an arm's: how far the seeds of an arm lie apart is what tells whether
two arms differ. A winner is named only where every seed of it is ahead of every seed of the others.
"""

from __future__ import annotations

import logging
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_rl.errors import UserError
from spark_rl.files import resolved, write_atomically
from spark_rl.report.charts import HEIGHT, WIDTH, Series, overlay_chart
from spark_rl.report.markup import figure, page, swatch, table, text
from spark_rl.report.metrics import Damage, finite, read_rows
from spark_rl.report.notation import compact, duration, plain
from spark_rl.report.settings import setting

logger = logging.getLogger(__name__)

SMOOTHED_STEPS = 5
TONES = {"policy-only": "s5", "reward-only": "s2", "policy-and-reward": "s1", "spark": "s0"}
"""Arm -> the CSS class that colours it, the same in every ablation, in the order of the paper's tables."""

_PANELS = {
    "reward/policy": "Problems of the data: the share answered correctly while training.",
    "reward/pointwise": "Is this response correct? Always saying the commoner label earns that label's share.",
    "reward/pairwise": "Which of two responses is correct? Guessing earns 0.5.",
    "reward/reflection": "Problems the policy has just failed, with the failed response in the prompt.",
}
_OTHER_TONES = ("s3", "s4")
_TABLE_ROWS = 50
_SMOOTHING = f"Each value is the mean of the last {SMOOTHED_STEPS} steps that have one."
_PAGE_CSS = (
    ".line.thin { stroke-width: 1.1; opacity: 0.5; } .line.mean { stroke-width: 2.6; } "
    ".scroll + .scroll, .winners { margin-top: 1.4rem; }\n"
)
# No colour here follows the reader's theme, which a picture cannot see: each stands out from white and from near-black.
_PICTURE_CSS = """
text { fill: #737d87; font: 11px system-ui, sans-serif; } .name { font-size: 13px; font-weight: 600; }
line.grid { stroke: #8b949e; opacity: 0.3; } line.axis { stroke: #737d87; }
.line { fill: none; stroke: currentColor; stroke-width: 1.3; stroke-linejoin: round; } .sample { stroke-width: 3; }
.thin { opacity: 0.55; } .mean { stroke-width: 2.6; } .chance { color: #737d87; stroke-dasharray: 2 4; }
.dot { fill: currentColor; } .cross { fill: none; stroke: #d9483b; stroke-width: 1.6; }
.s0 { color: #2f81f7; } .s1 { color: #d1691f; } .s2 { color: #1f9d63; }
.s3 { color: #a064e0; } .s4 { color: #b08800; } .s5 { color: #7d8896; }
"""

_SCORES = (
    ("after", "policy_accuracy", "First answers"),
    ("after", "judge_accuracy", "Judging own answers"),
    ("after", "tts_accuracy", "After judging and reflecting"),
    ("transfer", "tts_accuracy", "Transfer problems, after judging and reflecting"),
)
"""Where a score lies in ``summary.json``, its key and its name."""

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ArmTable:
    """What the arms reached on one set of problems, written out: plain text, for the terminal and for the page.

    ``ArmTable("heldout", "heldout problems, ...", ("", "base", "spark"), (("policy", "18.8", "87.4 ± 1.1"),))``
    """

    section: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One metric of all runs."""

    key: str
    arms: Mapping[str, Sequence[Series]]
    """Arm -> one line a seed, smoothed; only arms and seeds that recorded the metric."""
    chance: float | None = None
    """What the role earns who knows nothing, where that is known."""

    @property
    def title(self) -> str:
        return f"Reward: {self.key.removeprefix('reward/')}"

    @property
    def series(self) -> list[Series]:
        return [one for lines in self.arms.values() for one in lines]

    @property
    def means(self) -> list[Series]:
        """The mean over the seeds of each arm that has several, at the steps that all of them have."""
        found = []
        for arm, lines in self.arms.items():
            known = [dict(one.known) for one in lines if one.known]
            if len(known) > 1:
                steps = sorted(set.intersection(*(set(one) for one in known)))
                points = tuple((step, statistics.fmean(one[step] for one in known)) for step in steps)
                found.append(Series(f"{arm}, mean", points, lines[0].tone))
        return found

    def chart(self) -> str:
        return overlay_chart(
            self.title, self.series, y_label="mean reward", scale="unit", means=self.means, chance=self.chance
        )  # fmt: skip


def write_ablation_report(
    folder: str | Path, results: Mapping[str, Sequence[Result]], tables: Sequence[ArmTable]
) -> Path:
    """Write ``report.html`` into the folder of an ablation and return its path.

    ``results`` holds an arm's ``summary.json`` contents, one a seed; the curves are read from the ``metrics.jsonl`` of
    the run directories that they name.

    Damaged rows are left out, which the page says, and once a process a warning.
    """
    runs = {
        arm: {one["config"]["seed"]: Path(one["config"]["run_dir"]) for one in ones} for arm, ones in results.items()
    }
    path = Path(folder) / "report.html"
    panels, damaged = _panels(runs)
    page = _page(resolved(path).parent.name, results, tables, panels, damaged)
    write_atomically(path, page.encode("utf-8", errors="replace"))
    return path


def ablation_curves_svg(folder: str | Path) -> str:
    """The learning curves of every run in the folder of an ablation as an SVG file, readable on white and on dark.

    Runs are the directories named ``ARM-seedN`` with a ``metrics.jsonl``, whether finished or not.

    Raises:
        UserError: if there is no such run.
    """
    panels, _ = _panels(_runs_in(Path(folder)))
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.arms))
    gap, top, title = 20, 40, 20
    width = 2 * WIDTH + gap
    height = top + math.ceil(len(panels) / 2) * (title + HEIGHT)
    parts = []
    for index, arm in enumerate(arms):
        x = 12 + index * (width - 12) / len(arms)
        parts.append(f'<path class="line sample {_tone(arm, arms)}" d="M{x:.1f} 14h22"/>')
        parts.append(f'<text class="name" x="{x + 30:.1f}" y="19">{text(arm, 80)}</text>')
    for index, panel in enumerate(panels):
        x, y = index % 2 * (WIDTH + gap), top + index // 2 * (title + HEIGHT)
        parts.append(f'<text class="name" x="{x + 4}" y="{y + 12}">{text(panel.title)}</text>')
        place = f'<svg x="{x}" y="{y + title}" width="{WIDTH}" height="{HEIGHT}"'
        parts.append(place + panel.chart().removeprefix("<svg"))
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>Learning curves of every arm and seed</title><desc>{_SMOOTHING}</desc>'
        f"<style>{_PICTURE_CSS}</style>{''.join(parts)}</svg>\n"
    )
    # The name of a directory need not be valid text, and the picture has to be.
    return picture.encode("utf-8", errors="replace").decode("utf-8")


def trailing_mean(values: Sequence[float], window: int) -> list[float]:
    """Means over each value and the ``window - 1`` before it, as far as there are any; as long as ``values``."""
    parts = (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    return [math.fsum(part) / len(part) for part in parts]


def _runs_in(folder: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for metrics in folder.glob("*/metrics.jsonl"):
        if name := re.fullmatch(r"(.+)-seed(\d+)", metrics.parent.name, re.ASCII | re.DOTALL):
            found.setdefault(name[1], {})[int(name[2])] = metrics.parent
    if not found:
        raise UserError(f"{folder} holds no runs of an ablation (ARM-seedN/metrics.jsonl); give a directory of ablate")
    order = list(TONES)
    arms = sorted(found, key=lambda arm: (order.index(arm) if arm in TONES else len(order), arm))
    return {arm: dict(sorted(found[arm].items())) for arm in arms}


def _panels(runs: Mapping[str, Mapping[int, Path]]) -> tuple[list[_Panel], list[Damage]]:
    """The metrics that any run recorded, and which rows are damaged."""
    found = {(arm, seed): _records(run) for arm, seeds in runs.items() for seed, run in seeds.items()}
    panels = []
    for key in _PANELS:
        arms: dict[str, list[Series]] = {}
        for (arm, seed), (rows, _) in found.items():
            if points := _smoothed([(float(row["step"]), finite(row[key])) for row in rows if key in row]):
                arms.setdefault(arm, []).append(Series(f"{arm}, seed {seed}", points, _tone(arm, list(runs))))
        if arms:
            panels.append(_Panel(key, arms, _chance(key, [row for rows, _ in found.values() for row in rows])))
    damaged = [damage for _, damage in found.values() if damage is not None]
    for damage in damaged:
        damage.tell(logger.warning)
    return panels, damaged


def _chance(key: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """What guessing earns a judge of pairs, and the commoner label, always given, one of single responses."""
    if key == "reward/pairwise":
        return 0.5
    labels = [share for row in rows if (share := finite(row.get("label/yes"))) is not None]
    if key != "reward/pointwise" or not labels or any("label/letter" in row for row in rows):
        return None
    return statistics.fmean(max(share, 1 - share) for share in labels)


def _records(run: Path) -> tuple[list[dict[str, Any]], Damage | None]:
    path = run / "metrics.jsonl"
    rows, damage = read_rows(path) if path.is_file() else ([], None)
    by_step = {row["step"]: row for row in rows}
    return [by_step[step] for step in sorted(by_step)], damage


def _smoothed(points: Sequence[tuple[float, float | None]]) -> tuple[tuple[float, float | None], ...]:
    """The values as trailing means; one that is not finite stays one, and no mean counts it."""
    means = iter(trailing_mean([value for _, value in points if value is not None], SMOOTHED_STEPS))
    return tuple((step, None if value is None else next(means)) for step, value in points)


def _tone(arm: str, arms: Sequence[str]) -> str:
    others = [other for other in arms if other not in TONES]
    return TONES.get(arm) or _OTHER_TONES[others.index(arm) % len(_OTHER_TONES)]


def _page(
    name: str,
    results: Mapping[str, Sequence[Result]],
    tables: Sequence[ArmTable],
    panels: Sequence[_Panel],
    damaged: Sequence[Damage],
) -> str:
    sections = [_results(tables, results), _curves(panels, damaged)]
    return page(f"{name} · spark-rl ablation", _header(name, results), sections, _PAGE_CSS)


def _header(name: str, results: Mapping[str, Sequence[Result]]) -> str:
    runs = [one for ones in results.values() for one in ones]
    config = runs[0]["config"]
    seeds = sorted({one["config"]["seed"] for one in runs})
    facts = {
        "model": text(setting(config, "model.path")),
        "data": text(setting(config, "data.train")),
        "arms": f"{len(results):,}",
        "seeds": text(", ".join(str(seed) for seed in seeds), 80),
        "steps a run": plain(finite(setting(config, "train.steps"))),
        "duration, all runs": duration(math.fsum(finite(one.get("seconds")) or 0.0 for one in runs)),
        "tokens generated": compact(math.fsum(finite(one.get("tokens")) or 0.0 for one in runs)),
    }
    tiles = "".join(f"<div><dt>{fact}</dt><dd>{value}</dd></div>" for fact, value in facts.items())
    return (
        f'<header><p class="brand">spark-rl · ablation</p><h1>{text(name)}</h1><dl class="facts">{tiles}</dl>'
        '<nav aria-label="Sections"><a href="#results">Results</a><a href="#curves">Learning curves</a></nav></header>'
    )


def winners(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """For each score that counts a line in plain text: which arm is ahead with every seed, or that none is."""
    lines = []
    for where, key, name in _SCORES:
        scores = {arm: [value for one in ones if (value := _score(one, where, key)) is not None]
                  for arm, ones in results.items()}  # fmt: skip
        known = {arm: values for arm, values in scores.items() if values}
        if len(known) < 2:
            continue
        first, second, *_ = sorted(known, key=lambda arm: -statistics.fmean(known[arm]))
        means = [f"{100 * statistics.fmean(known[arm]):.1f}" for arm in (first, second)]
        others = max(max(values) for arm, values in known.items() if arm != first)
        if len(known[first]) < 2:
            said = f"{first} {means[0]}, {second} {means[1]}; of one seed no winner is named"
        elif min(known[first]) > others:
            said = f"{first} wins with every seed: {means[0]}, before {second} with {means[1]}"
        else:
            said = f"no winner: {first} {means[0]} and {second} {means[1]} overlap between seeds"
        lines.append(f"{name}: {said}.")
    return lines


def _score(result: Result, where: str, key: str) -> float | None:
    part = result.get(where)
    scores = part.get("after") if where == "transfer" and isinstance(part, Mapping) else part
    return finite(scores.get(key)) if isinstance(scores, Mapping) else None


def _results(tables: Sequence[ArmTable], results: Mapping[str, Sequence[Result]]) -> str:
    blocks = "".join(
        f"{table(one.title, one.head, ([text(cell) for cell in row] for row in one.rows), 'compare')}" for one in tables
    )
    return (
        '<section id="results"><h2>Results</h2><p class="lead">Before training (base) and after it with each arm, on '
        f"problems that training never saw.</p>{blocks}{_winners(results)}"
        '<p class="note">The base is the mean over all runs. ± is the standard deviation between the seeds of an arm, '
        "not an interval of the mean. Break, the share of correct answers that reflection spoils, is better when "
        "lower.</p></section>"
    )


def _winners(results: Mapping[str, Sequence[Result]]) -> str:
    lines = winners(results)
    return f'<ul class="winners">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>' if lines else ""


def _curves(panels: Sequence[_Panel], damaged: Sequence[Damage]) -> str:
    said = "".join(f'<p class="warn">{text(str(damage))}</p>' for damage in damaged)
    shown = "".join(_figure(panel) for panel in panels)
    columns = f'<div class="columns two">{shown}</div>' if shown else '<p class="note">No step is recorded.</p>'
    return (
        '<section id="curves"><h2>Learning curves</h2><p class="lead">One thin line a run, a thick one the '
        f"mean of an arm, one colour an arm. "
        f"{_SMOOTHING}</p>{said}{columns}</section>"
    )


def _figure(panel: _Panel) -> str:
    notes = [text(_PANELS[panel.key])]
    if any(value is None for one in panel.series for _, value in one.points):
        notes.append('<span class="bad">×</span> marks a step without a finite value.')
    legend = [_legend_entry(arm, lines) for arm, lines in panel.arms.items()]
    if panel.chance is not None:
        legend.append(f"{swatch('chance', line=True)}chance <b>{panel.chance:.2f}</b>")
    return figure(panel.title, legend, panel.chart(), " ".join(notes), _data(panel))


def _legend_entry(arm: str, lines: Sequence[Series]) -> str:
    """The arm, with the mean over its seeds of the lines' first and last values."""
    ends = [(one.known[0][1], one.known[-1][1]) for one in lines if one.known]
    change = " → ".join(f"{statistics.fmean(values):.2f}" for values in zip(*ends, strict=True))
    return f"{swatch(lines[0].tone, line=True)}{text(arm, 80)} <b>{change or 'no finite value'}</b>"


def _data(panel: _Panel) -> str:
    steps = sorted({step for one in panel.series for step, _ in one.points})
    stride = max(1, math.ceil(len(steps) / _TABLE_ROWS))
    shown = [*steps[:-1:stride], steps[-1]]
    lookup = [dict(one.points) for one in panel.series]
    every = "" if stride == 1 else f"; one step in {stride}, all are in the metrics.jsonl of the runs"
    rows = [[f"{step:,.0f}", *(plain(values.get(step)) for values in lookup)] for step in shown]
    head = ["step", *(one.label for one in panel.series)]
    return table(f"{panel.title}, mean of the last {SMOOTHED_STEPS} steps{every}", head, rows)
