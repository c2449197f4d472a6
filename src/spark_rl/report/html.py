"""report.html: one self-contained page about a run, readable on a phone, in light and dark, without any network.

Everything that came from a model, a data set or a configuration is untrusted: text is escaped, pictures are decoded and
encoded again, and a content security policy in the page forbids requests and all scripts but ours, which sets text.
:mod:`spark_rl.report.headline` says what training changed, :mod:`spark_rl.report.browser` shows rollouts. Charts are
chosen in :mod:`spark_rl.report.panels` and drawn in :mod:`spark_rl.report.charts`; the style sheet is ``report.css``
beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_rl.errors import UserError
from spark_rl.files import check_own, parse_json, resolved, write_output
from spark_rl.report.browser import browser_script, browser_section
from spark_rl.report.charts import Pair, before_after_chart
from spark_rl.report.comparison import Estimate, Row, compare, problems_note
from spark_rl.report.headline import coevolution, headline
from spark_rl.report.markup import figure as boxed_figure
from spark_rl.report.markup import folded, page, swatch, table, text
from spark_rl.report.metrics import finite, read_rows
from spark_rl.report.notation import DASH, compact, duration, percent, points
from spark_rl.report.panels import Section, figure, sections, with_other_time
from spark_rl.report.phases import phases_figure
from spark_rl.report.repeat import repeating_command
from spark_rl.report.settings import setting, settings_section
from spark_rl.runs import changed_files, changed_settings, checkpoints

_MAIN = ("policy_accuracy", "tts_accuracy", "judge_accuracy")
_BARS = ("policy_accuracy", "tts_accuracy", "judge_accuracy", "judge_f1", "pairwise_accuracy", "reflection_fix")
_HELD_OUT = "Held-out problems"
_FIRST = {*_MAIN, "tts_gain", "judge_constant_accuracy", "pairwise_accuracy", "reflection_fix", "reflection_break"}
"""The rows of a table that are not behind a line to click."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run directory holds."""

    name: str
    config: dict[str, Any]
    records: list[dict[str, Any]]
    rollouts: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    """Held-out scores by step, those before training at step 0."""
    summary: dict[str, Any] | None
    """``None`` while the run is unfinished."""
    results: Mapping[str, Any]
    """The evaluations: ``before``, ``after`` and ``transfer``, whichever are done."""
    damage: list[str]
    """What of the files is damaged or has changed, one line each."""


def write_report(run_dir: str | Path, say: Callable[[str], None] | None = None) -> Path:
    """Write ``report.html`` into a run directory from its ``config.json``, ``metrics.jsonl``, ``rollouts.jsonl`` and
    ``summary.json`` (``before.json`` until that exists), and return its path. All but the first may be missing: a
    running or killed run has a report too. Rows that are damaged are left out, and the page says so, as it says what
    has changed since the newest checkpoint was saved; ``say`` is told the same, a line each.

    Raises:
        UserError: if the directory is not a run, or one of its files can't be read or is a link to elsewhere; one line
            that says which.
    """
    run_dir = Path(run_dir)
    run = read_run(run_dir)
    if say is not None:
        for line in run.damage:
            say(line)
    path = run_dir / "report.html"
    write_output(path, _page(run))
    return path


def read_run(run_dir: Path) -> RunFiles:
    """The files of a run. Raises like :func:`write_report`."""
    try:
        check_own(run_dir)
        return _read_run(run_dir)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or run_dir}: {error.strerror}; restore it or remove it") from None


def _read_run(run_dir: Path) -> RunFiles:
    config = _read_object(run_dir / "config.json")
    if config is None:
        raise UserError(f"{run_dir} is not a run directory (it has no config.json); give a directory made by train")
    summary = _read_object(run_dir / "summary.json")
    early = _read_object(run_dir / "before.json") or {}
    before = _mapping((summary or {}).get("before") or early.get("heldout"))
    found, damage = dict[str, list[dict[str, Any]]](), list[str]()
    for name in ("metrics", "rollouts", "evaluations"):
        path = run_dir / f"{name}.jsonl"
        found[name], damaged = read_rows(path) if path.is_file() else ([], None)
        damage += [] if damaged is None else [str(damaged)]
    for saved in checkpoints(run_dir)[-1:]:
        damage += [*changed_settings(run_dir, saved).values(), *changed_files(run_dir, saved)]
    evaluations = found["evaluations"]
    by_step = {record["step"]: with_other_time(record) for record in found["metrics"]}
    return RunFiles(
        name=resolved(run_dir).name,
        config=config,
        records=[by_step[step] for step in sorted(by_step)],
        rollouts=found["rollouts"],
        evaluations=_by_step(before, evaluations, summary, [record["step"] for record in found["metrics"]]),
        summary=summary,
        results=summary or {"before": early.get("heldout"), "transfer": {"before": early.get("transfer")}},
        damage=damage,
    )


def _by_step(
    before: Mapping[str, Any],
    during: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any] | None,
    steps: Sequence[int],
) -> list[dict[str, Any]]:
    """All evaluations of the held-out problems by step, the first before training and the last after it."""
    found = {0: {"step": 0, **before}} if before else {}
    found |= {one["step"]: dict(one) for one in during}
    after = _mapping((summary or {}).get("after"))
    if after and steps and max(steps) not in found:
        found[max(steps)] = {**after, "step": max(steps)}
    return [found[step] for step in sorted(found)]


def _read_object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_text(encoding="utf-8"), parse_constant=lambda _name: None)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it or remove it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def _page(run: RunFiles) -> str:
    steps = run.records[-1]["step"] if run.records else 0
    planned = finite(setting(run.config, "train.steps"))
    drawn = coevolution(run.evaluations, run.records, run.config)
    charts = "".join(_section(section, run) for section in sections(run.records))
    if not charts:
        charts = '<section><h2>Learning curves</h2><p class="lead">No step is recorded yet.</p></section>'
    samples = browser_section(run.rollouts, round(planned) if planned and planned < 2**31 else steps)
    return page(
        f"{run.name} · spark-rl report",
        _header(run, steps),
        [
            f'<section id="together">{drawn}</section>' if drawn else "",
            _results(run), samples, charts, settings_section(run.config), _versions(run.summary),
        ],
        script=browser_script() if samples else "",
    )  # fmt: skip


def _section(section: Section, run: RunFiles) -> str:
    """Charts behind a line to click, so that a phone shows the page in a few screens; a link to them opens them."""
    shown = "".join(figure(panel, run.records) for panel in section.panels)
    if section.anchor == "speed":
        shown = f'<div class="whole">{phases_figure(run.records)}</div>{shown}'
    constants = "".join(f"<li>{text(title)}: <b>{text(value)}</b></li>" for title, value in section.constants)
    same = f'<p class="note">The same in every step:</p><ul class="constants">{constants}</ul>' if constants else ""
    return (
        f'<section><details class="charts"><summary><h2>{section.heading}</h2>'
        f'<p class="lead">{section.question}</p></summary><div class="columns {_columns(len(section.panels))}" '
        f'id="{section.anchor}">{shown}</div>{same}</details></section>'
    )


def _columns(panels: int) -> str:
    """Two large charts a row where three would leave a lonely one."""
    return "two" if panels in {2, 4} else "three"


def _header(run: RunFiles, steps: int) -> str:
    summary = run.summary or {}
    seconds = finite(summary.get("seconds")) or _total(run.records, "seconds")
    tokens = finite(summary.get("tokens")) or _total(run.records, "tokens")
    rates = [rate for record in run.records if (rate := finite(record.get("tokens_per_second"))) is not None]
    planned = finite(setting(run.config, "train.steps"))
    budget = finite(setting(run.config, "train.tokens"))
    facts = [
        ("model", text(setting(run.config, "model.path"))),
        ("data", text(setting(run.config, "data.train"))),
        ("seed", text(setting(run.config, "seed"))),
        ("steps", f"{steps:,}" if planned is None else f"{steps:,} of {planned:,.0f}"),
        ("time in steps", duration(seconds)),
        ("tokens generated", compact(tokens) if budget is None else f"{compact(tokens)} of {compact(budget)}"),
        ("tokens per second", compact(sum(rates) / len(rates)) if rates else DASH),
    ]
    finished = run.summary is not None
    state = "" if finished else '<p class="warn">Unfinished: the run has not written its summary.</p>'
    damage = "".join(f'<p class="warn">{text(line)}</p>' for line in run.damage)
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    links = [("results", "Results"), *([("samples", "Rollouts")] if run.rollouts else [])]
    links += [(section.anchor, section.heading) for section in sections(run.records)]
    nav = "".join(
        f'<a href="#{anchor}">{heading}</a>'
        for anchor, heading in [*links, ("settings", "Settings"), ("versions", "Versions")]
    )
    command = repeating_command(run.config)
    again = "" if command is None else f'<p class="again">The same run again: <code>{text(command)}</code></p>'
    return (
        f'<header><p class="brand">spark-rl · training report</p><h1>{text(run.name)}</h1>{state}{damage}'
        f'<p class="headline">{headline(run.evaluations, steps, finished=finished)}</p>'
        f'<dl class="facts">{tiles}</dl>{again}<nav aria-label="Sections">{nav}</nav></header>'
    )


def _results(run: RunFiles) -> str:
    before, after, transfer = (_mapping(run.results.get(key)) for key in ("before", "after", "transfer"))
    now = "after"
    if run.summary is None and run.evaluations and (step := run.evaluations[-1]["step"]):
        after, now = run.evaluations[-1], f"step {step:,}"
    pairs = {
        _HELD_OUT: (before, after),
        "Transfer problems": (_mapping(transfer.get("before")), _mapping(transfer.get("after"))),
    }
    blocks = "".join(_comparison(name, old, new, now) for name, (old, new) in pairs.items() if old or new)
    if not blocks:
        reason = "was not evaluated on held-out problems" if run.summary is not None else "has not been evaluated yet"
        return f'<section id="results"><h2>Results</h2><p class="lead">The run {reason}.</p></section>'
    return (
        '<section id="results"><h2>Results</h2><p class="lead">What training changed, on problems it never saw.</p>'
        f"{blocks}"
        '<p class="note">Shares in percent, changes in points, n the problems that a share is of. ± is half the 95% '
        "interval. Before and after answer the same problems, so their difference is usually more certain than the two "
        "intervals suggest. ↓ means lower is better. Where n has changed the two shares are of other problems: of the "
        "errors that training left, say, which are fewer and harder. Their change has no colour.</p></section>"
    )


def _comparison(name: str, before: Mapping[str, Any], after: Mapping[str, Any], now: str) -> str:
    rows = compare(before, after)
    note = problems_note(before or after, after or before)
    title = f"{name} ({note})" if note else name
    first, more = ([[_label(row), *_values(row), _change(row)] for row in rows if (row.key in _FIRST) == wanted]
                   for wanted in (True, False))  # fmt: skip
    head = ["percent", "before", now if after else "after", "change"]
    bars = _bars(f"{name}: before and after", rows) if after else ""
    if bars and name != _HELD_OUT:
        bars = f"<div>{folded('As bars', bars)}</div>"
    rest = folded(f"{len(more)} more measures", table(f"{name}, more", head, more, "compare")) if more else ""
    return f'<div class="results"><div>{table(title, head, first, "compare")}{rest}</div>{bars}</div>'


def _values(row: Row) -> list[str]:
    """Before and after as cells, with the n of those whose problems training itself picks."""
    shown = list(row.written()[:2])
    if not row.same_trials:
        shown = [
            value if trials is None else f'{value}<br><span class="hint">n = {trials:,}</span>'
            for value, trials in zip(shown, row.trials, strict=True)
        ]
    return shown


def _label(row: Row) -> str:
    hint = '&nbsp;<span class="hint" title="lower is better">↓</span>' if row.lower_is_better else ""
    return f"<b>{row.label}</b>" if row.key in _MAIN else f"{row.label}{hint}"


def _change(row: Row) -> str:
    tone = {True: "good", False: "bad", None: "same"}[row.better]
    return f'<span class="{tone}">{row.written()[2]}</span>'


def _bars(title: str, rows: Sequence[Row]) -> str:
    drawn = [row for row in rows if row.key in _BARS and (row.before.value, row.after.value) != (None, None)]
    if not drawn:
        return ""
    pairs = [
        Pair(row.label, row.before.value, row.after.value, row.before.interval, row.after.interval) for row in drawn
    ]
    legend = [f"{swatch('before')}before", f"{swatch('after')}after"]
    cells = [[row.label, _interval(row.before), _interval(row.after), points(row.change)] for row in drawn]
    data = table(f"{title}, 95% intervals", ["measure", "before", "after", "change (points)"], cells)
    return boxed_figure(title, legend, before_after_chart(title, pairs), "", data)


def _interval(estimate: Estimate) -> str:
    share = percent(estimate.value, 1)
    if estimate.interval is None:
        return share
    low, high = estimate.interval
    return f"{share} ({100 * low:.1f} to {100 * high:.1f})"


def _versions(summary: Mapping[str, Any] | None) -> str:
    rows = [[text(name), text(value)] for name, value in _mapping((summary or {}).get("versions")).items()]
    content = table("What the run used", ["package", "version"], rows, "settings")
    if not rows:
        content = '<p class="lead">The run has recorded none.</p>'
    return f'<section id="versions"><h2>Versions</h2>{content}</section>'


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _total(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [number for record in records if (number := finite(record.get(key))) is not None]
    return sum(values) if values else None
