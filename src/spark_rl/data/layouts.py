r"""Row layouts: how one row of a data file becomes a problem d = (q, a, I) (Sec. 3.1, Eq. 1).

========== ============================================================ ============================================
layout     row                                                          gold
========== ============================================================ ============================================
columns    a question, an answer, maybe options and images              the answer; a letter where there are options
message    the authors' release: ``message`` is a chat as a JSON string ``answer`` as written (``$3$`` stays so)
gsm8k      ``question`` and a worked ``answer``                         after the last ``####``, commas removed
simplerl   SimpleRL-Zoo and other verl files: ``prompt`` and kin        ``reward_model.ground_truth`` and kin
========== ============================================================ ============================================

A question is stored raw: the answer-format suffix of the paper (A.2, Fig. 5) is taken off in every layout, because
``chat.policy`` adds it and the recyclers must not show it. Both variants found in the wild are known: ``'\boxed{}'.``
and ``'\boxed{}.'``.

Departures from the authors' release: one user turn is required instead of reading the first message whatever its role;
several images are allowed; an answer that is nothing but ``\boxed{...}`` is unwrapped (ViRL39K).

Rows are untrusted: nothing here evaluates, unpickles or opens what a row names.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spark_rl.config import ColumnsConfig
from spark_rl.errors import UserError
from spark_rl.problem import Kind, Problem
from spark_rl.verify.boxed import extract_boxed, last_box_span
from spark_rl.verify.grade import grade

Layout = Literal["columns", "message", "gsm8k", "simplerl"]
Row = Mapping[str, Any]

QUESTION = ("question", "problem", "prompt", "query", "input")
ANSWER = ("answer", "gold", "label", "target", "final_answer", "gt_answer", "solution")
"""``solution`` comes last: in MATH it holds the whole worked solution, of which only the last box is the gold."""
CHOICES = ("choices", "options")
IMAGES = ("images", "image", "image_path")

_SUFFIX = re.compile(
    r"Please first conduct reasoning, and then answer the question\.\s{0,8}"
    r"Repeat the final answer using a '\\{1,2}boxed\{\}(?:'\.|\.')$"
)
_QWEN_SUFFIX = re.compile(
    r"Please reason step by step, and put your final answer within \\{1,2}boxed(?:\{\}|\{\{\}\})\.?$"
)
_PLACES = re.compile(r"^(?:<image>\s*)+")
"""Where images go, at the start of a question of ViRL39K; the chat format has its own places for them."""
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


class DataError(UserError):
    """A mistake in the data or in how it is named, in one line: what is wrong, where, and how to mend it."""


class RowError(ValueError):
    """Why one row is not usable, as a short phrase. The loader counts it and goes on."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """What every layout must find in a row."""

    question: str
    answer: str
    images: tuple[Any, ...] = ()
    choices: tuple[str, ...] = ()


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
    fields = _READERS[layout](row, columns)
    question = strip_suffix(fields.question)
    if not question:
        raise RowError("no question")
    if not fields.answer:
        raise RowError("empty answer")
    if fields.choices:
        options = (f"({letter}) {text}" for letter, text in zip(string.ascii_uppercase, fields.choices, strict=False))
        question = "\n".join((question, *options))
    if kind == "auto":
        kind = "choice" if fields.choices else "math"
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
    for row in rows:
        if columns.question in {None, "message"} and "message" in row:
            return "message"
        verl = isinstance(row.get("reward_model"), Mapping) or "gt_answer" in row
        if verl and columns.question is None and columns.answer is None:
            return "simplerl"
        answer = _pick(row, columns.answer, ANSWER)
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
    if layout == "simplerl":
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


def _columns(row: Row, columns: ColumnsConfig) -> _Fields:
    question, images = _chat_or_text(_pick(row, columns.question, QUESTION))
    images = (*images, *_images(_pick(row, columns.images, IMAGES)))
    if images:
        question = _PLACES.sub("", question)
    choices = _choices(_pick(row, columns.choices, CHOICES))
    gold = _pick(row, columns.answer, ANSWER)
    if choices:
        return _Fields(question, _letter(gold, choices), images, choices)
    answer = _text(gold, "answer")
    if columns.answer is None and _usual_name(row, ANSWER) == "solution":
        boxed = extract_boxed(answer)
        if boxed is None:
            raise RowError("no box in the solution, and no column of answers")
        answer = boxed.strip()
    return _Fields(question, _unwrap(answer), images)


def _message(row: Row, columns: ColumnsConfig) -> _Fields:
    chat = _pick(row, columns.question, ("message",))
    if isinstance(chat, str):
        try:
            chat = json.loads(chat)
        except (ValueError, RecursionError):
            raise RowError("message is not valid JSON") from None
    if not isinstance(chat, list):
        raise RowError("message is not a list of turns")
    question, images = _chat_or_text(chat)
    return _Fields(question, _text(_pick(row, columns.answer, ANSWER), "answer"), images)


def _gsm8k(row: Row, columns: ColumnsConfig) -> _Fields:
    question, images = _chat_or_text(_pick(row, columns.question, QUESTION))
    worked = _text(_pick(row, columns.answer, ANSWER), "answer")
    if worked and "####" not in worked:
        raise RowError("no #### in the answer")
    return _Fields(question, _after_hashes(worked), images)


def _simplerl(row: Row, columns: ColumnsConfig) -> _Fields:
    extra, reward = (row.get(key) or {} for key in ("extra_info", "reward_model"))
    if not isinstance(extra, Mapping) or not isinstance(reward, Mapping):
        raise RowError("extra_info or reward_model is not an object")
    questions = (row.get(columns.question or ""), extra.get("question"), row.get("question"))
    question = next((q for q in (_text(q, "question") for q in questions) if q), "")
    if not question:
        question = _without_markup(_chat_or_text(row.get("prompt"))[0])
    golds = (row.get(columns.answer or ""), reward.get("ground_truth"), row.get("gt_answer"), extra.get("answer"))
    answer = _text(next((gold for gold in golds if gold is not None), None), "answer")
    return _Fields(_QWEN_SUFFIX.sub("", question).rstrip(), answer, _images(_pick(row, columns.images, IMAGES)))


_READERS: Mapping[Layout, Callable[[Row, ColumnsConfig], _Fields]] = {
    "columns": _columns,
    "message": _message,
    "gsm8k": _gsm8k,
    "simplerl": _simplerl,
}


def _without_markup(prompt: str) -> str:
    """The question inside a SimpleRL-Zoo prompt: ChatML (files ``qwen``) or ``Question: ... Answer:`` (``abel``)."""
    if "<|im_start|>user" in prompt:
        return prompt.rpartition("<|im_start|>user")[2].partition("<|im_end|>")[0].strip()
    if prompt.startswith("Question:"):
        body = prompt.removeprefix("Question:").rstrip().removesuffix("Let's think step by step.").rstrip()
        return body.removesuffix("Answer:").strip()
    return prompt


def _usual_name(row: Row, usual: Sequence[str]) -> str | None:
    lowered = {str(key).lower() for key in row}
    return next((name for name in usual if name in lowered), None)


def _pick(row: Row, named: str | None, usual: Sequence[str]) -> Any:
    """The value of the named column, or of the first usual one, whatever its case."""
    if named is not None:
        return row.get(named)
    name = _usual_name(row, usual)
    return next((value for key, value in row.items() if str(key).lower() == name), None) if name else None


def _text(value: Any, what: str) -> str:
    """A scalar as stripped text: ``27.0`` is ``27``, null and NaN are empty, a list of scalars is joined by commas."""
    if value is None:
        return ""
    if isinstance(value, str):
        # lone surrogates are legal in JSON and fatal in every tokenizer
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple) and not any(isinstance(item, list | tuple) for item in value):
        return ", ".join(_text(item, what) for item in value)
    raise RowError(f"the {what} is a {type(value).__name__}, not text or a number")


def _chat_or_text(value: Any) -> tuple[str, tuple[Any, ...]]:
    """(text, images) of a question given as text or as a chat with one user turn of text and image parts."""
    if not isinstance(value, list | tuple):
        return _text(value, "question"), ()
    turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
    if len(turns) != 1:
        raise RowError(f"the chat has {len(turns)} user turns, not one")
    content = turns[0].get("content")
    if not isinstance(content, list | tuple):
        return _text(content, "question"), ()
    texts: list[str] = []
    images: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(_text(part.get("text"), "question"))
        elif kind == "image":
            images.extend(_images(part.get("image")))
        else:
            raise RowError(f"the chat has a part of type {kind!r}, neither text nor image")
    return "\n".join(text for text in texts if text), tuple(images)


def _images(value: Any) -> tuple[Any, ...]:
    """Images as paths, bytes or image objects; a hub image column holds ``{"bytes": ..., "path": ...}``."""
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return tuple(image for item in value for image in _images(item))
    if isinstance(value, Mapping):
        return _images(value.get("bytes") or value.get("path"))
    return (value.removeprefix("file://"),) if isinstance(value, str) else (value,)


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
    return tuple(_text(option, "option") for option in value)


def _letter(gold: Any, choices: Sequence[str]) -> str:
    """The letter of the right option, from a 0-based index, a letter, or the option's own text."""
    letters = string.ascii_uppercase[: len(choices)]
    if isinstance(gold, int) and not isinstance(gold, bool):
        if 0 <= gold < len(choices):
            return letters[gold]
        raise RowError(f"answer {gold} is not an index 0..{len(choices) - 1} into the options")
    text = _text(gold, "answer")
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
    return (extract_boxed(answer) or "").strip() if last_box_span(answer) == (0, len(answer)) else answer
