r"""Short answers in words: ``\boxed{Two}``, ``two.`` and ``2`` are the same (Sec. 4.1).

For golds that are neither letters nor mathematics, as a few of MMMU and RealWorldQA are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from spark_rl.evals.benchmark import Graded
from spark_rl.verify import extract_boxed

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*(?=\{)|[{}$*\"]")
LONGEST = 5
"""Words that an answer without a box may have; more is no short answer."""


def plain(text: str) -> str:
    """In lower case, without markup, surplus space and a period at the end, number words as digits."""
    words = _MARKUP.sub("", text).casefold().split()
    if words:
        words[-1] = words[-1].rstrip(".")
    return " ".join(_DIGITS.get(word, word) for word in words if word)


def grade_short(response: str, golds: Sequence[str]) -> Graded:
    """Whether the last box, or without one the whole response, is one of the golds."""
    boxed = extract_boxed(response)
    said = plain(response if boxed is None else boxed)
    if not said or (boxed is None and len(said.split()) > LONGEST):
        return Graded(0.0, boxed, "no_answer")
    right = said in {plain(gold) for gold in golds}
    return Graded(float(right), boxed if boxed is not None else response.strip(), "correct" if right else "wrong")
