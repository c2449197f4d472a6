r"""Row layouts: how one row of a data file becomes a problem d = (q, a, I) (Sec. 3.1, Eq. 1).

========== ============================================================ ============================================
layout     row                                                          gold
========== ============================================================ ============================================
columns    a question, an answer, maybe options and images              the answer; a letter where there are options
message    the authors' release: ``message`` is a chat as a JSON string ``answer`` as written (``$3$`` stays so)
gsm8k      ``question`` and a worked ``answer``                         after the last ``####``, commas removed
simplerl   SimpleRL-Zoo and other verl files: ``prompt`` and kin        ``reward_model.ground_truth`` and kin
(others)   published vision-language sets                               :mod:`spark_rl.data.published`
========== ============================================================ ============================================

A question is stored raw: the answer-format suffix of the paper (A.2, Fig. 5) is taken off in every layout, because
``chat.policy`` adds it and the recyclers must not show it. Both variants found in the wild are known: ``'\boxed{}'.``
and ``'\boxed{}.'``.

Images go before the text. Where they stand inside it, as image parts between the text parts of a chat or as
``<image>`` markers of the data, the question keeps one marker for each.

Departures from the authors' release: one user turn is required instead of reading the first message whatever its role;
several images are allowed, anywhere; the ``max_pixels`` of single images in a message is ignored, ``chat.max_pixels``
holds for all; an answer that is nothing but ``\boxed{...}`` is unwrapped, and one whose box never closes is an error
(ViRL39K has both).

Rows are untrusted: nothing here evaluates, unpickles or opens what a row names.
"""

from __future__ import annotations

import difflib
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from spark_rl.config import ColumnsConfig
from spark_rl.data.published import PUBLISHED
from spark_rl.data.rows import (
    IMAGES,
    Fields,
    Row,
    RowError,
    chat_or_text,
    pick,
    place_images,
    row_images,
    text_of,
    usual_name,
)
from spark_rl.errors import UserError
from spark_rl.problem import Kind, Problem
from spark_rl.verify.boxed import extract_boxed, last_box_span
from spark_rl.verify.grade import grade

Layout = Literal[
    "columns", "message", "gsm8k", "simplerl",
    "mathvista", "mathverse", "wemath", "dynamath", "logicvista", "pope",
]  # fmt: skip

QUESTION = ("question", "problem", "prompt", "query", "input")
ANSWER = ("answer", "gold", "label", "target", "final_answer", "gt_answer", "solution")
"""``solution`` comes last: in MATH it holds the whole worked solution, of which only the last box is the gold."""
CHOICES = ("choices", "options")

_SUFFIX = re.compile(
    r"Please first conduct reasoning, and then answer the question\.\s{0,8}"
    r"Repeat the final answer using a '\\{1,2}boxed\{\}(?:'\.|\.')$"
)
_QWEN_SUFFIX = re.compile(
    r"Please reason step by step, and put your final answer within \\{1,2}boxed(?:\{\}|\{\{\}\})\.?$"
)
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


class DataError(UserError):
    """A mistake in the data or in how it is named, in one line: what is wrong, where, and how to mend it."""


def read_row(row: Any, layout: Layout, columns: ColumnsConfig, kind: Kind | Literal["auto"], source: str) -> Problem:
    r"""One row as a problem with an empty id, which the loader fills in.

    ``{"problem": "1+1?", "choices": ["3", "2"], "answer": 1}`` becomes a problem of kind ``choice`` with the question
    ``1+1?\n(A) 3\n(B) 2`` and the answer ``B``.

    Raises:
        RowError: the row has no question, no gold answer that the verifier can use, or values that can't be read as
            such.
    """
    if not isinstance(row, Mapping):
        raise RowError("not an object with named columns")
    fields = PUBLISHED[layout].read(row) if layout in PUBLISHED else _READERS[layout](row, columns)
    question = place_images(strip_suffix(fields.question), fields.images)
    if not question:
        raise RowError("no question")
    if not fields.answer:
        raise RowError("empty answer")
    if kind == "auto":
        kind = fields.kind or ("choice" if fields.choices else "math")
    try:
        grade("", fields.answer, kind, fields.choices)
    except ValueError as error:
        raise RowError(str(error)) from None
    return Problem(
        id="", question=question, answer=fields.answer, kind=kind, images=fields.images, choices=fields.choices,
        source=source,
    )  # fmt: skip


def detect_layout(rows: Iterable[Row], columns: ColumnsConfig) -> Layout:
    """The layout of the first row that shows one, ``columns`` if none does.

    A named question or answer column speaks for plain columns, whose answers may still be GSM8K's.
    """
    unnamed = columns.question is None and columns.answer is None
    for row in rows:
        published = next((name for name, known in PUBLISHED.items() if known.columns <= row.keys()), None)
        if published is not None and unnamed:
            return cast("Layout", published)
        if columns.question in {None, "message"} and "message" in row:
            return "message"
        verl = isinstance(row.get("reward_model"), Mapping) or "gt_answer" in row
        if verl and unnamed:
            return "simplerl"
        answer = pick(row, columns.answer, ANSWER)
        if isinstance(answer, str) and _after_hashes(answer):
            return "gsm8k"
    return "columns"


def check_columns(rows: Iterable[Row], layout: Layout, columns: ColumnsConfig, source: str) -> None:
    """Raises :class:`DataError` if a named column, or any column that could hold question or answer, is not there."""
    present = list(dict.fromkeys(str(key) for row in rows for key in row))
    named = {role: name for role, name in columns.model_dump().items() if name is not None}
    for name in named.values():
        if name not in present:
            raise DataError(f"{source}: no column {name!r}; {_there_are(present, [name], present)}")
    if layout not in {"columns", "message", "gsm8k"}:
        return
    lowered = {name.lower() for name in present}
    spare = [name for name in present if name.lower() not in {*QUESTION, *ANSWER, *CHOICES, *IMAGES}]
    for role, usual in {"question": ("message",) if layout == "message" else QUESTION, "answer": ANSWER}.items():
        if role not in named and lowered.isdisjoint(usual):
            raise DataError(
                f"{source}: no column for the {role} ({', '.join(usual)}); {_there_are(present, usual, spare)}; "
                f"name it with data.columns.{role}"
            )


def _there_are(present: Sequence[str], wanted: Sequence[str], candidates: Sequence[str]) -> str:
    """The columns there are, and the candidate nearest to a wanted one."""
    close = [near for name in wanted for near in difflib.get_close_matches(name, candidates, n=1)]
    return f"there are: {', '.join(present) or 'none'}" + (f"; did you mean {close[0]!r}?" if close else "")


def strip_suffix(question: str) -> str:
    """The question without surrounding space and without the paper's answer-format suffix, in either variant."""
    return _SUFFIX.sub("", question.strip()).rstrip()


def _columns(row: Row, columns: ColumnsConfig) -> Fields:
    question, images = chat_or_text(pick(row, columns.question, QUESTION))
    images = images or row_images(row, columns.images)
    choices = _choices(pick(row, columns.choices, CHOICES))
    gold = pick(row, columns.answer, ANSWER)
    if choices:
        question = _with_options(strip_suffix(question), choices)
        return Fields(question, _letter(gold, choices), images, choices)
    answer = text_of(gold, "answer")
    if columns.answer is None and usual_name(row, ANSWER) == "solution":
        boxed = extract_boxed(answer)
        if boxed is None:
            raise RowError("no box in the solution, and no column of answers")
        answer = boxed.strip()
    return Fields(question, _unwrap(answer), images)


def _message(row: Row, columns: ColumnsConfig) -> Fields:
    chat = pick(row, columns.question, ("message",))
    if isinstance(chat, str):
        try:
            chat = json.loads(chat)
        except (ValueError, RecursionError):
            raise RowError("message is not valid JSON") from None
    if not isinstance(chat, list):
        raise RowError("message is not a list of turns")
    question, images = chat_or_text(chat)
    images = images or row_images(row, columns.images)
    return Fields(question, text_of(pick(row, columns.answer, ANSWER), "answer"), images)


def _gsm8k(row: Row, columns: ColumnsConfig) -> Fields:
    question, images = chat_or_text(pick(row, columns.question, QUESTION))
    images = images or row_images(row, columns.images)
    worked = text_of(pick(row, columns.answer, ANSWER), "answer")
    if worked and "####" not in worked:
        raise RowError("no #### in the answer")
    return Fields(question, _after_hashes(worked), images)


def _simplerl(row: Row, columns: ColumnsConfig) -> Fields:
    extra, reward = (row.get(key) or {} for key in ("extra_info", "reward_model"))
    if not isinstance(extra, Mapping) or not isinstance(reward, Mapping):
        raise RowError("extra_info or reward_model is not an object")
    images: tuple[Any, ...] = ()
    questions = (row.get(columns.question or ""), extra.get("question"), row.get("question"))
    question = next((q for q in (text_of(q, "question") for q in questions) if q), "")
    if not question:
        question, images = chat_or_text(row.get("prompt"))
        question = _without_markup(question)
    images = images or row_images(row, columns.images)
    golds = (row.get(columns.answer or ""), reward.get("ground_truth"), row.get("gt_answer"), extra.get("answer"))
    answer = text_of(next((gold for gold in golds if gold is not None), None), "answer")
    return Fields(_QWEN_SUFFIX.sub("", question).rstrip(), answer, images)


_READERS: Mapping[str, Callable[[Row, ColumnsConfig], Fields]] = {
    "columns": _columns,
    "message": _message,
    "gsm8k": _gsm8k,
    "simplerl": _simplerl,
}


def _with_options(question: str, choices: Sequence[str]) -> str:
    """The question with a line for each option, unless the options are only the letters of what the picture shows."""
    letters = string.ascii_uppercase[: len(choices)]
    if not question or list(choices) == list(letters):
        return question
    return "\n".join((question, *(f"({letter}) {text}" for letter, text in zip(letters, choices, strict=True))))


def _without_markup(prompt: str) -> str:
    """The question inside a SimpleRL-Zoo prompt: ChatML (files ``qwen``) or ``Question: ... Answer:`` (``abel``)."""
    if "<|im_start|>user" in prompt:
        return prompt.rpartition("<|im_start|>user")[2].partition("<|im_end|>")[0].strip()
    if prompt.startswith("Question:"):
        body = prompt.removeprefix("Question:").rstrip().removesuffix("Let's think step by step.").rstrip()
        return body.removesuffix("Answer:").strip()
    return prompt


def _choices(value: Any) -> tuple[str, ...]:
    """Option texts; ARC-like files hold ``{"text": [...], "label": [...]}``."""
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple):
        raise RowError("the options are not a list")
    if len(value) > len(string.ascii_uppercase):
        raise RowError(f"{len(value)} options are more than there are letters")
    return tuple(text_of(option, "option") for option in value)


def _letter(gold: Any, choices: Sequence[str]) -> str:
    """The letter of the right option, from a 0-based index, a letter, or the option's own text."""
    letters = string.ascii_uppercase[: len(choices)]
    if isinstance(gold, int) and not isinstance(gold, bool):
        if 0 <= gold < len(choices):
            return letters[gold]
        raise RowError(f"answer {gold} is not an index 0..{len(choices) - 1} into the options")
    text = text_of(gold, "answer")
    if not text:
        return ""
    letter = _LETTER.fullmatch(text)
    if letter and letter[1].upper() in letters:
        return letter[1].upper()
    if text in choices:
        return letters[choices.index(text)]
    if text.isdecimal() and int(text) < len(choices):
        return letters[int(text)]
    raise RowError(f"answer {text[:40]!r} is neither a letter nor one of the {len(choices)} options")


def _after_hashes(worked: str) -> str:
    """GSM8K's gold: what stands alone after the last ``####``, commas removed; empty if nothing does."""
    gold = worked.rpartition("####")[2].strip() if "####" in worked else ""
    return "" if "\n" in gold else gold.replace(",", "")


def _unwrap(answer: str) -> str:
    """An answer that is one box and nothing else, without the box."""
    if last_box_span(answer) == (0, len(answer)):
        return (extract_boxed(answer) or "").strip()
    braces = re.sub(r"\\[\\{}]", "", answer)
    if answer.startswith("\\boxed") and braces.count("{") != braces.count("}"):
        raise RowError("unbalanced braces in the box of the answer")
    return answer
