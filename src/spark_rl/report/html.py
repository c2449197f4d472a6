"""report.html: one self-contained page about a run, readable on a phone, in light and dark, without any network.

Everything that came from a model, a data set or a configuration is untrusted: text is escaped, pictures are decoded and
encoded again, and a content security policy in the page forbids scripts and requests besides. Charts are chosen in
:mod:`spark_rl.report.panels` and drawn in :mod:`spark_rl.report.charts`; the style sheet is ``report.css`` beside this
file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_rl.errors import UserError
from spark_rl.files import check_own, parse_json, resolved, write_output
from spark_rl.problem import TASKS
from spark_rl.report.charts import Pair, before_after_chart
from spark_rl.report.comparison import Estimate, Row, compare, problems_note
from spark_rl.report.markup import figure as boxed_figure
from spark_rl.report.markup import page, swatch, table, text
from spark_rl.report.metrics import finite, read_rows
from spark_rl.report.notation import DASH, compact, duration, percent, plain, points
from spark_rl.report.panels import HELD_OUT, figure, sections, with_other_time
from spark_rl.report.settings import setting, settings_section
from spark_rl.report.thumbnails import recorded_thumbnails
from spark_rl.runs import changed_files, changed_settings, checkpoints

_SAMPLE_STEPS = 3
_SAMPLES_PER_TASK = 6
_MAIN = ("policy_accuracy", "tts_accuracy", "judge_accuracy")
_BARS = ("policy_accuracy", "tts_accuracy", "judge_accuracy", "judge_f1", "pairwise_accuracy", "reflection_fix")


@dataclass(frozen=True, slots=True)
class _Run:
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
    try:
        check_own(run_dir)
        run = _read_run(run_dir)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or run_dir}: {error.strerror}; restore it or remove it") from None
    if say is not None:
        for line in run.damage:
            say(line)
    path = run_dir / "report.html"
    write_output(path, _page(run))
    return path


def _read_run(run_dir: Path) -> _Run:
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
    return _Run(
        name=resolved(run_dir).name,
        config=config,
        records=[by_step[step] for step in sorted(by_step)],
        rollouts=found["rollouts"],
        evaluations=[{"step": 0, **before}, *evaluations] if evaluations and before else evaluations,
        summary=summary,
        results=summary or {"before": early.get("heldout"), "transfer": {"before": early.get("transfer")}},
        damage=damage,
    )


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


def _page(run: _Run) -> str:
    charts = "".join(
        f'<section id="{section.anchor}"><h2>{section.heading}</h2><p class="lead">{section.question}</p>'
        f'<div class="columns {_columns(len(section.panels))}">'
        f"{''.join(figure(panel, run.records) for panel in section.panels)}</div></section>"
        for section in sections(run.records)
    )
    if not charts:
        charts = '<section><h2>Learning curves</h2><p class="lead">No step is recorded yet.</p></section>'
    return page(
        f"{run.name} · spark-rl report",
        _header(run),
        [_results(run), charts, _samples(run.rollouts), settings_section(run.config), _versions(run.summary)],
    )


def _columns(panels: int) -> str:
    """Two large charts a row where three would leave a lonely one."""
    return "two" if panels in {2, 4} else "three"


def _header(run: _Run) -> str:
    summary = run.summary or {}
    seconds = finite(summary.get("seconds")) or _total(run.records, "seconds")
    tokens = finite(summary.get("tokens")) or _total(run.records, "tokens")
    rates = [rate for record in run.records if (rate := finite(record.get("tokens_per_second"))) is not None]
    steps = f"{run.records[-1]['step']:,}" if run.records else "0"
    planned = finite(setting(run.config, "train.steps"))
    budget = finite(setting(run.config, "train.tokens"))
    facts = [
        ("model", text(setting(run.config, "model.path"))),
        ("data", text(setting(run.config, "data.train"))),
        ("seed", text(setting(run.config, "seed"))),
        ("steps", steps if planned is None else f"{steps} of {planned:,.0f}"),
        ("duration", duration(seconds)),
        ("tokens generated", compact(tokens) if budget is None else f"{compact(tokens)} of {compact(budget)}"),
        ("tokens per second", compact(sum(rates) / len(rates)) if rates else DASH),
    ]
    state = "" if run.summary is not None else '<p class="warn">Unfinished: the run has not written its summary.</p>'
    damage = "".join(f'<p class="warn">{text(line)}</p>' for line in run.damage)
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    links = [(section.anchor, section.heading) for section in sections(run.records)]
    links += [("samples", "Samples")] if run.rollouts else []
    nav = "".join(
        f'<a href="#{anchor}">{heading}</a>'
        for anchor, heading in [("results", "Results"), *links, ("settings", "Settings"), ("versions", "Versions")]
    )
    return (
        f'<header><p class="brand">spark-rl · training report</p><h1>{text(run.name)}</h1>{state}{damage}'
        f'<dl class="facts">{tiles}</dl><nav aria-label="Sections">{nav}</nav></header>'
    )


def _results(run: _Run) -> str:
    before, after, transfer = (_mapping(run.results.get(key)) for key in ("before", "after", "transfer"))
    pairs = {
        "Held-out problems": (before, after),
        "Transfer problems": (_mapping(transfer.get("before")), _mapping(transfer.get("after"))),
    }
    blocks = "".join(_comparison(name, old, new) for name, (old, new) in pairs.items() if old or new)
    if not blocks:
        reason = "was not evaluated on held-out problems" if run.summary is not None else "has not been evaluated yet"
        return f'<section id="results"><h2>Results</h2><p class="lead">The run {reason}.</p></section>'
    return (
        '<section id="results"><h2>Results</h2><p class="lead">What training changed, on problems it never saw.</p>'
        f"{blocks}{_during(run.evaluations)}"
        '<p class="note">Shares in percent, changes in points. ± is half the 95% interval. '
        "Before and after answer the same problems, so their difference is usually more "
        "certain than the two intervals suggest. ↓ means lower is better.</p></section>"
    )


def _comparison(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    rows = compare(before, after)
    note = problems_note(before, after)
    title = f"{name} ({note})" if note else name
    cells = [[_label(row), *row.written()[:2], _change(row)] for row in rows]
    return (
        f'<div class="results">{table(title, ["percent", "before", "after", "change"], cells, "compare")}'
        f"{_bars(f'{name}: before and after', rows)}</div>"
    )


def _during(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Held-out scores over the steps, where they were measured during training."""
    return f'<div class="columns">{figure(HELD_OUT, evaluations)}</div>' if evaluations else ""


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


def _samples(rollouts: Sequence[Mapping[str, Any]]) -> str:
    if not rollouts:
        return ""
    last = sorted({rollout["step"] for rollout in rollouts})[-_SAMPLE_STEPS:]
    recent = sorted((r for r in rollouts if r["step"] in last), key=lambda rollout: -rollout["step"])
    tasks = list(dict.fromkeys([*TASKS, *(str(rollout.get("task")) for rollout in recent)]))
    blocks = []
    for task in tasks:
        rows = [rollout for rollout in recent if str(rollout.get("task")) == task][:_SAMPLES_PER_TASK]
        if rows:
            blocks.append(f"<h3>{text(task)}</h3>{''.join(_sample(rollout) for rollout in rows)}")
    when = f"step {last[0]:,}" if len(last) == 1 else f"steps {last[0]:,} to {last[-1]:,}"
    return (
        f'<section id="samples"><h2>Samples</h2><p class="lead">Rollouts of {when}, as the model wrote them.</p>'
        f"{''.join(blocks)}</section>"
    )


def _sample(rollout: Mapping[str, Any]) -> str:
    status = str(rollout.get("status", ""))
    extracted = rollout.get("extracted")
    found = "no box" if extracted is None else f"boxed <code>{text(extracted, 80)}</code>"
    tone = "good" if status == "correct" else "bad" if status == "wrong" else "neutral"
    return (
        f'<details class="sample"><summary><span class="badge {tone}">{text(status.replace("_", " "))}</span> '
        f"<span>{found}</span> <span>label <code>{text(rollout.get('label'), 80)}</code></span> "
        f"<span>reward {plain(finite(rollout.get('reward')))}</span> "
        f'<span class="hint">step {text(rollout.get("step"))} · {text(rollout.get("problem"), 80)}</span></summary>'
        f"<h4>Prompt</h4>{_pictures(rollout)}<pre>{text(rollout.get('prompt'))}</pre>"
        f"<h4>Response</h4><pre>{text(rollout.get('response'))}</pre></details>"
    )


def _pictures(rollout: Mapping[str, Any]) -> str:
    """The images of the problem, small."""
    pictures = recorded_thumbnails(rollout.get("images"))
    problem = text(rollout.get("problem"), 80)
    shown = "".join(
        f'<img src="{picture}" alt="image {number} of {len(pictures)} of {problem}">'
        for number, picture in enumerate(pictures, start=1)
    )
    return f'<div class="pictures">{shown}</div>' if shown else ""


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
