r"""MathVision, or MATH-V (MathLLMs/MathVision, ``test``, 3,040 questions with one image each; specification Sec. 2.2).

Columns: ``id``, ``question``, ``options`` (none or five), ``answer`` (a letter or a short answer), ``level``,
``subject``, ``image`` (a path), on the hub ``decoded_image``. The question keeps its ``<image1>`` markers, which name
parts of its one picture; options follow as ``(A) text``. The authors' own instruction is not used: the suffix of
``chat.policy`` stands in its place, as in all sets of the paper.

reference the authors' comparison
rule      letter or option; numbers that agree when rounded to two decimals are equal
official  ``evaluate.py`` and ``utils.py``: extraction by phrases, then equality with the gold letter or the gold
          option's value, as strings or after rounding to two decimals. Departures: expressions are read by
          :func:`spark_rl.evals.arithmetic.value_of`, not by ``eval``; the gold is normalised as the answer is.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

from spark_rl.data.rows import RowError, text_of
from spark_rl.evals.arithmetic import value_of, within
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.rows import Row
from spark_rl.evals.scoring import by, reference
from spark_rl.evals.units import each
from spark_rl.evals.vision_rows import read_items, vision_item
from spark_rl.verify import extract_boxed

MAX_ANSWER = 2000
"""Longer extractions are no answer."""
PHRASES = ("final answer is", "answer is", "correct answer is", "answer should be")

_PHRASE = re.compile("|".join(f"[Tt]he {phrase}" for phrase in PHRASES))
_LETTER_START = re.compile(r"\(?([A-E])\)?\n")
_LETTER_END = re.compile(r" \(?([A-E])\)?\.$")
_DROPPED = re.compile(
    r"\\(?:text|mbox|left|right)(?![A-Za-z])|\^\{?\\circ\}?|\\[,!; ]|[$%\s]|\\%|\{?units\}?|\{km\}|km"
)
_SHORT_FRACTION = re.compile(r"\\[dt]?frac([0-9a-z])([0-9a-z])")
_SHORT_ROOT = re.compile(r"\\sqrt([0-9a-z])")
_SLASH = re.compile(r"([0-9]+)/([0-9]+)")
_LABEL = re.compile(r"[({]([a-e])[)}]")


def load(path: Path) -> list[Item]:
    """The items of ``test.jsonl`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, ("id", "question", "options", "answer"), _item)


def _item(row: Row) -> Item:
    options = row.get("options") or ()
    if not isinstance(options, list | tuple) or len(options) > 26:
        raise RowError("the options are not a list of at most 26")
    choices = tuple(text_of(option, "option") for option in options)
    letters = string.ascii_uppercase
    lines = [row.text("question"), *(f"({letter}) {text}" for letter, text in zip(letters, choices, strict=False))]
    return vision_item(
        "mathvision", row.text("id"), "\n".join(lines), row.text("answer"),
        row.image("decoded_image") if row.get("decoded_image") else row.image(),
        {"subject": row.optional("subject"), "level": row.optional("level")},
        kind="choice" if choices else "math", choices=choices,
    )  # fmt: skip


def rounds_alike(item: Item, answer: str) -> bool:
    """Whether answer and gold are numbers that agree when rounded to two decimals."""
    return _equal_values(answer, item.problem.answer)


def official(item: Item, response: str) -> Graded:
    """The set's own rules: the gold letter or the gold option's value."""
    answer = normalised(extract(response))
    if not answer:
        return Graded(0.0, None, "no_answer")
    gold, choices = item.problem.answer, item.problem.choices
    golds = [gold]
    if choices and gold in string.ascii_uppercase[: len(choices)]:
        golds.append(choices[string.ascii_uppercase.index(gold)])
    right = any(is_equal(answer, normalised(one)) for one in golds)
    return Graded(float(right), answer, "correct" if right else "wrong")


def extract(response: str) -> str:
    """The answer by the phrases of the set's script; the whole response if it has none."""
    text = response.strip()
    lettered = _LETTER_START.match(text) or _LETTER_END.search(text)
    if lettered:
        return lettered[1]
    last = text.split("is ")[-1].rstrip(".")
    if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", last.replace(",", "")):
        return last
    if "oxed{" in text:
        return extract_boxed(text) or ""
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        text = text[phrases[-1].end() :].strip().split("\n")[0].split(". ")[0]
    return text


def normalised(text: str) -> str:
    """In lower case, behind the last ``=``, without spaces, units and formatting, fractions in one spelling."""
    if len(text) > MAX_ANSWER:
        return ""
    inner = extract_boxed(text)
    text = (text if inner is None else inner).lower()
    text = re.split(r"=|\\approx", text)[-1]
    text = _DROPPED.sub("", text.replace("\\\\", "\\").replace("bmatrix", "pmatrix").replace("∞", r"\infty"))
    text = text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text))
    text = _LABEL.sub(r"\1", text) if _LABEL.fullmatch(text) else text
    text = text.rstrip(".").lstrip(":")
    if text == "0.5":
        return r"\frac{1}{2}"
    slash = _SLASH.fullmatch(text)
    return rf"\frac{{{slash[1]}}}{{{slash[2]}}}" if slash else text


def is_equal(one: str, other: str) -> bool:
    """The same string, or the same values to two decimals; tuples and lists element by element."""
    if not one or not other:
        return False
    if one == other:
        return True
    pieces = [text[1:-1].split(",") for text in (one, other) if text[:1] in "([" and text[-1:] in ")]"]
    if len(pieces) == 2 and (one[0], one[-1]) == (other[0], other[-1]) and len(pieces[0]) == len(pieces[1]) > 1:
        return all(left == right or _equal_values(left, right) for left, right in zip(*pieces, strict=True))
    return _equal_values(one, other)


def _equal_values(one: str, other: str) -> bool:
    left, right = value_of(one), value_of(other)
    return left is not None and right is not None and round(left, 2) == round(right, 2)


_ADD_UP = by("subject", "level")

BENCHMARK = Benchmark(
    name="mathvision",
    title="MathVision",
    group="math-vlm",
    source="https://huggingface.co/datasets/MathLLMs/MathVision, https://github.com/mathllm/MATH-V",
    licence="MIT",
    files=("vlm/mathvision/test.jsonl", "vlm/mathvision/test.json", "vlm/mathvision/test.parquet"),
    load=load,
    protocols={
        "reference": Protocol(reference, _ADD_UP),
        "rule": Protocol(within(rounds_alike), _ADD_UP),
        "official": Protocol(each(official), _ADD_UP),
    },
    published=3040,
)
