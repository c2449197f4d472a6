"""``spark-rl eval`` without a model: scores of rows or of anybody's responses, and tables of result files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_rl.commands.checks import check_outputs
from spark_rl.commands.exams import exams_of, names_of, output, words
from spark_rl.commands.lines import read_lines
from spark_rl.commands.models import inference_config
from spark_rl.commands.results import finish
from spark_rl.commands.terminal import console, counted, say
from spark_rl.errors import UserError
from spark_rl.files import write_output

if TYPE_CHECKING:
    from spark_rl.evals.ask.exam import Exam
    from spark_rl.evals.ask.records import Record
    from spark_rl.evals.paper.tables import Sheet

TABLE_KINDS = {"markdown": (".md", ".markdown"), "latex": (".tex",), "csv": (".csv",)}
"""``--format`` -> the suffixes of files with such tables."""
SHOWN = 3
"""Missing ids named."""


def rescore(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Every score of a file of rows once more, from what the rows hold."""
    from spark_rl.evals.ask.records import RecordFile, read_records
    from spark_rl.evals.score.grading import grade, judges_of
    from spark_rl.verify import Verifier

    config = inference_config(arguments, needs_model=False)
    rows = read_records(arguments.rescore)
    chosen = [*arguments.data, *names_of(words(arguments.bench))]
    sources = [source for source in dict.fromkeys(row["source"] for row in rows) if source in chosen or not chosen]
    if not sources:
        raise UserError(f"{arguments.rescore} has no rows of {', '.join(chosen)}")
    exams = []
    for source in sources:
        own = [row for row in rows if row["source"] == source]
        exam = _exam_of_rows(source, own).first(arguments.limit).only(words(arguments.protocol))
        exams.append(exam.judged_by(judges_of(own)))
    with Verifier(config.verify) as verifier:
        for exam in exams:
            grade([row for row in rows if row["source"] == exam.name], exam, verifier, again=True)
    out = output(arguments.out)
    kept = [row for row in rows if row["source"] in sources]
    if out is not None:
        RecordFile(out.rows, "").append(kept)
    return finish(exams, kept, config, out)


def score_responses(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Responses that anybody made, for one benchmark or set."""
    config = inference_config(arguments, needs_model=False)
    if not arguments.bench and not arguments.data:
        raise UserError("--responses needs --bench NAME, or --data, what the responses are to")
    whole = argparse.Namespace(**{**vars(arguments), "limit": None})
    exams = exams_of(whole, config, show=False)
    if len(exams) != 1:
        raise UserError(f"--responses is scored for one benchmark, not {len(exams)}; give one --bench NAME")
    from spark_rl.evals.ask.records import RecordFile
    from spark_rl.evals.ask.runner import new_record
    from spark_rl.evals.score.grading import grade
    from spark_rl.verify import Verifier

    responses = _responses(arguments.responses, [item.problem.id for item in exams[0].items])
    exam = exams[0].judged_by(()).first(arguments.limit)
    rows = [new_record("", exam, item) | {"seconds": 0.0} for item in exam.items]
    for row in rows:
        row["response"] = responses.get(row["id"])
    missing = [row["id"] for row in rows if row["response"] is None]
    if missing:
        few = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        say(f"{counted(len(missing), 'id')} of {len(rows):,} without a response, counted as no answer: {few}")
    out = output(arguments.out)
    file = None if out is None else RecordFile(out.rows, "")
    with Verifier(config.verify) as verifier:
        grade(rows, exam, verifier)
    if file is not None:
        file.append(rows)
    return finish([exam], rows, config, out)


def show_tables(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Result files as the paper's tables, and how the models judge where that was asked."""
    from spark_rl.evals.ask.results import read_results
    from spark_rl.evals.paper.tables import judge_sheet, lay_out

    protocols = words(arguments.protocol)
    if len(protocols) > 1:
        raise UserError("--table shows one --protocol, or all of them in sheets of their own")
    numbers = words(arguments.paper_table)
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f"--paper-table takes numbers of the paper's tables, not {', '.join(numbers)}")
    if arguments.out is not None:
        if arguments.format in {None, "terminal"}:
            raise UserError("--out of a table needs --format markdown, latex or csv")
        check_outputs(arguments.out, kinds=(*TABLE_KINDS[arguments.format], ".txt"))
    models = read_results(arguments.table)
    sheets = lay_out(
        models, tables=[int(number) for number in numbers], protocol=protocols[0] if protocols else None,
        published=arguments.published, base=arguments.base,
    )  # fmt: skip
    judging = judge_sheet(models)
    if judging is not None and not protocols and not numbers:
        sheets.append(judging)
    _show(sheets, arguments.format, arguments.out)
    return {"sheets": [asdict(sheet) | {"caption": sheet.caption} for sheet in sheets]}


def _show(sheets: Sequence[Sheet], form: str | None, out: Path | None) -> None:
    from spark_rl.evals.paper.formats import terminal, write

    if form in {None, "terminal"}:
        for sheet in sheets:
            console.print(*terminal(sheet, console.width))
        return
    text = write(sheets, str(form))
    if out is None:
        say(text)
        return
    write_output(out, text)
    say(f"wrote   {out}")


def _exam_of_rows(source: str, rows: Sequence[Record]) -> Exam:
    """The exam that rows belong to, without the data they came from."""
    from spark_rl.evals.ask.exam import Exam, exam_of_problems
    from spark_rl.evals.ask.records import item_of
    from spark_rl.evals.benchmarks import find

    items = tuple(item_of(row) for row in rows)
    if not rows[0]["benchmark"]:
        return exam_of_problems(source, (item.problem for item in items))
    benchmark = find(source)
    return Exam(source, items, benchmark.protocols, benchmark)


def _responses(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """Response by id, from JSON lines with ``id`` and ``response``; a null response is none."""
    known = set(ids)
    found: dict[str, str] = {}
    for number, line in read_lines(path):
        name, response = line.get("id"), line.get("response")
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not isinstance(response, str | None):
            raise UserError(f"{path} line {number} needs 'id' and 'response', both text")
        if name in found:
            raise UserError(f"{path} line {number}: a second response to {name}; one is scored")
        if name not in known:
            raise UserError(f"{path} line {number}: there is no item {name!r}; ids look like {', '.join(ids[:SHOWN])}")
        if response is not None:
            found[name] = response
    if not found:
        raise UserError(f"{path} has no response to any of {len(ids):,} items; ids look like {', '.join(ids[:SHOWN])}")
    return found
