"""Tables and rows of the paper by their names, and the means of what is printed."""

from __future__ import annotations

from spark_rl.evals.paper.published import TABLES, Average, PaperTable, Published


def table(number: int) -> PaperTable:
    """Table 1 to 6."""
    return {one.number: one for one in TABLES}[number]


def row_of(number: int, model: str) -> Published:
    """The row of a model in a table."""
    return {one.model: one for one in table(number).rows}[model]


def row_mean(paper: PaperTable, row: Published, average: Average) -> float | None:
    """The mean of the printed scores that an average is made of; ``None`` if one of them is missing."""
    at = dict(zip((column.title for column in paper.columns), row.scores, strict=True))
    members = [at[title] for title in average.of]
    found = [score for score in members if score is not None]
    return sum(found) / len(found) if len(found) == len(members) else None
