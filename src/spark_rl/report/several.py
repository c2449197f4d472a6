"""Any runs beside each other on one page: what each reached, how it got there, and in which settings they differ.

Nothing says that the runs are comparable: the page shows where model, data, seed or any other setting differ, and calls
no run the best whose interval overlaps that of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spark_rl.errors import UserError
from spark_rl.files import resolved, write_output
from spark_rl.report.charts import Series, overlay_chart
from spark_rl.report.comparison import MEASURES, Estimate, estimate
from spark_rl.report.headline import CONSTANT
from spark_rl.report.html import RunFiles, read_run
from spark_rl.report.markup import figure, folded, page, swatch, table, text
from spark_rl.report.metrics import finite
from spark_rl.report.notation import DASH, compact, duration, percent
from spark_rl.report.repeat import repeating_command
from spark_rl.report.settings import settings_of

MOST = 12
"""Runs on a page: more lines are not told apart."""
_TONES = ("s0", "s1", "s2", "s3", "s4", "s5")
_CURVES = (
    ("policy_accuracy", "Held-out: policy accuracy", "Points of the evaluations, step 0 before training."),
    ("judge_accuracy", "Held-out: judge accuracy on own answers", "Dotted: what a constant verdict would earn."),
    ("tts_accuracy", "Held-out: after judging and reflecting", ""),
)
_REWARDS = (
    ("reward/policy", "Training reward: policy", "Mean reward of the batches, answers sampled."),
    ("reward/pointwise", "Training reward: pointwise", ""),
    ("reward/pairwise", "Training reward: pairwise", "Guessing earns 0.5."),
    ("reward/reflection", "Training reward: reflection", ""),
)
_LOWER = {measure.key for measure in MEASURES if measure.lower_is_better}
_PICKED = {"judge_precision", "judge_recall", "reflection_fix", "reflection_break", CONSTANT}
"""Measures of what each run's own answers pick, or of those answers alone: none is called the best."""


def write_comparison(run_dirs: Sequence[Path], path: Path, say: Callable[[str], None] | None = None) -> Path:
    """Write a page that compares runs, finished or not, and return its path. What is damaged in one stands on the page;
    ``say`` is told the same, a line each.

    Raises:
        UserError: fewer than two runs or more than :data:`MOST`, one named twice, or one that can't be read.
    """
    if not 2 <= len(run_dirs) <= MOST:
        raise UserError(f"a comparison takes 2 to {MOST} runs, not {len(run_dirs)}")
    places = [resolved(one) for one in run_dirs]
    for place in places:
        if places.count(place) > 1:
            raise UserError(f"{place} is named twice; name each run of a comparison once")
    runs = [read_run(one) for one in run_dirs]
    for line in (line for run in runs for line in run.damage):
        if say is not None:
            say(line)
    names = _names(places)
    write_output(path, _page(dict(zip(names, runs, strict=True))))
    return path


def _names(places: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells the runs apart."""
    for parts in range(1, 1 + max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-parts:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]


def _page(runs: Mapping[str, RunFiles]) -> str:
    damage = "".join(f'<p class="warn">{text(line)}</p>' for run in runs.values() for line in run.damage)
    rows = [_facts(number, name, run) for number, (name, run) in enumerate(runs.items())]
    facts = table("Runs", ["run", "model", "data", "seed", "steps", "time in steps", "tokens"], rows, "settings")
    header = (
        f'<header><p class="brand">spark-rl · comparison</p><h1>{len(runs)} runs</h1>{damage}{facts}'
        '<nav aria-label="Sections"><a href="#results">Results</a><a href="#curves">Curves</a>'
        '<a href="#settings">Settings that differ</a></nav></header>'
    )
    return page("spark-rl comparison", header, [_results(runs), _curves(runs), _settings(runs)])


def _facts(number: int, name: str, run: RunFiles) -> list[str]:
    settings = settings_of(run.config)
    seconds = [finite(record.get("seconds")) or 0.0 for record in run.records]
    tokens = [finite(record.get("tokens")) or 0.0 for record in run.records]
    state = "" if run.summary is not None else ' <span class="hint">unfinished</span>'
    return [
        f"{swatch(_tone(number), line=True)}{text(name, 120)}{state}", text(settings.get("model.path"), 120),
        text(settings.get("data.train"), 120), text(settings.get("seed"), 40),
        f"{run.records[-1]['step']:,}" if run.records else "0", duration(sum(seconds)), compact(sum(tokens)),
    ]  # fmt: skip


def _tone(number: int) -> str:
    tone = _TONES[number % len(_TONES)]
    return tone if number < len(_TONES) else f"{tone} dashed"


def _results(runs: Mapping[str, RunFiles]) -> str:
    blocks = ""
    for key, title in (("heldout", "Held-out problems"), ("transfer", "Transfer problems")):
        scores = {name: _last(run, key) for name, run in runs.items()}
        if any(scores.values()):
            blocks += _table(title, scores, {name: _first(run, key) for name, run in runs.items()})
    blocks = blocks or '<p class="note">None of the runs has been evaluated.</p>'
    return (
        '<section id="results"><h2>Results</h2><p class="lead">The newest evaluation of each run, on problems it never '
        f'saw.</p>{blocks}<p class="note">Percent; ± is half the 95% interval, the change since before training in '
        "points below. <b>Bold</b> with ★: the best, and its interval overlaps no other. Whether two runs answered the "
        "same problems follows from their settings, below.</p></section>"
    )


def _last(run: RunFiles, key: str) -> Mapping[str, Any]:
    if key == "transfer":
        transfer = run.results.get("transfer")
        found = transfer.get("after") or transfer.get("before") if isinstance(transfer, Mapping) else None
        return found if isinstance(found, Mapping) else {}
    return run.evaluations[-1] if run.evaluations else {}


def _first(run: RunFiles, key: str) -> Mapping[str, Any]:
    if key == "transfer":
        transfer = run.results.get("transfer")
        found = transfer.get("before") if isinstance(transfer, Mapping) else None
        return found if isinstance(found, Mapping) else {}
    return run.evaluations[0] if run.evaluations and not run.evaluations[0].get("step") else {}


def _table(title: str, scores: Mapping[str, Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for measure in MEASURES:
        found = {name: estimate(one, measure.key) for name, one in scores.items()}
        if all(one.value is None for one in found.values()):
            continue
        winner = None if measure.key in _PICKED else best(found, lower=measure.key in _LOWER)
        hint = '&nbsp;<span class="hint" title="lower is better">↓</span>' if measure.lower_is_better else ""
        cells = [_cell(one, estimate(before[name], measure.key), name == winner) for name, one in found.items()]
        rows.append([f"{text(measure.label)}{hint}", *cells])
    counts = [finite(one.get("n")) for one in scores.values()]
    rows.insert(0, ["problems", *(DASH if count is None else f"{count:,.0f}" for count in counts)])
    return table(title, ["percent", *(name[-60:] for name in scores)], rows, "several")


def _cell(found: Estimate, before: Estimate, is_best: bool) -> str:
    if found.value is None:
        return DASH
    half = "" if found.half_width is None else f" ± {100 * found.half_width:.1f}"
    shown = f"{100 * found.value:.1f}{half}"
    shown = f"<b>★ {shown}</b>" if is_best else shown
    if before.value is None or before == found:
        return shown
    return f'{shown}<br><span class="hint">{100 * (found.value - before.value):+.1f}</span>'.replace("+-", "−")


def best(found: Mapping[str, Estimate], *, lower: bool = False) -> str | None:
    """The name of the best estimate, if its interval overlaps that of no other; ``None`` else."""
    known = {name: one for name, one in found.items() if one.value is not None and one.interval is not None}
    if len(known) < 2 or len(known) < sum(one.value is not None for one in found.values()):
        return None
    sign = -1 if lower else 1
    first, *others = sorted(known, key=lambda name: -sign * (known[name].value or 0.0))
    low, high = known[first].interval or (0.0, 0.0)
    for name in others:
        other_low, other_high = known[name].interval or (0.0, 0.0)
        if not (high < other_low if lower else low > other_high):
            return None
    return first


def _curves(runs: Mapping[str, RunFiles]) -> str:
    figures = [_figure(runs, key, title, note, held_out=True) for key, title, note in _CURVES]
    figures += [_figure(runs, key, title, note, held_out=False) for key, title, note in _REWARDS]
    shown = "".join(figures)
    columns = f'<div class="columns two">{shown}</div>' if shown else '<p class="note">No step is recorded.</p>'
    return f'<section id="curves"><h2>Curves</h2><p class="lead">One line a run.</p>{columns}</section>'


def _figure(runs: Mapping[str, RunFiles], key: str, title: str, note: str, *, held_out: bool) -> str:
    series, chance = list[Series](), list[Series]()
    for number, (name, run) in enumerate(runs.items()):
        rows = run.evaluations if held_out else run.records
        points = tuple((float(row["step"]), finite(row[key])) for row in rows if key in row)
        if any(value is not None for _, value in points):
            series.append(Series(name, points, _tone(number)))
        constant = tuple((float(row["step"]), finite(row[CONSTANT])) for row in rows if CONSTANT in row)
        if key == "judge_accuracy" and len(constant) > 1:
            chance.append(Series(f"{name}, constant verdict", constant, f"{_tone(number)} chance-of"))
    if not series:
        return ""
    chart = overlay_chart(
        title, [*series, *chance], y_label="share (%)" if held_out else "mean reward",
        scale="share" if held_out else "unit",
    )  # fmt: skip
    legend = [
        f"{swatch(one.tone, line=True)}{text(one.label, 60)} "
        f"<b>{' → '.join(percent(value) for _, value in (*one.known[:1], *one.known[1:][-1:]))}</b>"
        for one in series
    ]
    steps = sorted({step for one in series for step, _ in one.points})
    stride = max(1, -(-len(steps) // 50))
    lookup = [dict(one.points) for one in series]
    cells = [[f"{step:,.0f}", *(percent(values.get(step), 1) for values in lookup)] for step in steps[::stride]]
    data = table(title, ["step", *(one.label for one in series)], cells)
    return figure(title, legend, chart, text(note) if note else "", data)


def _settings(runs: Mapping[str, RunFiles]) -> str:
    flat = {name: settings_of(run.config) for name, run in runs.items()}
    keys = list(dict.fromkeys(key for one in flat.values() for key in one if key != "run_dir"))
    differ = [key for key in keys if len({json.dumps(one.get(key), sort_keys=True) for one in flat.values()}) > 1]
    rows = [[f"<code>{text(key)}</code>", *(f"<code>{_written(one.get(key))}</code>" for one in flat.values())]
            for key in differ]  # fmt: skip
    shown = table("Settings that differ", ["setting", *(name[-60:] for name in flat)], rows, "settings")
    if not rows:
        shown = '<p class="lead">None: the runs have the same settings.</p>'
    commands = {name: repeating_command(run.config) for name, run in runs.items()}
    again = "".join(
        f"<p><b>{text(name, 120)}</b><br><code>{text(command)}</code></p>"
        for name, command in commands.items()
        if command
    )
    return (
        f'<section id="settings"><h2>Settings that differ</h2>{shown}'
        f"{folded('The commands that repeat the runs', again) if again else ''}</section>"
    )


def _written(value: object) -> str:
    return text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 300)
