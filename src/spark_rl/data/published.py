r"""Rows of published vision-language benchmarks whose columns are not plain ones (Sec. 4.1).

========== ================================================== =====================================================
layout     the question                                       the gold
========== ================================================== =====================================================
mathvista  ``query``, rebuilt by the set's rule if not there  the letter; the data has the option's text
mathverse  ``question``; of Vision Only rows ``query_cot``    a letter where one is given, else the answer as it is
wemath     ``question``, and ``option`` as it is behind it    the letter
dynamath   ``question`` with its options inside               the letter for ``multiple choice``, else the answer
logicvista ``question`` with its options inside               the letter or letters
pope       ``text``                                           yes or no
========== ================================================== =====================================================

MathVision and K12 have plain columns. Options that stand in the question or in the picture are not parsed: only letters
count as answers then. A layout is told by columns that no other set has together.

Departure: MathVerse's golds with a degree sign garbled by a wrong decoding are mended.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spark_rl.data.values import Fields, Row, RowError, images_of, row_images, text_of
from spark_rl.problem import Kind
from spark_rl.verify.letters import read_letters

_OPTION = "the correct option letter, e.g., A, B, C, D"
_HINTS: Mapping[tuple[str, int | None], str] = {
    ("text", None): f"answer the question and provide {_OPTION}",
    ("integer", None): "answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3",
    ("float", 1): "answer the question requiring a floating-point number with one decimal place and provide the "
    "final value, e.g., 1.2, 1.3, 1.4",
    ("float", 2): "answer the question requiring a floating-point number with two decimal places and provide the "
    "final value, e.g., 1.23, 1.34, 1.45",
    ("list", None): "answer the question requiring a Python list as an answer and provide the final list, e.g., "
    "[1, 2, 3], [1.2, 1.3, 1.4]",
}
"""(answer_type, precision) -> what MathVista's prompt asks for
(https://github.com/lupantech/MathVista/blob/main/evaluation/build_query.py)."""


def _mathvista(row: Row) -> Fields:
    listed = row.get("choices") or ()
    if not isinstance(listed, list | tuple) or len(listed) > len(string.ascii_uppercase):
        raise RowError("the options are not a list of at most 26")
    choices = tuple(text_of(choice, "option") for choice in listed)
    answer = text_of(row.get("answer"), "answer")
    if choices:
        if answer not in choices:
            raise RowError(f"answer {answer[:40]!r} is none of the {len(choices)} options")
        answer = string.ascii_uppercase[choices.index(answer)]
    question = text_of(row.get("query"), "question") or _mathvista_query(row, choices)
    return Fields(question, answer, row_images(row), choices, "choice" if choices else "math")


def small_number(text: str) -> int | None:
    """What up to three digits say; ``None`` of any other text."""
    return int(text) if text.isdecimal() and len(text) < 4 else None


def _mathvista_query(row: Row, choices: tuple[str, ...]) -> str:
    question = text_of(row.get("question"), "question")
    if not question:
        return ""
    precision = text_of(row.get("precision"), "precision")
    kind = "text" if choices else text_of(row.get("answer_type"), "answer type")
    hint = _HINTS.get((kind, small_number(precision)))
    unit = text_of(row.get("unit"), "unit")
    lines = [] if hint is None else [f"Hint: Please {hint}, at the end."]
    lines.append(f"Question: {question}" + (f" (Unit: {unit})" if unit else ""))
    if choices:
        options = (f"({letter}) {choice}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False))
        lines += ["Choices:", *options]
    return "\n".join(lines)


def _mathverse(row: Row) -> Fields:
    question = text_of(row.get("question"), "question") or text_of(row.get("query_cot"), "question")
    answer = text_of(row.get("answer"), "answer").replace("\u63b3", "°")
    chosen = row.get("question_type") == "multi-choice"
    return Fields(question, answer, row_images(row), kind=_kind(answer, chosen))


def _wemath(row: Row) -> Fields:
    question, option = text_of(row.get("question"), "question"), text_of(row.get("option"), "option")
    answer = text_of(row.get("answer"), "answer")
    return Fields(f"{question}\n{option}".strip(), answer, row_images(row), kind="choice")


def _dynamath(row: Row) -> Fields:
    answer = text_of(row.get("ground_truth") if "ground_truth" in row else row.get("answer"), "answer")
    chosen = row.get("answer_type") == "multiple choice"
    return Fields(text_of(row.get("question"), "question"), answer, row_images(row), kind=_kind(answer, chosen))


def _logicvista(row: Row) -> Fields:
    answer = text_of(row.get("answer"), "answer")
    images = images_of(row.get("imagename"))
    return Fields(text_of(row.get("question"), "question"), answer, images, kind=_kind(answer, chosen=True))


def _pope(row: Row) -> Fields:
    answer = text_of(row.get("label"), "answer").capitalize()
    return Fields(text_of(row.get("text"), "question"), answer, row_images(row), kind="verdict")


def _kind(answer: str, chosen: bool) -> Kind:
    """``choice`` where the gold is a letter, as some golds of multiple-choice rows are not."""
    return "choice" if chosen and read_letters(answer) is not None else "math"


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """How the rows of a set are told from others, and read."""

    columns: frozenset[str]
    """Columns that all its rows have, and no other set together."""
    read: Callable[[Row], Fields]


PUBLISHED: Mapping[str, PublishedSet] = {
    "mathvista": PublishedSet(
        frozenset(("question", "choices", "question_type", "answer_type", "precision")), _mathvista
    ),
    "mathverse": PublishedSet(frozenset(("question", "problem_version", "question_type", "answer")), _mathverse),
    "wemath": PublishedSet(frozenset(("question", "option", "answer", "image_path", "knowledge concept")), _wemath),
    "dynamath": PublishedSet(frozenset(("question", "answer_type", "subject", "image")), _dynamath),
    "logicvista": PublishedSet(frozenset(("question", "imagename", "answer", "skill")), _logicvista),
    "pope": PublishedSet(frozenset(("question_id", "text", "label", "image")), _pope),
}
