"""Result files laid out as the paper's Tables 1 to 6: rows are models, columns benchmarks in the paper's order.

A result file is what ``spark-rl eval --json`` writes (:func:`spark_rl.evals.score.totals.results` by benchmark).

- A sheet has one protocol. Results under several become several sheets, and no column ever holds two. The reward sets,
  which the authors' scoring does not cover, stand in ``reference`` sheets with their ``official`` number, MM-Vet in
  ``rule`` sheets with a judge's; the head says so (:attr:`spark_rl.evals.paper.published.Column.instead`).
- Averages are the paper's plain means, of unrounded scores, and missing where a member is missing, as in the paper.
- A number keeps its n and its 95 % interval. It is marked where only a part of the benchmark was asked, or where its
  whole size isn't known; so are the averages and differences made of it.
- Published rows are marked as such and stand only in sheets whose protocol the paper's numbers can be compared with;
  for want of one they get a sheet of their own. Differences are taken among rows measured here only; the paper's own
  are shown as printed.
- What no table of the paper has (K12, all variants of DynaMath) gets a sheet of its own, so that nothing vanishes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spark_rl.errors import UserError
from spark_rl.evals.ask.exam import JUDGED_BY
from spark_rl.evals.ask.results import OFF, ON, Cell, Model, Result
from spark_rl.evals.paper.published import (
    ANY_JUDGE,
    PAPER,
    TABLES,
    Average,
    Column,
    PaperTable,
    Published,
    Scores,
)

Origin = Literal["here", "paper"]

FIRST_PROTOCOLS = ("reference", "rule", "official")
USUAL_TABLES = (1, 2, 4)
"""Tables of the paper that differ in their columns and hold the average of all; the others are laid out on request."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a sheet."""

    model: str
    origin: Origin
    tts: str
    """Test-time scaling: ``off``, ``on``, a number of rounds, or nothing where it isn't known."""
    cells: tuple[Cell | None, ...]
    """One a head; ``None`` where nothing is known."""
    difference: bool = False
    """Of two rows, with signed numbers."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column."""

    title: str
    protocol: str | None = None
    """Where it isn't the sheet's."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table, laid out: heads, lines and the notes below it."""

    number: int | None
    """Of the paper; ``None`` for benchmarks that it doesn't have."""
    title: str
    protocol: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """The line above the sheet: its number, title and protocol."""
        name = self.title if self.number is None else f"Table {self.number}: {self.title}"
        return f"{name} ({'as published' if self.protocol == PUBLISHED else f'protocol {self.protocol}'})"


PUBLISHED = "published"
"""The protocol of a sheet that holds published rows only."""


def lay_out(
    models: Sequence[Model],
    *,
    tables: Collection[int] = (),
    protocol: str | None = None,
    published: bool = False,
    base: str | None = None,
) -> list[Sheet]:
    """Sheets in the order of the paper, one a table and protocol.

    Args:
        tables: the paper's numbers; by default those of 1, 2 and 4 that anything was measured for, and a sheet of what
            the paper doesn't have.
        protocol: only sheets of this protocol; by default of every one.
        published: put the paper's rows beside.
        base: the row that differences are taken from: a label, with `` + TTS`` where that row is meant.

    Raises:
        UserError: no such table, protocol or base, or nothing to lay out.
    """
    there = frozenset((result.benchmark, result.protocol) for model in models for result in model.results)
    _check(there, tables, protocol)
    wanted = [t for t in TABLES if t.number in (tables or USUAL_TABLES)]
    if models and not tables:
        wanted = _measured(wanted, {benchmark for benchmark, _ in there})
    sheets: list[Sheet] = []
    for paper in wanted:
        own = _protocols(paper.columns, there, protocol)
        sheets += [_sheet(models, paper, one, there, published and one in paper.protocols) for one in own]
        if published and not set(own) & set(paper.protocols):
            sheets.append(_published_sheet(paper))
    if not tables:
        sheets += _beyond(models, wanted, there, protocol)
    if not sheets:
        raise UserError("none of the results belongs to the tables asked for; leave the table out, or ask for another")
    return sheets if base is None else _with_differences(sheets, base)


def _measured(papers: Sequence[PaperTable], names: Collection[str]) -> list[PaperTable]:
    """The tables that have a measured benchmark. One that several have (RewardBench 2) decides for want of others."""
    of = {paper.number: {column.benchmark for column in paper.columns} for paper in papers}
    shared = {name for name in names if sum(name in own for own in of.values()) > 1}
    clear = [paper for paper in papers if of[paper.number] & (set(names) - shared)]
    homeless = shared - {name for paper in clear for name in of[paper.number]}
    return [paper for paper in papers if paper in clear or of[paper.number] & homeless]


def _check(there: Collection[tuple[str, str]], tables: Collection[int], protocol: str | None) -> None:
    unknown = [number for number in tables if number not in {t.number for t in TABLES}]
    if unknown:
        raise UserError(f"the paper has no table {unknown[0]} of results; choose from 1 to {len(TABLES)}")
    known = {scored_by for _, scored_by in there}
    if protocol is not None and protocol not in known | {"reference"}:
        raise UserError(f"no result was scored by {protocol!r}; there are {', '.join(sorted(known)) or 'none'}")


def _used(column: Column, sheet: str, there: Collection[tuple[str, str]]) -> str | None:
    """The protocol that fills a column of a sheet; ``None`` if none may."""
    used = column.instead.get(sheet, sheet)
    if used != ANY_JUDGE:
        return used
    judges = [p for benchmark, p in there if benchmark == column.benchmark and p.startswith(JUDGED_BY)]
    return judges[0] if len(judges) == 1 else None


def _protocols(columns: Sequence[Column], there: Collection[tuple[str, str]], wanted: str | None) -> list[str]:
    """The sheets that these columns need so that every number stands in one, and as few as that takes."""
    names = {column.benchmark for column in columns}
    found = {p for benchmark, p in there if benchmark in names}
    for column in columns:
        main = next(iter(column.instead), None)
        if main is not None and (column.benchmark, _used(column, main, there)) in there:
            found.add(main)
    for spare in sorted(found - set(FIRST_PROTOCOLS[:2])):
        others = found - {spare}
        own = {column.benchmark for column in columns if (column.benchmark, spare) in there}
        if all(
            any(_used(c, p, there) == spare for c in columns for p in others if c.benchmark == name) for name in own
        ):
            found = others
    found = {p for p in found if any((c.benchmark, _used(c, p, there)) in there for c in columns)}
    kept = found if wanted is None else found & {wanted}
    return sorted(kept, key=lambda p: (FIRST_PROTOCOLS.index(p) if p in FIRST_PROTOCOLS else len(FIRST_PROTOCOLS), p))


def _sheet(
    models: Sequence[Model], paper: PaperTable, protocol: str, there: Collection[tuple[str, str]], published: bool
) -> Sheet:
    columns = [(column, _used(column, protocol, there)) for column in paper.columns]
    lines = [line for model in models for line in _lines(model, columns, paper.averages)]
    heads = [Head(column.title, None if used in {protocol, None} else used) for column, used in columns]
    notes = [note for note in (_SOURCE, paper.note) if note] if published else []
    return Sheet(
        paper.number or None, paper.title, protocol, (*heads, *(Head(average.title) for average in paper.averages)),
        tuple(_published_lines(paper) + lines if published else lines), tuple(notes),
    )  # fmt: skip


def _lines(model: Model, columns: Sequence[tuple[Column, str | None]], averages: Sequence[Average]) -> list[Line]:
    """A line without test-time scaling, and one for each number of rounds; lines without a number are left out."""
    lines = []
    for tts in sorted({result.tts for result in model.results}, key=lambda tts: (tts != OFF, tts)):
        by_name = {(r.benchmark, r.protocol): r for r in model.results if r.tts == tts}
        cells = [_find(by_name.get((column.benchmark, used or "")), column.part) for column, used in columns]
        if any(cells):
            at = dict(zip((column.title for column, _ in columns), cells, strict=True))
            means = [_mean([at[title] for title in average.of]) for average in averages]
            lines.append(Line(model.label if tts == OFF else f"{model.label} + TTS", "here", tts, (*cells, *means)))
    return lines


def _find(result: Result | None, part: str | None) -> Cell | None:
    if result is None:
        return None
    return result.cell if part is None else result.parts.get(part)


def _mean(cells: Sequence[Cell | None]) -> Cell | None:
    """Of unrounded scores; nothing if one is missing."""
    there = [cell for cell in cells if cell is not None]
    if len(there) < len(cells):
        return None
    return Cell(sum(cell.score for cell in there) / len(there), whole=_whole(there))


def _whole(cells: Sequence[Cell]) -> bool | None:
    parts = {cell.whole for cell in cells}
    return False if False in parts else None if None in parts else True


_SOURCE = f"Rows marked paper are published in {PAPER}, not measured here."


def _published_lines(paper: PaperTable) -> list[Line]:
    lines = [_published_line(row) for row in paper.rows]
    if paper.base is not None:
        lines.append(
            Line(f"Δ {paper.rows[-1].model} − {paper.base}", "paper", "", _percent(paper.differences), difference=True)
        )
    return lines


def _published_line(row: Published) -> Line:
    tts = {None: "", True: ON, False: OFF}[row.tts]
    return Line(row.model, "paper", tts, _percent(row.scores + row.averages))


def _percent(scores: Scores) -> tuple[Cell | None, ...]:
    return tuple(None if score is None else Cell(score / 100) for score in scores)


def _published_sheet(paper: PaperTable) -> Sheet:
    titles = [column.title for column in paper.columns] + [average.title for average in paper.averages]
    lines = tuple(_published_lines(paper))
    return Sheet(paper.number, paper.title, PUBLISHED, tuple(Head(title) for title in titles), lines, (_SOURCE,))


def _beyond(
    models: Sequence[Model], papers: Sequence[PaperTable], there: Collection[tuple[str, str]], wanted: str | None
) -> list[Sheet]:
    """Sheets of what no sheet of these tables shows."""
    shown = {
        (column.benchmark, _used(column, protocol, there))
        for paper in papers
        for protocol in _protocols(paper.columns, there, None)
        for column in paper.columns
    }
    left = frozenset(there) - shown
    columns = tuple(Column(name, name) for name in sorted({benchmark for benchmark, _ in left}))
    paper = PaperTable(0, "Beyond the paper's tables", columns, (), ())
    kept = [
        replace(model, results=tuple(r for r in model.results if (r.benchmark, r.protocol) in left)) for model in models
    ]
    return [_sheet(kept, paper, protocol, left, False) for protocol in _protocols(columns, left, wanted)]


JUDGING = (
    "recall", "precision", "f1", "accuracy", "balanced_accuracy", "constant_accuracy", "verdict_rate",
    "unparsable_rate",
)  # fmt: skip


def judge_sheet(models: Sequence[Model]) -> Sheet | None:
    """Figure 4 as a table, a row for each model and benchmark: how it judges its own answers. ``None`` without any."""
    lines = tuple(
        Line(f"{model.label}: {benchmark}", "here", "", tuple(told.get(name) for name in JUDGING))
        for model in models
        for benchmark, told in model.judging.items()
    )
    heads = tuple(Head(name.replace("_", " ").replace("f1", "F1")) for name in JUDGING)
    return Sheet(None, "Figure 4: models judge their own answers", "judge", heads, lines) if lines else None


def _with_differences(sheets: Sequence[Sheet], base: str) -> list[Sheet]:
    """A line more for each row measured here, less the base row, in every sheet that has it."""
    here = {line.model for sheet in sheets for line in sheet.lines if line.origin == "here"}
    if base not in here:
        if any(line.model == base for sheet in sheets for line in sheet.lines):
            raise UserError(f"{base!r} is a published row; differences are taken from rows measured here")
        raise UserError(f"no row {base!r} to take differences from; there are {', '.join(map(repr, sorted(here)))}")
    return [_less(sheet, base) for sheet in sheets]


def _less(sheet: Sheet, base: str) -> Sheet:
    here = [line for line in sheet.lines if line.origin == "here"]
    origin = next((line for line in here if line.model == base), None)
    if origin is None:
        return sheet
    new = [
        Line(f"Δ {line.model} − {base}", "here", "", tuple(map(_difference, line.cells, origin.cells)), difference=True)
        for line in here
        if line is not origin
    ]
    return replace(sheet, lines=(*sheet.lines, *new))


def _difference(cell: Cell | None, base: Cell | None) -> Cell | None:
    if cell is None or base is None:
        return None
    return Cell(cell.score - base.score, whole=_whole((cell, base)))
