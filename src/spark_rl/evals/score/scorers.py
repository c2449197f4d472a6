r"""Scorers that many benchmarks share, and how their grades add up (Sec. 4.1; specification Sec. 7).

Two protocols, never mixed in a table:

========= =============================================================================================================
reference what the authors' scripts compute: the *first* box, :mod:`spark_rl.evals.score.reference`; no box is wrong
rule      ours, right and strict: the *last* balanced box, :meth:`spark_rl.verify.Verifier.verify_many`. Where a
          benchmark's own prompt asks for no box, :func:`unboxed` reads letters and Yes/No from a response without one;
          where it has a tolerance, :func:`within` adds that
========= =============================================================================================================

Letters in boxes and without are read by :mod:`spark_rl.verify.choice`. A box that can't be read is ``unparsable``,
whatever else the response says.

Departures from VLMEvalKit, whose order of reading letters :func:`read_letter` follows: an answer that can't be read is
wrong; none is drawn at random, and no model is asked. A letter near the end counts only where it is said to be the
answer, or fills its line: ``(street B)`` is no letter.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence

from spark_rl.evals.benchmark import Adder, Graded, Item, Scorer, mean_score
from spark_rl.evals.score.reference import first_box, same_text
from spark_rl.problem import Problem, Status, Verdict
from spark_rl.verify import Verifier, answer_part, extract_boxed
from spark_rl.verify.choice import options_spelled, stated_choice
from spark_rl.verify.constant import number_value
from spark_rl.verify.letters import read_letters
from spark_rl.verify.notation import MAX_LENGTH
from spark_rl.verify.verdict import YES_NO, labels_of

ALSO_ACCEPT = "also_accept"
"""Key of ``Item.meta``: a list of further golds that ``reference`` takes for right, such as an option's text."""
LETTERS = "letters"
"""Key of ``Item.meta``: the option letters, ``"ABCD"``, where options are not in ``Problem.choices``."""

_BEST_FIRST: tuple[Status, ...] = ("correct", "timeout", "unparsable", "wrong")
USUAL_LETTERS = "ABCDE"

_TAGS = ("<answer>", "</answer>")
_ONE = r"(?:\\[a-z]+\{|[(\[*_$`\"'])*[A-Z](?![A-Za-z0-9])[)\]}*_$`\"']*"
_STATED = re.compile(
    rf"""(?:(?i:\b(?:answers?|options?|choices?|letters?)\b(?:\**:|\ (?:is|are|would\ be|must\ be|should\ be)\b|=)
            |\b(?:it(?:'s|\ is)|must\ be|should\ be|answer|option|choice|choose|chose|pick|select|selected)\b
            |\bis\b(?=[^\n]{{0,12}}\Z))
        |答案(?:是|为)?|故?选择?|选项)
        [:\s*_>]{{0,8}}(?i:(?:most\ likely\ |the\ )?(?:options?|choices?|letters?|answer)\ (?:is\ )?)?
        ({_ONE}(?:(?:\s*[,、/&]\s*|\s+(?:and|or)\s+|\s*,\ (?:and|or)\s+){_ONE})*+)""",
    re.VERBOSE,
)
"""What is said to be the answer: ``the answer is (B)``, ``option B``, ``it is B``, ``is B.`` at the very end."""
_GOES_ON = re.compile(
    r"[.,;:!。，；）)\]*\s]*(?:\Z|[.,;:!。，；)\]]|\s*(?:because|since|as|for|"
    r"is (?:the )?(?:correct|right|best|true|answer)|with|which|where|from|matches|and|项)(?![A-Za-z]))"
)
"""Behind a letter that stands for an option; before a noun or a verb it may be a word or a name."""
_TAKEN_BACK = re.compile(
    r"[\s.,;:)\]}*$]*(?:(?:or|not|nor|but|maybe|perhaps|and not)\b|(?:is|are|was|isn't|seems|looks)\b[^.\n]*"
    r"\b(?:not|n't|wrong|incorrect|false)\b|\?)",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"(?:\b(?:not|never|nor|neither|cannot|isn't|can't|no)\b|n't\b)[^.\n]*\Z", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:sorry|unable to|(?:can't|can ?not) (?:answer|determine|help|choose|process))\b", re.IGNORECASE
)
"""In the last line: the letters named there are no choice."""
_LAST_SIGN = re.compile(r"=|≈|\\approx")
_PUNCTUATION = re.compile(r"[^\w\s]|_")


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
    """Our scoring: the last balanced box by the problem's kind, outside what the model thinks.

    Without a gold answer whatever is said is ``wrong``.
    """
    responses = [answer_part(response, verifier.config.thinking) for response in responses]
    asked = [(item, text) for item, text in zip(items, responses, strict=True) if item.problem.answer.strip()]
    verdicts = iter(verifier.verify_many([(t, i.problem.golds, i.problem.kind, i.problem.choices) for i, t in asked]))
    return [
        _graded_by(next(verdicts)) if item.problem.answer.strip() else Graded(0.0, extract_boxed(text), "wrong")
        for item, text in zip(items, responses, strict=True)
    ]


def within(same: Callable[[Item, str], bool]) -> Scorer:
    """The shared ``rule``, or the benchmark's own tolerance.

    Args:
        same: whether a box that ``rule`` does not call right is right for this item after all. Never asked about
            multiple choice.
    """

    def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
        grades = []
        for item, response, grade in zip(items, responses, rule(items, responses, verifier), strict=True):
            boxed = extract_boxed(response)
            asked = grade.status != "correct" and item.problem.kind != "choice" and boxed is not None
            grades.append(Graded(1.0, boxed, "correct") if asked and same(item, boxed or "") else grade)
        return grades

    return score


def value_of(text: str) -> float | None:
    """The number that an answer states, behind its last ``=`` or ``≈`` and without its unit; ``None`` for no number.

    ``x = 50%`` is 50, as :func:`spark_rl.verify.constant.number_value` has it.
    """
    return number_value(_LAST_SIGN.split(text)[-1], units=True)


def unboxed(scorer: Scorer) -> Scorer:
    """The scorer, for models that were not asked for a box: what a response without one states is taken for its box.

    Letters (kind ``choice``) are read by :func:`read_letter`, Yes/No (kind ``verdict``) by :func:`read_yes_no`.
    """

    def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
        said = [answer_part(response, verifier.config.thinking) for response in responses]
        return scorer(items, [_boxed(*pair) for pair in zip(items, said, strict=True)], verifier)

    return score


def read_letter(response: str, options: Sequence[str] | str) -> str | None:
    r"""The option letter that a response states, or ``None``: by its box, else by what it says.

    1. The last ``\boxed{}``, else the last ``<answer>``, read as :func:`spark_rl.verify.choice.compare_choice` does.
       What they hold is the answer, be it readable or not.
    2. The last letter that is said to be the answer, as in "the answer is (B)", or that fills the last line, alone or
       with its text. One that is taken back, or one of several, is none.
    3. The one option whose text the response holds, if the response is at most twice as long as all options.

    Args:
        options: the option texts in order A, B, C, ..., or the letters themselves, ``"ABCD"``, where texts are unknown.
    """
    stated = read_stated(response, options)
    return next(iter(stated)) if stated is not None and len(stated) == 1 else None


def read_stated(response: str, options: Sequence[str] | str, *, several: bool = False) -> frozenset[str] | None:
    """The letters that a response states as its answer, read as :func:`read_letter` does; ``None`` if there are none.

    With ``several`` the question may have several right letters.
    """
    texts: Sequence[str] = () if isinstance(options, str) else options
    letters = options if isinstance(options, str) else string.ascii_uppercase[: len(options)]
    content = _stated_content(response)
    if content is not None:
        found = stated_choice(content, texts, several=several)
    else:
        found = _from_words(response, texts, several=several)
        if found is None:
            found = _from_text(response, letters, texts)
    return found if found and found <= set(letters) else None


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


def _graded_by(verdict: Verdict) -> Graded:
    return Graded(verdict.reward, verdict.extracted, verdict.status)


def _boxed(item: Item, response: str) -> str:
    """The response, with a box around what it states if it has none."""
    boxed = extract_boxed(response)
    if boxed is not None and boxed.strip(" \t\r\n$"):
        return response
    problem = item.problem
    stated: str | None = None
    if problem.kind == "choice":
        letters = read_stated(response, letters_of(problem, item.meta), several=_several(problem))
        stated = ", ".join(sorted(letters)) if letters else None
    elif problem.kind == "verdict":
        yes_no = labels_of(problem.answer) == YES_NO
        stated = read_yes_no(response) if yes_no else read_letter(response, "AB")
    return response if stated is None else rf"\boxed{{{stated}}}"


def _several(problem: Problem) -> bool:
    """Whether the gold is a list of letters."""
    letters = read_letters(problem.answer)
    return letters is not None and len(letters) > 1


def _stated_content(response: str) -> str | None:
    boxed = extract_boxed(response)
    if boxed is not None and boxed.strip(" \t\r\n$"):
        return boxed
    before, closed, _ = response.rpartition(_TAGS[1])
    _, opened, content = before.rpartition(_TAGS[0])
    return content if closed and opened and content.strip() else None


def _from_words(response: str, texts: Sequence[str], *, several: bool) -> frozenset[str] | None:
    """The last statement of an answer, or a last line that is one; empty if it says no one thing, ``None`` without."""
    text = response.strip()
    before, _, last = text.rpartition("\n")
    if _REFUSAL.search(last):
        return None
    if read_letters(last, several=several) is not None:
        listed = read_letters(before.rstrip().rpartition("\n")[2], several=several)
        filled = stated_choice(last, texts, several=several)
        return filled if filled is not None and listed in (None, filled) else frozenset()
    found = None
    for found in _STATED.finditer(text):  # noqa: B007  # the last one
        pass
    if found is None:
        return None
    letters = read_letters(found[1], several=several)
    rest = text[found.end(1) :].partition("\n")[0]
    if (
        letters is None
        or _NEGATION.search(text, max(0, found.start() - 60), found.start())
        or _TAKEN_BACK.match(rest)
        or not _GOES_ON.match(rest)
    ):
        return frozenset()
    other = options_spelled(rest.strip(" .:,;()*$"), texts)
    return letters if not other or letters <= other else frozenset()


def _from_text(response: str, letters: str, texts: Sequence[str]) -> frozenset[str] | None:
    plain = response.lower()
    if len(plain) > 2 * sum(map(len, texts)) or _NEGATION.search(plain):
        return None
    held = [letter for letter, text in zip(letters, texts, strict=False) if _holds(plain, text.strip().lower())]
    return frozenset(held) if len(held) == 1 else None


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
