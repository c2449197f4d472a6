"""What every way of evaluating ends with: scores added up, shown and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spark_rl.commands.exams import Output
from spark_rl.commands.terminal import console, say
from spark_rl.config import Config
from spark_rl.files import write_output

if TYPE_CHECKING:
    from spark_rl.evals.ask.exam import Exam
    from spark_rl.evals.ask.records import Record


def finish(exams: Sequence[Exam], rows: Sequence[Record], config: Config, out: Output | None) -> Mapping[str, Any]:
    """Add up, show and write what was found; rows from before that lack a protocol's grade get it here."""
    from spark_rl.evals.ask.records import REFUSED
    from spark_rl.evals.ask.view import evaluation_tables
    from spark_rl.evals.score.grading import grade
    from spark_rl.evals.score.totals import results
    from spark_rl.verify import Verifier

    with Verifier(config.verify) as verifier:
        for exam in exams:
            grade([row for row in rows if row["source"] == exam.name], exam, verifier)
    found = {exam.name: results(exam, rows) for exam in exams}
    console.print(*evaluation_tables(found))
    for exam in exams:
        refused = [row for row in rows if row["source"] == exam.name and row["status"] == REFUSED]
        if refused:
            say(
                f"{len(refused):,} of {exam.name} refused by the server, scored 0: the first, {refused[0]['id']}, "
                f"because of {refused[0].get('error')}"
            )
    if out is not None:
        from spark_rl.evals.ask.records import write_parquet

        say(f"wrote   {out.rows}")
        if out.parquet is not None:
            write_parquet(out.parquet, rows)
            say(f"wrote   {out.parquet}")
        if out.results is not None:
            write_output(out.results, json.dumps(found, indent=2, allow_nan=False) + "\n")
            say(f"wrote   {out.results}")
    return found
