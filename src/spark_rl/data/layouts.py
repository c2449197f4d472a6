r"""Row layouts: how one row of a data file becomes a problem d = (q, a, I) (Sec. 3.1, Eq. 1).

========== ============================================================ ============================================
layout     row                                                          gold
========== ============================================================ ============================================
columns    a question, an answer, maybe options and images              the answer; a letter where there are options
message    the authors' release: ``message`` is a chat as a JSON string ``answer`` as written (``$3$`` stays so)
gsm8k      ``question`` and a worked ``answer``                         after the last ``####``, commas removed
simplerl   SimpleRL-Zoo, DAPO, Skywork and other verl files: ``prompt`` ``reward_model.ground_truth`` and kin
           and kin
(others)   published vision-language sets                               :mod:`spark_rl.data.published`
========== ============================================================ ============================================

What golds, options and formats of answers may look like: :mod:`.golds`, :mod:`.options`, :mod:`.formats`;
``docs/data.md`` has it all, with the sets that are known by their columns.

A question is stored raw: the answer-format suffix of the paper (A.2, Fig. 5) is taken off in every layout, because
``chat.policy`` adds it and the recyclers must not show it. Both variants found in the wild are known: ``'\boxed{}'.``
and ``'\boxed{}.'``.

Images go before the text. Where they stand inside it, as image parts between the text parts of a chat or as
``<image>`` markers of the data, the question keeps one marker for each.

Departures from the authors' release: one user turn is required instead of reading the first message whatever its role;
several images are allowed, anywhere; the ``max_pixels`` of single images in a message is ignored, ``chat.max_pixels``
holds for all; golds, options and answer formats are read by the three modules above instead of taken as they are.

Rows are untrusted: nothing here evaluates, unpickles or opens what a row names.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from spark_rl.config import ColumnsConfig
from spark_rl.data.formats import without_format
from spark_rl.data.golds import gold_texts, is_sentinel, printed_option
from spark_rl.data.options import (
    CHOICES,
    INDEXED,
    LETTERS,
    NO_OPTIONS,
    Options,
    first_number,
    inline_options,
    names_letters,
    right_option,
    row_options,
    with_options,
)
from spark_rl.data.published import PUBLISHED
from spark_rl.data.values import (
    IMAGES,
    PROMPT_CHATS,
    Fields,
    Row,
    RowError,
    chat_or_text,
    pick,
    row_images,
    text_of,
    usual_name,
    whole_question,
)
from spark_rl.errors import DataError
from spark_rl.verify.boxed import extract_boxed
from spark_rl.verify.letters import read_letters

Layout = Literal[
    "columns", "message", "gsm8k", "simplerl",
    "mathvista", "mathverse", "wemath", "dynamath", "logicvista", "pope",
]  # fmt: skip

QUESTION = ("question", "problem", "prompt", "query", "input", "instruction")
ANSWER = (
    "answer", "gold", "label", "target", "final_answer", "gt_answer", "answerkey", "answer_key", "correct_answer",
    "correct", "correct_option", "gold_answer", "reference_answer", "expected_answer", "ground_truth", "answers",
    "final_ans", "solution",
)  # fmt: skip
"""``solution`` comes last: in MATH it holds the whole worked solution, of which only the last box is the gold."""

FORMAT = "ask for an answer format of their own, which is taken off (chat.policy asks for the box)"
INDEX = "give the right option as a number, read as its position counted from"
"""What a source says once of rows that are read with an assumption."""

_VALID = {"problem_is_valid": ("yes",), "solution_is_valid": ("yes",)}
"""NuminaMath-1.5 and what is made from it say which of their own rows are whole."""
_PROOFS = ("question_type", "problem_type")
_ASKS_LETTER = re.compile(
    r"\b(?:option|answer|choice)(?:['’]s)?(?: option)? letters?\b|\bletters? (?:of|for|corresponding to) "
    r"(?:the |your )?(?:correct|right|best|chosen)"
    r"|\b(?:with|only|just|give|choose|select|state|write) (?:only )?(?:the |a |one )?"
    r"(?:single |correct |capital |corresponding )*letter\b|\bwhich letter\b"
    r"|\bA, ?B(?:, ?C)?(?:, ?D)?,? or [B-E]\b|\bA/B/C",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\$?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?\$?")
_SUFFIX = re.compile(
    r"Please first conduct reasoning, and then answer the question\.\s{0,8}"
    r"Repeat the final answer using a '\\{1,2}boxed\{\}(?:'\.|\.')$"
)
_QWEN_SUFFIX = re.compile(
    r"Please reason step by step, and put your final answer within \\{1,2}boxed(?:\{\}|\{\{\}\})\.?$"
)


Numbers = tuple[int | None, bool]
UNKNOWN: Numbers = (None, False)


def number_rule(rows: Iterable[Row], layout: Layout, columns: ColumnsConfig) -> Numbers:
    """What the first rows tell of golds that are numbers: what they are counted from, whether they are positions."""
    told: list[tuple[Options, Any]] = []
    for row in rows:
        if layout in PUBLISHED:
            break
        if row.keys() >= INDEXED:
            return 0, True
        try:
            told.append((row_options(_flat(row, columns), columns.choices), pick(row, columns.answer, ANSWER)))
        except RowError:
            continue
    return first_number(told)


def detect_layout(rows: Iterable[Row], columns: ColumnsConfig) -> Layout:
    """The layout of the first row that shows one, ``columns`` if none does.

    A named question or answer column speaks for plain columns, whose answers may still be GSM8K's.
    """
    unnamed = columns.question is None and columns.answer is None
    for row in rows:
        published = next((name for name, known in PUBLISHED.items() if known.columns <= row.keys()), None)
        if published is not None and unnamed:
            return cast("Layout", published)
        chat = next((name for name in PROMPT_CHATS if name in row), None)
        # a chat beside a plain question is somebody's answer to it
        alone = chat in {"message", columns.question} or usual_name(row, QUESTION) is None
        if chat is not None and columns.question in {None, chat} and alone:
            return "message"
        verl = isinstance(row.get("reward_model"), Mapping) or "gt_answer" in row
        if verl and unnamed:
            return "simplerl"
        answer = pick(row, columns.answer, ANSWER)
        if isinstance(answer, str) and _after_hashes(answer):
            return "gsm8k"
    return "columns"


def check_columns(
    rows: Iterable[Row], layout: Layout, columns: ColumnsConfig, source: str, *, answer: bool = True
) -> None:
    """Raises :class:`DataError` if a named column, or any column that could hold question or answer, is not there.

    Without ``answer`` there need be none for the answer.
    """
    present = list(dict.fromkeys(str(key) for row in rows for key in row))
    named = {role: name for role, name in columns.model_dump().items() if name is not None}
    for name in named.values():
        if name not in present:
            raise DataError(f"{source}: no column {name!r}; {_there_are(present, [name], present)}")
    if layout not in {"columns", "message", "gsm8k"}:
        return
    lowered = {name.lower() for name in present}
    spare = [name for name in present if name.lower() not in {*QUESTION, *ANSWER, *CHOICES, *IMAGES}]
    for role, usual in {"question": PROMPT_CHATS if layout == "message" else QUESTION, "answer": ANSWER}.items():
        if role not in named and lowered.isdisjoint(usual) and (answer or role != "answer"):
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


def _columns(row: Row, columns: ColumnsConfig, numbers: Numbers) -> Fields:
    _check_valid(row)
    row = _flat(row, columns)
    question, images = _asked(row, columns)
    options = row_options(row, columns.choices)
    gold = pick(row, columns.answer, ANSWER)
    if options.texts:
        return _chosen(question, gold, images, options, numbers)
    if columns.answer is None and usual_name(row, ANSWER) == "solution" and isinstance(gold, str):
        boxed = extract_boxed(gold)
        if boxed is None:
            raise RowError("no box in the solution, and no column of answers (data.columns.answer names one)")
        gold = boxed.strip()
    return _answered(question, gold, images)


def _message(row: Row, columns: ColumnsConfig, _numbers: Numbers) -> Fields:
    chat = pick(row, columns.question, PROMPT_CHATS)
    if isinstance(chat, str):
        try:
            chat = json.loads(chat)
        except (ValueError, RecursionError):
            raise RowError("message is not valid JSON") from None
    if not isinstance(chat, list):
        raise RowError("message is not a list of turns")
    question, images = chat_or_text(chat)
    return _answered(question, pick(row, columns.answer, ANSWER), images or row_images(row, columns.images))


def _gsm8k(row: Row, columns: ColumnsConfig, _numbers: Numbers) -> Fields:
    question, images = _asked(row, columns)
    worked = text_of(pick(row, columns.answer, ANSWER), "answer")
    if worked and "####" not in worked:
        raise RowError("no #### in the answer")
    return Fields(question, _after_hashes(worked), images)


def _simplerl(row: Row, columns: ColumnsConfig, _numbers: Numbers) -> Fields:
    extra, reward = (row.get(key) or {} for key in ("extra_info", "reward_model"))
    if not isinstance(extra, Mapping) or not isinstance(reward, Mapping):
        raise RowError("extra_info or reward_model is not an object")
    images: tuple[Any, ...] = ()
    questions = (row.get(columns.question or ""), extra.get("question"), row.get("question"))
    question = next((q for q in (text_of(q, "question") for q in questions) if q), "")
    if not question:
        question, images = chat_or_text(row.get("prompt"))
        question = _without_markup(question)
    golds = (row.get(columns.answer or ""), reward.get("ground_truth"), row.get("gt_answer"), extra.get("answer"))
    gold = next((gold for gold in golds if gold is not None), None)
    return _answered(_QWEN_SUFFIX.sub("", question).rstrip(), gold, images or row_images(row, columns.images))


_READERS: Mapping[str, Callable[[Row, ColumnsConfig, Numbers], Fields]] = {
    "columns": _columns,
    "message": _message,
    "gsm8k": _gsm8k,
    "simplerl": _simplerl,
}


def read_fields(row: Row, layout: Layout, columns: ColumnsConfig, numbers: Numbers = UNKNOWN) -> Fields:
    """What a row of a layout holds. Raises :class:`RowError` and ``UnreadableError``."""
    published = PUBLISHED.get(layout)
    return _READERS[layout](row, columns, numbers) if published is None else published.read(row)


def _asked(row: Row, columns: ColumnsConfig) -> tuple[str, tuple[Any, ...]]:
    """(question, images) of plain columns; a text that stands in a column of its own comes before the question."""
    question, images = chat_or_text(pick(row, columns.question, QUESTION))
    if columns.context is not None or columns.question is None:
        question = whole_question(row, question, columns.context)
    return question, images or row_images(row, columns.images)


def _flat(row: Row, columns: ColumnsConfig) -> Row:
    """A row whose question holds its options, ``{"stem": ..., "choices": [...]}`` as in ARC's own files, as columns."""
    usual = usual_name(row, QUESTION)
    name = columns.question or next((key for key in row if str(key).lower() == usual), "")
    asked = row.get(name)
    if not isinstance(asked, Mapping) or not isinstance(asked.get("stem"), str):
        return row
    held = asked.get("choices")
    return {**row, name: asked["stem"], **({} if held is None else {columns.choices or "choices": held})}


def _chosen(question: str, gold: Any, images: tuple[Any, ...], options: Options, numbers: Numbers) -> Fields:
    """The fields of a row with options."""
    first, counted = numbers
    if isinstance(gold, str):
        gold = _first_gold(gold, options)
    letter = right_option(gold, options, first, counted=counted)
    text = text_of(gold, "answer") if not isinstance(gold, list | tuple) else ""
    notes: tuple[tuple[str, str], ...] = ()
    if not options.labels and text not in options.texts and text.isdecimal() and _place(text, first) == letter:
        notes = ((f"{INDEX} {first or 0}", text),)
    asked = without_format(strip_suffix(question))
    notes = notes if not asked[1] else (*notes, (FORMAT, asked[1]))
    return Fields(with_options(asked[0], options.texts), letter, images, options.texts, notes=notes)


def _place(number: str, first: int | None) -> str:
    """The letter at a position."""
    at = int(number[:4]) - (first or 0)
    return LETTERS[at] if 0 <= at < len(LETTERS) else ""


def _first_gold(gold: str, options: Options) -> Any:
    """A gold that is a box, or a list written as text, as what it holds; what is an option's text stays."""
    if gold.strip() in options.texts:
        return gold
    golds = gold_texts(gold) if not is_sentinel(gold.strip()) else ()
    return list(golds) if len(golds) > 1 else _option_gold(golds[0]) if golds else ""


def _answered(question: str, gold: Any, images: tuple[Any, ...]) -> Fields:
    """The fields of a row without a column of options; they may stand in its question."""
    golds = gold_texts(gold)
    if not golds:
        return Fields(question, "", images)
    answer = golds[0]
    printed = printed_option(answer)
    letter = answer if len(answer) == 1 and answer.isupper() else printed[0] if printed is not None else ""
    lettered = names_letters(question)
    options = inline_options(question) if lettered else NO_OPTIONS
    if options.texts:
        letters = {right_option(_option_gold(each), options) for each in golds}
        if len(letters) > 1:
            raise RowError(f"the answers {', '.join(golds)[:40]} are {len(letters)} of the options in the question")
        return Fields(question, letters.pop(), images, options.texts)
    if len(golds) == 1 and letter and lettered:
        return Fields(question, letter, images, kind="choice")
    if not letter and read_letters(answer) is None and _NUMBER.fullmatch(answer) and _ASKS_LETTER.search(question):
        raise RowError(f"the question asks for a letter, and the answer is the number {answer[:20]!r}")
    accepted: list[str] = []
    for each in golds:
        option = printed_option(each)
        accepted += [each] if option is None else [text for text in (option[1], option[0]) if text]
    accepted = list(dict.fromkeys(accepted))
    return Fields(question, accepted[0], images, alternatives=tuple(accepted[1:]))


def _option_gold(gold: str) -> str:
    """A printed option as its letter with its text, so that the two are held against each other."""
    printed = printed_option(gold)
    if printed is None:
        return gold
    letter, text = printed
    return f"{letter}. {text}" if text else letter


def _check_valid(row: Row) -> None:
    """Raises :class:`RowError` for a row of which its own columns say that it has no answer to be compared."""
    for name, fine in _VALID.items():
        value = row.get(name)
        if isinstance(value, str) and value.strip() and value.strip().lower() not in fine:
            raise RowError(f"{name} is {value.strip()[:20]!r}")
    for name in _PROOFS:
        value = row.get(name)
        if isinstance(value, str) and value.strip().lower() == "proof":
            raise RowError(f"{name} is 'proof', which has no answer to compare")


def _without_markup(prompt: str) -> str:
    """The question inside a SimpleRL-Zoo prompt: ChatML (files ``qwen``) or ``Question: ... Answer:`` (``abel``)."""
    if "<|im_start|>user" in prompt:
        return prompt.rpartition("<|im_start|>user")[2].partition("<|im_end|>")[0].strip()
    if prompt.startswith("Question:"):
        body = prompt.removeprefix("Question:").rstrip().removesuffix("Let's think step by step.").rstrip()
        return body.removesuffix("Answer:").strip()
    return prompt


def _after_hashes(worked: str) -> str:
    """GSM8K's gold: what stands alone after the last ``####``, commas removed; empty if nothing does."""
    gold = worked.rpartition("####")[2].strip() if "####" in worked else ""
    return "" if "\n" in gold else gold.replace(",", "")
