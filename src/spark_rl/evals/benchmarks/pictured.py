"""From the entries of a published vision-language set to items, checked; images are named, not opened (Sec. 4.1).

Scoring somebody's responses needs no images, and the images of some sets are not at hand: whoever shows an image to a
model opens it, and says so if it is not there.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spark_rl.data.layouts import strip_suffix
from spark_rl.data.values import RowError, place_images
from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Graded, Item, Scorer
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.problem import Kind, Problem
from spark_rl.verify import Verifier
from spark_rl.verify.grade import grade

RAW_GOLD = "raw_gold"
"""Key of ``Item.meta``: the gold as the data has it, where :attr:`Problem.answer` is a cleaned one."""

_LABEL = r"^[ \t]*\(?([A-H])\)?[ \t]*[:.：．、]"
_OPTION = re.compile(rf"{_LABEL}(.*?)(?={_LABEL}|\Z)", re.DOTALL | re.MULTILINE)


def read_items(path: Path, columns: Collection[str], make: Callable[[Entry], Item]) -> list[Item]:
    """The items of a ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file, in its order.

    Args:
        path: the file. A JSON object of rows, keyed by their ids, is read as a list of rows is.
        columns: what every row must have, be it empty.
        make: one row to its item.

    Raises:
        DataError: the file can't be read, has no rows, or a row lacks a column, is not usable, or repeats an id.
    """
    items: list[Item] = []
    taken: set[str] = set()
    for entry in read_entries(path):
        missing = [name for name in columns if name not in entry.values]
        if missing:
            raise entry.wrong(f"no column {missing[0]!r}; there are: {', '.join(map(str, entry.values))}")
        try:
            item = make(entry)
        except RowError as error:
            raise entry.wrong(str(error)) from None
        if item.problem.id in taken:
            raise entry.wrong(f"the id {item.problem.id!r} is taken by an earlier row; ids must be unique")
        taken.add(item.problem.id)
        items.append(item)
    return items


def vision_item(
    source: str,
    name: str,
    question: str,
    answer: str,
    images: tuple[Any, ...],
    meta: Mapping[str, Any],
    *,
    kind: Kind,
    choices: tuple[str, ...] = (),
) -> Item:
    """An item from its pieces, the answer-format suffix taken off the question, ``<image>`` markers checked.

    An empty answer is taken as it is: it scores nothing.

    Raises:
        RowError: the gold is not one of its kind, or the markers are not as many as the images.
    """
    question = place_images(strip_suffix(question), images)
    if answer:
        try:
            grade("", answer, kind, choices)
        except ValueError as error:
            raise RowError(str(error)) from None
    problem = Problem(
        id=name, question=question, answer=answer, kind=kind, images=images, choices=choices, source=source
    )
    return Item(problem, {key: value for key, value in meta.items() if value not in (None, "", [])})


def spaced(text: str) -> str:
    """Without surplus space: names of groups are typed by hand."""
    return " ".join(text.split())


def metadata(entry: Entry, names: Collection[str]) -> dict[str, Any]:
    """Values of the column ``metadata``, lists of them as lists: MathVista's and MathVerse's groups.

    Raises:
        DataError: the column is no object.
    """
    held = entry.get("metadata")
    if not isinstance(held, Mapping):
        raise DataError(f"{entry.path}, row {entry.number}: 'metadata' is no object with named values")
    return {name: held.get(name) for name in names}


def inline_choices(text: str) -> tuple[str, ...]:
    """Options on lines of their own, ``A: 12`` or ``B. 13``, if their letters are A, B, C, ... in order, else none."""
    found = [(str(option[1]), str(option[2]).strip()) for option in _OPTION.finditer(text)]
    ordered = [letter for letter, _ in found] == list(string.ascii_uppercase[: len(found)])
    return tuple(option for _, option in found) if ordered and len(found) > 1 and all(o for _, o in found) else ()


def as_written(scorer: Scorer, key: str = RAW_GOLD) -> Scorer:
    """The scorer on golds as the data has them, kept under ``key`` of ``Item.meta`` where they were cleaned."""

    def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
        raw = [
            replace(item, problem=replace(item.problem, answer=item.meta[key])) if key in item.meta else item
            for item in items
        ]
        return scorer(raw, responses, verifier)

    return score
