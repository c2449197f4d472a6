r"""MathVision, or MATH-V (MathLLMs/MathVision, ``test``, 3,040 questions with one image each; specification Sec. 2.2).

Columns: ``id``, ``question``, ``options`` (none or five), ``answer`` (a letter or a short answer), ``level``,
``subject``, ``image`` (a path), on the hub ``decoded_image``. The question keeps its ``<image1>`` markers, which name
parts of its one picture; options follow as ``(A) text``. The authors' own instruction is not used: the suffix of
``chat.policy`` stands in its place, as in all sets of the paper.

reference the authors' comparison
rule      letter or option; numbers that agree when rounded to two decimals are equal
official  ``evaluate.py`` and ``utils.py``: extraction by phrases, then equality with the gold letter or the gold
          option's value, both as published, as strings or after rounding to two decimals. Departure: expressions are
          read by the verifier as far as latex2sympy reads them alike (:func:`plain_value`), and not evaluated by
          ``eval``; others (functions, factorials) are equal to nothing but the same string

Its own prompt asks for a box, so a letter without one does not count under ``rule``.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

from spark_rl.data.values import RowError, text_of
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import read_items, vision_item
from spark_rl.evals.score.scorers import by, reference, value_of, within
from spark_rl.evals.score.units import each
from spark_rl.verify.constant import number_value
from spark_rl.verify.notation import UnreadableError, match_groups

MAX_ANSWER = 2000
"""Longer extractions are no answer."""
PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")

_BOX = re.compile(r"oxed\{(.*)\}", re.DOTALL)
_DROPPED = (
    " ", r"\,", "\\\\", "\n", r"\text", r"\mbox", r"\left", r"\right", r"^{\circ}", r"^\circ", "{m}^3", "m^3",
    "{units}", "units", "{km}", "km",
)  # fmt: skip
_STRIPPED = (r"\!", r"\$", "$")
_NOT_WHOLE = ("/", ":", r"\frac", r"\sqrt", r"\pi", r"\div")
"""In an expression: its value is a float in Python, whole or not."""
_SPACED_BRACE = re.compile(r"\s*([{}])\s*")
_FRACTION = re.compile(r"\\[dt]?frac(?![A-Za-z])")
_BEFORE_FRACTION = re.compile(r"(?<=[0-9])\s*(?=\\[dt]?frac(?![A-Za-z]))")
_READ_ALIKE = re.compile(
    r"(?:(?:[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.(?!\()[0-9]*+)?+|\.[0-9]++)(?!\s+[0-9.])|[-+*/^(){}\[\]\s]"
    r"|\\sqrt(?=[{(\[])|\\(?:[dt]?frac|pi|times|cdot|left|right)(?![A-Za-z]))*+"
)
"""Expressions that latex2sympy and the verifier read alike: no letters, units, percent signs or degrees, no repeating
decimals, no two numbers with a space between them."""


def load(path: Path) -> list[Item]:
    """The items of ``test.jsonl`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, ("id", "question", "options", "answer"), _item)


def _item(entry: Entry) -> Item:
    options = entry.get("options") or ()
    if not isinstance(options, list | tuple) or len(options) > 26:
        raise RowError("the options are not a list of at most 26")
    choices = tuple(text_of(option, "option") for option in options)
    letters = string.ascii_uppercase
    lines = [entry.text("question"), *(f"({letter}) {text}" for letter, text in zip(letters, choices, strict=False))]
    return vision_item(
        "mathvision", entry.text("id"), "\n".join(lines), entry.text("answer"),
        entry.image("decoded_image") if entry.get("decoded_image") else entry.image(),
        {"subject": entry.optional("subject"), "level": entry.optional("level")},
        kind="choice" if choices else "math", choices=choices,
    )  # fmt: skip


def rounds_alike(item: Item, answer: str) -> bool:
    """Whether answer and gold are numbers that agree when rounded to two decimals."""
    return _equal_values(answer, item.problem.answer)


def official(item: Item, response: str) -> Graded:
    """The set's own rules: the gold letter or the gold option's value."""
    answer = extract(response)
    if not answer or len(answer) > MAX_ANSWER:
        return Graded(0.0, None, "no_answer")
    gold, choices = item.problem.answer, item.problem.choices
    golds = [gold]
    if choices and gold in string.ascii_uppercase[: len(choices)]:
        golds.append(choices[string.ascii_uppercase.index(gold)])
    right = any(is_equal(one, answer) for one in golds)
    return Graded(float(right), answer, "correct" if right else "wrong")


def extract(response: str) -> str:
    """The answer by the phrases of the set's script, normalised; the whole response if it has none of them."""
    text = response.strip()
    for letter in "ABCDE":
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(
            (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        ):
            text = letter
    last = text.split("is ")[-1].rstrip(".")
    if _is_number(last):
        text = last
    if "oxed{" not in text:
        for phrase in PHRASES:
            for spelling in (phrase, phrase.replace("the", "The")):
                _, found, behind = text.rpartition(spelling)
                text = behind.strip().split("\n")[0].split(". ")[0] if found else text.strip()
    elif text.count("oxed{") > 1:
        text = r"\boxed{" + text.rpartition("oxed{")[2]
    text = normalised(text)
    for opening, closing in ("()", "{}"):
        for letter in "abcde":
            text = text.replace(f"{opening}{letter}{closing}", letter)
    return text.rstrip(".").lstrip(":").strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def normalised(text: str) -> str:
    r"""``find_math_answer``: in lower case, from ``oxed{`` to the last brace, behind the last ``=``, unformatted.

    ``\text`` goes wherever it stands: of ``\textbf{B}`` is left ``bf{b}``.
    """
    text = text.lower().replace("{}", "")
    boxed = _BOX.findall(text)
    if boxed:
        text = boxed[-1]
    closing, opening = text.find("}"), text.find("{")
    if closing >= 0 and (opening < 0 or closing < opening):
        text = text.partition("}")[0]
    text = text.split("=")[-1].split(r"\approx")[-1]
    for dropped in _DROPPED:
        if dropped == "\\\\":
            text = text.replace("∞", r"\infty").replace(r"+\infty", r"\infty").replace("\\\\", "\\")
        elif dropped == r"\left":
            text = text.replace("bmatrix", "pmatrix").replace(dropped, "")
        else:
            text = text.replace(dropped, "")
    return _stripped(text)


def _stripped(text: str) -> str:
    """``_strip_string`` of what is left: dollars, percent signs, one spelling of fractions and roots."""
    text = text.replace(r"\!", "").replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac")
    for dropped in _STRIPPED:
        text = text.replace(dropped, "")
    text = text.replace(r"\%", "").replace("{.", "{0.")
    if text.startswith("."):
        text = f"0{text}"
    if "sqrt" in text:  # fractions are mended beside a root only
        text = _braced_fractions(_braced_roots(text))
    if text == "0.5":
        return r"\frac{1}{2}"
    above, slash, below = text.partition("/")
    try:
        whole = f"{int(above)}/{int(below)}" if slash else ""
    except ValueError:
        whole = ""
    return rf"\frac{{{int(above)}}}{{{int(below)}}}" if whole and whole == text else text


def _braced_roots(text: str) -> str:
    head, *rests = text.split(r"\sqrt")
    return head + "".join(
        rf"\sqrt{{{rest[0]}}}{rest[1:]}" if rest and rest[0] != "{" else rf"\sqrt{rest}" for rest in rests
    )


def _braced_fractions(text: str) -> str:
    head, *rests = text.split(r"\frac")
    pieces = [head]
    for rest in rests:
        if rest.startswith("{"):
            pieces.append(rest)
        elif len(rest) < 2:
            return text
        else:
            pieces.append(f"{{{rest[0]}}}" + (rest[1:] if rest[1] == "{" else f"{{{rest[1]}}}{rest[2:]}"))
    return r"\frac".join(pieces)


def is_equal(gold: str, answer: str) -> bool:
    """The same string but for case, or the same values to two decimals; tuples and lists element by element."""
    gold, answer = gold.lower(), answer.lower()
    if not gold.replace(" ", "") or not answer.replace(" ", ""):
        return False
    if gold.strip() == answer.strip() or _with_values(gold) == _with_values(answer):
        return True
    left, right = plain_value(gold), plain_value(answer)
    return left is not None and right is not None and round(left, 2) == round(right, 2)


def _with_values(text: str) -> str:
    """A tuple or list with its elements as Python writes their values: ``1``, but ``1.0`` for a quotient."""
    elements = text[1:-1].split(",")
    if len(elements) < 2 or (text[0], text[-1]) not in {("(", ")"), ("[", "]")}:
        return text
    found = []
    for element in elements:
        value = plain_value(element)
        if "infty" in element or element in {"a", "-a"}:
            found.append(element)
        elif value is None:
            return text
        elif value.is_integer() and not any(sign in element for sign in _NOT_WHOLE):
            found.append(str(int(value)))
        else:
            found.append(str(round(value, 2)))
    return f"{text[0]}{','.join(found)}{text[-1]}"


def plain_value(text: str) -> float | None:
    r"""The finite value of an expression as latex2sympy reads it; a unit, a percent sign or degrees are no part of one.

    ``1,000`` is 1000, ``1:2`` and ``1\div2`` are quotients, dollars are left out, ``2\frac12`` has no value and
    ``2\frac{1}{2}`` is a product. Reading ends before a bracket that closes nothing. Unlike latex2sympy's, the odd root
    of a negative number is real.
    """
    plain = _opened(text.replace("$", "").replace(":", "/").replace(r"\div", "/"))
    plain = _SPACED_BRACE.sub(r"\1", plain)
    if not _READ_ALIKE.fullmatch(plain) or not _fractions_are_braced(plain):
        return None
    return number_value(_BEFORE_FRACTION.sub(r"\\cdot ", plain))


def _opened(text: str) -> str:
    """The text before the first bracket that closes nothing."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in "({[") - (char in ")}]")
        if depth < 0:
            return text[:place]
    return text


def _fractions_are_braced(text: str) -> bool:
    """Whether both arguments of every fraction stand in braces."""
    try:
        closing = match_groups(text)
    except UnreadableError:
        return False
    return all(closing.get(fraction.end(), -1) + 1 in closing for fraction in _FRACTION.finditer(text))


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
