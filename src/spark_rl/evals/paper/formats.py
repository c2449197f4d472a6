"""Laid-out tables as text: terminal, Markdown, LaTeX (booktabs) and CSV (paper Tables 1 to 6).

A measured cell shows percent, its 95 % interval and n: ``45.0 (33.1–57.5) n 60†``; a mean of 8 samples an item has
``n 60×8``. Marks: † only a part of the benchmark was asked, ‡ its whole size is not known here. CSV has no marks but
columns of their own.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from spark_rl.evals.ask.results import OFF, Cell
from spark_rl.evals.paper.tables import Head, Line, Sheet
from spark_rl.report.notation import DASH, points

_MARKS = {True: "", False: "†", None: "‡"}
_LEGEND = {
    False: "† only a part of the benchmark was asked, or of one that this is made of.",
    None: "‡ how large the whole benchmark is, is not known here.",
}


def terminal(sheet: Sheet, width: int = 120) -> list[Table | Text]:
    """Caption, table and legend; as many tables as a terminal of this width needs, models in front of each.

    Where one table is not enough, each is as narrow as it can be: long names are folded, where rows come from stands in
    rows of its own, test-time scaling is left out if no row has any, and so are rows without a number in that table.
    """
    texts = [[_lines_of(line, cell) for cell in line.cells] for line in sheet.lines]
    heads = [head.title if head.protocol is None else f"{head.title}\n{head.protocol}" for head in sheet.heads]
    widths = [
        max(cell_len(part) for text in (head, *(row[place] for row in texts)) for part in text.split("\n")) + 2
        for place, head in enumerate(heads)
    ]
    longest = max(cell_len(name) for name in ("model", *(line.model for line in sheet.lines)))
    wide = sum(widths) <= width - longest - 16
    scaled = wide or any(line.tts not in {"", OFF} for line in sheet.lines)
    mixed = not wide and len({line.origin for line in sheet.lines}) > 1
    name_room = longest if wide else min(longest, max(16, width // 3 - 4))
    room = width - name_room - (16 if wide else 8 if scaled else 2)
    shown: list[Table | Text] = [Text(sheet.caption, style="bold")]
    for places in _pieces(widths, room):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("model", overflow="fold", max_width=name_room)
        fronts: list[Callable[[Line], str]] = [lambda line: line.origin] if wide else []
        fronts += [lambda line: line.tts or DASH] if scaled else []
        for name in (["from"] if wide else []) + (["TTS"] if scaled else []):
            table.add_column(name)
        for place in places:
            table.add_column(Text(heads[place]), justify="right", no_wrap=True)
        above = None
        for line, row in zip(sheet.lines, texts, strict=True):
            if not wide and all(line.cells[place] is None for place in places):
                continue
            if mixed and line.origin != above:
                table.add_row(Text(f"from {line.origin}", style="italic"))
                above = line.origin
            table.add_row(
                Text(line.model), *(Text(front(line)) for front in fronts), *(Text(row[place]) for place in places),
                style="dim" if line.origin == "paper" else None,
            )  # fmt: skip
        shown.append(table)
    return [*shown, Text("\n".join(legend(sheet)), style="italic")]


def markdown(sheet: Sheet) -> str:
    """A GitHub table below its caption, and the legend."""
    heads = ["model", "from", "TTS", *(_head(head) for head in sheet.heads)]
    rows = [
        [line.model, line.origin, line.tts or DASH, *(_on_one_line(line, cell) for cell in line.cells)]
        for line in sheet.lines
    ]
    rule = ["---"] * 3 + ["---:"] * len(sheet.heads)
    table = [_markdown_row(map(_markdown, heads)), _markdown_row(rule)]
    table += [_markdown_row(map(_markdown, row)) for row in rows]
    return (
        "\n".join(
            [f"**{_markdown(sheet.caption)}**", "", *table, "", *(f"- {_markdown(note)}" for note in legend(sheet))]
        )
        + "\n"
    )


def latex(sheet: Sheet) -> str:
    """A ``table`` environment for the booktabs package, every text escaped."""
    heads = ["Model", "From", "TTS", *(_head(head) for head in sheet.heads)]
    body = []
    for number, line in enumerate(sheet.lines):
        before = sheet.lines[number - 1] if number else line
        if (line.origin, line.difference) != (before.origin, before.difference):
            body.append("    \\midrule")
        cells = [_latex_cell(line, cell) for cell in line.cells]
        front = [_latex(line.model), line.origin, _latex(line.tts or DASH)]
        body.append(f"    {' & '.join([*front, *cells])} \\\\")
    notes = " ".join(map(_latex, legend(sheet)))
    return "\n".join([
        "\\begin{table}", "  \\centering", f"  \\caption{{{_latex(sheet.caption)}}}",
        f"  \\begin{{tabular}}{{lll{'r' * len(sheet.heads)}}}", "    \\toprule",
        f"    {' & '.join(map(_latex, heads))} \\\\", "    \\midrule", *body, "    \\bottomrule", "  \\end{tabular}",
        *([f"  \\par\\footnotesize {notes}"] if notes else []), "\\end{table}",
    ]) + "\n"  # fmt: skip


def csv_text(sheet: Sheet) -> str:
    """One header and a line a row: percent to four decimals, and behind each score its n, interval and ``whole``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [_head(head) for head in sheet.heads]
    writer.writerow([
        "table", "protocol", "model", "from", "tts",
        *(name for head in heads for name in (head, *(f"{head} {more}" for more in ("n", "low", "high", "whole")))),
    ])  # fmt: skip
    for line in sheet.lines:
        front = [sheet.number or sheet.title, sheet.protocol, line.model, line.origin, line.tts]
        writer.writerow([*front, *(value for cell in line.cells for value in _csv_cell(line, cell))])
    return out.getvalue()


FORMATS: Mapping[str, Callable[[Sheet], str]] = {"markdown": markdown, "latex": latex, "csv": csv_text}
"""Ways to write a table to a file; :func:`terminal` is for the screen."""


def write(sheets: Sequence[Sheet], form: str) -> str:
    """All sheets in one of :data:`FORMATS`, an empty line between them."""
    return "\n".join(FORMATS[form](sheet) for sheet in sheets)


def legend(sheet: Sheet) -> list[str]:
    """What stands below a table: its marks and notes."""
    shown = [cell for line in sheet.lines for cell in line.cells if cell is not None]
    intervals = any(cell.low is not None for cell in shown)
    return [
        *(["Percent, its 95% interval, n questions."] if intervals else []),
        *(text for whole, text in _LEGEND.items() if any(cell.whole is whole for cell in shown)),
        *sheet.notes,
    ]


def _parts(line: Line, cell: Cell | None) -> tuple[str, str, str]:
    """(score, interval, n with its mark); the mark stands with the score where there is no n."""
    if cell is None:
        return DASH, "", ""
    score = points(cell.score) if line.difference else f"{100 * cell.score:.1f}"
    interval = "" if cell.low is None or cell.high is None else f"({100 * cell.low:.1f}–{100 * cell.high:.1f})"
    if cell.n is None:
        return score + _MARKS[cell.whole], interval, ""
    times = f"×{cell.samples}" if cell.samples > 1 else ""
    return score, interval, f"n {cell.n:,}{times}{_MARKS[cell.whole]}"


def _lines_of(line: Line, cell: Cell | None) -> str:
    return "\n".join(part for part in _parts(line, cell) if part)


def _on_one_line(line: Line, cell: Cell | None) -> str:
    return " ".join(part for part in _parts(line, cell) if part)


def _head(head: Head) -> str:
    return head.title if head.protocol is None else f"{head.title} ({head.protocol})"


def _pieces(widths: Sequence[int], room: int) -> list[list[int]]:
    """Places of columns, as many together as fit."""
    pieces: list[list[int]] = [[]]
    for place, width in enumerate(widths):
        if pieces[-1] and sum(widths[other] for other in pieces[-1]) + width > room:
            pieces.append([])
        pieces[-1].append(place)
    return pieces


def _markdown_row(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "Δ": r"$\Delta$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}",
    "–": "--",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _latex_cell(line: Line, cell: Cell | None) -> str:
    score, *rest = _parts(line, cell)
    small = " ".join(part for part in rest if part)
    return _latex(score) + (f" {{\\scriptsize {_latex(small)}}}" if small else "")


def _csv_cell(line: Line, cell: Cell | None) -> tuple[object, ...]:
    if cell is None:
        return "", "", "", "", ""
    low, high = ("" if end is None else round(100 * end, 4) for end in (cell.low, cell.high))
    whole = {True: "yes", False: "no", None: ""}[cell.whole] if line.origin != "paper" else ""
    return round(100 * cell.score, 4), "" if cell.n is None else cell.n, low, high, whole
