"""One row as a problem (Eq. 1): its fields read by its layout, its gold answer tried by the verifier.

Where a user's functions grade in place of the verifier, :func:`read_row_without_gold` takes rows as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from spark_rl.config import ColumnsConfig
from spark_rl.data.formats import without_format
from spark_rl.data.layouts import ANSWER, FORMAT, UNKNOWN, Layout, Numbers, read_fields, strip_suffix
from spark_rl.data.published import PUBLISHED
from spark_rl.data.values import Fields, RowError, pick, place_images
from spark_rl.problem import Kind, Problem
from spark_rl.verify.grade import grade
from spark_rl.verify.notation import UnreadableError as UnreadableGoldError
from spark_rl.verify.notation import canonical


def read_row(
    row: Any,
    layout: Layout,
    columns: ColumnsConfig,
    kind: Kind | Literal["auto"],
    source: str,
    numbers: Numbers = UNKNOWN,
    notes: list[tuple[str, str]] | None = None,
) -> Problem:
    r"""One row as a problem with an empty id, which the loader fills in.

    ``{"problem": "1+1?", "choices": ["3", "2"], "answer": 1}`` becomes a problem of kind ``choice`` with the question
    ``1+1?\n(A) 3\n(B) 2`` and the answer ``B``.

    Args:
        row: what the file has.
        layout: how it is read.
        columns: the columns that are named by hand.
        kind: how answers are compared; ``auto`` leaves it to the row.
        source: where the row comes from.
        numbers: what the first rows tell of golds that are numbers, see :func:`number_rule`.
        notes: gets what was assumed or taken off, each with an example.

    Raises:
        UnreadableError: the options or images are of no known shape.
        RowError: the row has no question, no gold answer that the verifier can use, or values that can't be read as
            such.
    """
    fields, question, said = _read(row, layout, columns, numbers)
    if not question:
        raise RowError("no question")
    if not fields.answer:
        raise RowError("empty answer")
    kind = _kind_of(fields, kind)
    for gold in (fields.answer, *fields.alternatives):
        try:
            grade("", gold, kind, fields.choices)
            if kind == "math":
                canonical(gold)
        except UnreadableGoldError as error:  # nothing but the same text could ever earn the reward
            raise RowError(f"the answer {gold[:30]!r} is {error}") from None
        except ValueError as error:
            raise RowError(str(error)) from None
    if notes is not None:
        notes += said
    return Problem(
        id="", question=question, answer=fields.answer, alternatives=fields.alternatives, kind=kind,
        images=fields.images, choices=fields.choices, source=source,
    )  # fmt: skip


def read_row_without_gold(
    row: Any,
    layout: Layout,
    columns: ColumnsConfig,
    kind: Kind | Literal["auto"],
    source: str,
    numbers: Numbers = UNKNOWN,
    notes: list[tuple[str, str]] | None = None,
) -> Problem:
    """One row as a problem that the verifier need not grade; arguments and errors as for :func:`read_row`.

    The gold is what :func:`read_row` would find, else the text in the column of the answer as it stands, else empty.
    """
    try:
        return read_row(row, layout, columns, kind, source, numbers, notes)
    except RowError:
        if not isinstance(row, Mapping):
            raise
    raw = pick(row, columns.answer, ANSWER)
    unanswered = {key: value for key, value in row.items() if key != columns.answer and str(key).lower() not in ANSWER}
    if columns.answer is not None:
        unanswered[columns.answer] = None
    fields, question, said = _read(unanswered, layout, columns, numbers)
    if not question:
        raise RowError("no question")
    if notes is not None:
        notes += said
    gold = raw.strip() if isinstance(raw, str) else str(raw) if isinstance(raw, int | float) else ""
    return Problem(
        id="", question=question, answer=gold, kind=_kind_of(fields, kind), images=fields.images,
        choices=fields.choices, source=source,
    )  # fmt: skip


def _read(
    row: Any, layout: Layout, columns: ColumnsConfig, numbers: Numbers
) -> tuple[Fields, str, list[tuple[str, str]]]:
    """(what the row holds, its question as it is asked, what was assumed or taken off)."""
    if not isinstance(row, Mapping):
        raise RowError("not an object with named columns")
    fields = read_fields(row, layout, columns, numbers)
    question, taken = place_images(strip_suffix(fields.question), fields.images), ""
    if layout not in PUBLISHED:
        question, taken = without_format(question)
        question = place_images(question, fields.images)
    return fields, question, [*fields.notes, *([(FORMAT, taken)] if taken else [])]


def _kind_of(fields: Fields, kind: Kind | Literal["auto"]) -> Kind:
    if kind != "auto":
        return kind
    return fields.kind or ("choice" if fields.choices else "math")
