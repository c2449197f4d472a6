r"""Scorers that many benchmarks share, and how their grades add up (Sec. 4.1; specification Sec. 7).

Two protocols, never mixed in a table:

========= =============================================================================================================
reference what the authors' scripts compute: the *first* box, :mod:`spark_rl.evals.reference`; no box is wrong
rule      ours, right and strict: the *last* balanced box, :meth:`spark_rl.verify.Verifier.verify_many`; letters and
          Yes/No are also read from a response without a readable box
========= =============================================================================================================

Departure from VLMEvalKit, whose order of reading letters :func:`read_letter` follows: an answer that can't be read is
wrong; none is drawn at random, and no model is asked.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from spark_rl.evals.benchmark import Adder, Graded, Item, mean_score
from spark_rl.evals.reference import first_box, same_text
from spark_rl.problem import Problem, Status, Verdict
from spark_rl.verify import Verifier, answer_part, extract_boxed
from spark_rl.verify.choice import compare_choice, read_letters
from spark_rl.verify.notation import MAX_LENGTH
from spark_rl.verify.verdict import YES_NO, compare_verdict, labels_of

ALSO_ACCEPT = "also_accept"
"""Key of ``Item.meta``: a list of further golds that ``reference`` takes for right, such as an option's text."""
LETTERS = "letters"
"""Key of ``Item.meta``: the option letters, ``"ABCD"``, where options are not in ``Problem.choices``."""

_BEST_FIRST: tuple[Status, ...] = ("correct", "timeout", "unparsable", "wrong")
USUAL_LETTERS = "ABCDE"
ALSO_WORDS = "AI"
"""Letters that are words as well."""
LAST_WORDS = 5
"""A letter without a box counts only this near to the end of the response."""

_FORMATTING = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|bf)(?![A-Za-z])|[{}$*]")
_LEADING = re.compile(r"[(\[]?([A-Z])([.):\] ]+)(.+)", re.DOTALL)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"(?i:\banswer(?: is|:)[:\s*$(\[]{0,8}(?:option |choice )?[$(\[]{0,3})([A-Z])(?![A-Za-z])")
_REFUSAL = re.compile(
    r"\b(?:sorry|unable to|(?:can't|can ?not) (?:answer|determine|help|choose|process))\b", re.IGNORECASE
)
"""In the last line: the letters named there are no choice."""
_PUNCTUATION = re.compile(r"[^\w\s]|_")


class _ContradictionError(ValueError):
    """A letter beside the text of another option."""


def reference(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
    """The authors' scoring: the first box against the gold, or against one of ``meta["also_accept"]``."""
    read = [first_box(response) for response in responses]
    accepted = [(*item.problem.golds, *item.meta.get(ALSO_ACCEPT, ())) for item in items]
    pairs = dict.fromkeys(
        (gold, found) for found, golds in zip(read, accepted, strict=True) if found is not None for gold in golds
    )
    quick = {pair for pair in pairs if max(map(len, pair)) <= MAX_LENGTH and same_text(pair[1], pair[0])}
    slow = [pair for pair in pairs if pair not in quick]
    told: dict[tuple[str, str], Status] = dict.fromkeys(quick, "correct")
    told |= zip(slow, verifier.compare_many([("reference", *pair) for pair in slow]), strict=True)
    return [
        Graded(0.0, None, "no_answer") if found is None else _graded([told[gold, found] for gold in golds], found)
        for found, golds in zip(read, accepted, strict=True)
    ]


def rule(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
    """Our scoring: the last balanced box by the problem's kind.

    Letters (kind ``choice``) and Yes/No (kind ``verdict``) that no box states are read by :func:`read_letter` and
    :func:`read_yes_no`. A problem without a gold answer is ``wrong`` whatever is said. What the
    model thinks is not read.
    """
    responses = [answer_part(response, verifier.config.thinking) for response in responses]
    asked = [(item, text) for item, text in zip(items, responses, strict=True) if item.problem.answer.strip()]
    verdicts = iter(verifier.verify_many([(t, i.problem.golds, i.problem.kind, i.problem.choices) for i, t in asked]))
    return [
        _by_rule(item, text, next(verdicts))
        if item.problem.answer.strip()
        else Graded(0.0, extract_boxed(text), "wrong")
        for item, text in zip(items, responses, strict=True)
    ]


def read_letter(response: str, options: Sequence[str] | str) -> str | None:
    r"""The option letter that a response states, or ``None``: first by its box, then by its last words.

    1. The last ``\boxed{}``, else the last ``<answer>``: a letter, an option's text, or a letter that begins it, as in
       ``B. 12``. Beside the text of another option a letter contradicts itself, and nothing is read.
    2. The one option letter that stands alone in the response, if it is among the last five words; else the letter
       behind the last "answer is".
    3. The one option whose text the response holds, if the response is at most twice as long as all options.

    ``A`` inside a sentence is taken for the article, unless "option", "choice" or "answer" stands before it.

    Args:
        options: the option texts in order A, B, C, ..., or the letters themselves, ``"ABCD"``, where texts are unknown.
    """
    texts: Sequence[str] = () if isinstance(options, str) else options
    letters = options if isinstance(options, str) else string.ascii_uppercase[: len(options)]
    try:
        stated = _from_content(_stated_content(response), letters, texts)
    except _ContradictionError:
        return None
    return stated or _from_words(response, letters) or _from_text(response, letters, texts)


def read_yes_no(text: str) -> str | None:
    """``Yes`` if the words of ``text`` hold yes and not no, ``No`` the other way round, else ``None`` (Sec. 7.4)."""
    words = set(_PUNCTUATION.sub(" ", text.lower()).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "Yes" if "yes" in words else "No"


def by(*keys: str, headline: Adder = mean_score) -> Adder:
    """The headline and, for each key of ``Item.meta``, the mean of every group: ``subject/algebra``.

    An item whose value is a list belongs to each group in it; one without a value to none.
    """

    def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
        return {**headline(items, grades), **{name: _mean(group) for name, group in _groups(items, grades, keys)}}

    return add_up


def mean_of_means(key: str) -> Adder:
    """The unweighted mean of the means of the groups by one key (macro average), with the groups."""

    def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
        means = {name: _mean(group) for name, group in _groups(items, grades, (key,))}
        return {"score": sum(means.values()) / len(means), **means} if means else {}

    return add_up


def letters_of(problem: Problem, meta: Mapping[str, object]) -> Sequence[str] | str:
    """What :func:`read_letter` wants: the options, else ``meta["letters"]``, else A to E and on to the gold letter."""
    if problem.choices:
        return problem.choices
    given = meta.get(LETTERS)
    if isinstance(given, str):
        return given
    last = max(USUAL_LETTERS[-1], *(read_letters(problem.answer) or ()))
    return string.ascii_uppercase[: string.ascii_uppercase.index(last) + 1]


def _graded(told: Sequence[Status | None], found: str) -> Graded:
    """One grade of the comparisons with every accepted gold: the best of them."""
    status: Status = next((status for status in _BEST_FIRST if status in told), "wrong")
    return Graded(float(status == "correct"), found, status)


def _by_rule(item: Item, response: str, verdict: Verdict) -> Graded:
    problem = item.problem
    if verdict.status in {"no_answer", "unparsable"}:
        if problem.kind == "choice":
            found = read_letter(response, letters_of(problem, item.meta))
            if found is not None:
                return _graded([compare_choice(gold, found, problem.choices) for gold in problem.golds], found)
        elif problem.kind == "verdict":
            found = read_yes_no(response) if labels_of(problem.answer) == YES_NO else read_letter(response, "AB")
            if found is not None:
                return _graded([compare_verdict(gold, found) for gold in problem.golds], found)
    return Graded(verdict.reward, verdict.extracted, verdict.status)


def _stated_content(response: str) -> str:
    boxed = extract_boxed(response)
    if boxed is not None:
        return boxed
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    return response[start + len("<answer>") : end] if start >= 0 else ""


def _from_content(content: str, letters: str, texts: Sequence[str]) -> str | None:
    """The letter of a box: as the verifier reads it, else the capital that begins it."""
    if not content.strip(" \t\r\n$"):
        return None
    for letter in letters:
        if compare_choice(letter, content, texts) == "correct":
            return letter
    leading = _LEADING.fullmatch(" ".join(_FORMATTING.sub("", content).split()))
    if leading is None or leading[1] not in letters:
        return None
    letter, separator, rest = leading.groups()
    others = (other for other in letters if other != letter)
    if texts and any(compare_choice(other, rest, texts) == "correct" for other in others):
        raise _ContradictionError
    is_word = letter in ALSO_WORDS and separator == " " and rest[0].islower()
    return None if is_word else str(letter)


def _from_words(response: str, letters: str) -> str | None:
    if _REFUSAL.search(response.rstrip().rpartition("\n")[2]):
        return None
    words = response.translate(_SEPARATORS).split()
    alone = {word for word in words if len(word) == 1 and word in letters}
    if len(alone) == 1:
        letter = alone.pop()
        place = len(words) - 1 - words[::-1].index(letter)
        last = place == len(words) - 1 or len(words) <= 3
        named = place > 0 and words[place - 1].lower() in {"option", "choice", "answer"}
        if place >= len(words) - LAST_WORDS and (letter not in ALSO_WORDS or last or named):
            return letter
    stated = _STATED.findall(response)
    return str(stated[-1]) if stated and stated[-1] in letters else None


def _from_text(response: str, letters: str, texts: Sequence[str]) -> str | None:
    plain = response.lower()
    if len(plain) > 2 * sum(map(len, texts)):
        return None
    held = [letter for letter, text in zip(letters, texts, strict=False) if _holds(plain, text.strip().lower())]
    return held[0] if len(held) == 1 else None


def _holds(text: str, part: str) -> bool:
    """Whether the part stands in the text, not inside a longer word or number."""
    return bool(part) and re.search(rf"(?<![\w.]){re.escape(part)}(?!\w)", text) is not None


def _groups(items: Sequence[Item], grades: Sequence[Graded], keys: Sequence[str]) -> list[tuple[str, list[float]]]:
    groups: dict[str, list[float]] = {}
    for key in keys:
        for item, grade in zip(items, grades, strict=True):
            value = item.meta.get(key)
            for name in value if isinstance(value, list | tuple) else () if value is None else (value,):
                groups.setdefault(f"{key}/{name}", []).append(grade.score)
    return sorted(groups.items())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
