r"""Multiple choice: the boxed letter or option text against the gold one (Eq. 2). Verifier and evaluations read alike.

Read as a letter: ``B``, ``b``, ``(B)``, ``[B]``, ``B.``, ``Ｂ``, ``Ⓑ``, ``\text{(B)}``, ``\boldsymbol{B}``,
``Option B``, ``The answer is B``; with its text beside it ``B: text``, ``B (8)``, ``\textbf{(B)}\ 8``, ``8 (B)``; and
``B, D`` when the gold has several. A lone capital is always a label, even if it is also some option's text; a small
letter that is an option's text as it stands is that text.

Read as an option's text: the same words, the same but for case, the same as mathematics; without its unit if no other
option is the same without one. An answer that is the same as two options that are spelled differently names neither.
Options that are spelled the same are one answer, by letter too.

Everything else is ``unparsable``, above all what keeps a way out: ``A or B``, ``A. 7, B. 8``, ``A: 7 or 8``, ``Not A``,
``B > A``, a letter beside the text of another option.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Sequence

from spark_rl.problem import Status
from spark_rl.verify.equivalence import compare
from spark_rl.verify.leaf import Leaf
from spark_rl.verify.letters import Label, bare, hedges, label_behind, label_of, letters_listed, read_letters
from spark_rl.verify.notation import MAX_LENGTH, TEXT, UnreadableError, canonical, tight

__all__ = ["compare_choice", "options_spelled", "read_choice", "read_letters", "stated_choice"]

_PIECES = re.compile(r"[,;/|&]|\b(?:or|and)\b", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:not|no|never|neither|nor|isn't|cannot|can't|incorrect|wrong)\b|不|非", re.IGNORECASE)

_WORDS = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+")
_MATHEMATICAL = re.compile(r"[0-9\\^=+*/<>|-]")
_IMAGE = "<image"


class _UndecidedError(Exception):
    """Only symbolic algebra can tell which option this is."""


def compare_choice(gold: str, answer: str, choices: Sequence[str] = (), leaf: Leaf | None = None) -> Status | None:
    """``correct``, ``wrong`` or ``unparsable`` for a non-empty boxed ``answer``; ``None`` when ``leaf`` must decide.

    Args:
        gold: a letter, several letters, or the text of an option.
        answer: the content of the box.
        choices: option texts in order A, B, C, ...; without them, letters only.
        leaf: how two expressions are compared, as in :func:`spark_rl.verify.equivalence.compare`; by default not.

    Raises:
        ValueError: if the gold is neither a letter of an option nor an option's text.
    """
    wanted = _read_gold(gold, choices)
    if wanted is None:
        raise ValueError(
            f"gold answer {gold!r} is neither a letter nor the text of one of the {len(choices)} choices; "
            "mend the data, or use kind 'exact'"
        )
    try:
        found = read_choice(answer, choices, several=len(wanted) > 1, leaf=leaf)
    except _UndecidedError:
        return None
    if found is None:
        return "unparsable"
    return "correct" if _first_spelled(found, choices) == _first_spelled(wanted, choices) else "wrong"


def stated_choice(text: str, choices: Sequence[str] = (), *, several: bool = False) -> frozenset[str] | None:
    """The letters that a text states by themselves or by an option's text, ``None`` if it can't be read so."""
    try:
        return read_choice(text, choices, several=several)
    except _UndecidedError:
        return None


def read_choice(text: str, choices: Sequence[str], *, several: bool, leaf: Leaf | None = None) -> frozenset[str] | None:
    """A bare letter first, then the text of an option, then a letter and a text that do not contradict each other.

    Raises:
        _UndecidedError: only ``leaf`` could tell, and there is none.
    """
    if len(text) > MAX_LENGTH:
        return None
    known = string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase
    label = label_of(text)
    if label is not None and label.letter not in known:
        label = None
    if label is not None and not label.beside:
        small = label.letter.lower() in text and any(_plain(text) == _plain(choice) for choice in choices)
        return options_spelled(text, choices) if small else frozenset(label.letter)
    letters = letters_listed(text) if several else None
    if letters is not None and letters <= set(known):
        return letters
    if not choices:
        return frozenset(label.letter) if label is not None and label.firm and not hedges(label.beside) else None
    behind = label_behind(text)
    if behind is not None and behind.letter not in known:
        behind = None
    labelled = label is not None and (label.firm or label.beside.startswith("=") or hedges(label.beside))
    labelled = labelled or behind is not None
    option = options_spelled(text, choices) if labelled else _option(text, choices, leaf)
    if option:
        return option
    for one in (label, behind):
        if one is not None and _agrees(one, choices, leaf):
            return frozenset(one.letter)
    return None


def _agrees(label: Label, choices: Sequence[str], leaf: Leaf | None) -> bool:
    """Whether the text beside a letter is its option's, or at least no other's and no way out."""
    hedged = hedges(label.beside)
    # ``B / C`` is no quotient, ``(A) 0 (B) 1`` no product
    option = options_spelled(label.beside, choices) if hedged else _option(label.beside, choices, leaf)
    if option:
        return label.letter in option
    if not label.firm or hedged:
        return False
    others = [options_spelled(piece, choices) for piece in _PIECES.split(label.beside)]
    return all(not other or label.letter in other for other in others)


def _read_gold(gold: str, choices: Sequence[str]) -> frozenset[str] | None:
    """Letters, else the text of options; no algebra, because whoever reads the data must be told at once."""
    letters = read_letters(gold)
    label = label_of(gold)
    known = set(string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase)
    if letters is not None and letters <= known and (len(letters) > 1 or label is None or not label.beside):
        return letters
    try:
        option = _option(gold, choices, None)
    except _UndecidedError:
        option = frozenset()
    if option:
        return frozenset(min(option))
    return letters if letters is not None and letters <= known else None


def _first_spelled(letters: Iterable[str], choices: Sequence[str]) -> frozenset[str]:
    """Each letter as the first of the options that are spelled the same."""
    if not choices:
        return frozenset(letters)
    texts = [_plain(choice) for choice in choices]
    places = {letter: string.ascii_uppercase.index(letter) for letter in letters}
    return frozenset(
        string.ascii_uppercase[texts.index(texts[place])] if texts[place] and _IMAGE not in texts[place] else letter
        for letter, place in places.items()
    )


def _option(text: str, choices: Sequence[str], leaf: Leaf | None) -> frozenset[str]:
    """The letters of the options that this is: one, or several that are spelled the same; empty if it is none."""
    return options_spelled(text, choices) or _equal(text, choices, leaf)


def options_spelled(text: str, choices: Sequence[str]) -> frozenset[str]:
    """Options of the same words, else of the same but for case."""
    for spelling in (_plain, lambda words: _plain(words).casefold()):
        wanted = spelling(text)
        same = [index for index, choice in enumerate(choices) if wanted and spelling(choice) == wanted]
        if same:
            return _one(same, choices)
    return frozenset()


def _equal(text: str, choices: Sequence[str], leaf: Leaf | None) -> frozenset[str]:
    """Options that are the same as mathematics, by quick rules, else by algebra.

    Raises:
        _UndecidedError: the quick rules can't tell, and there is no algebra.
    """
    if _NEGATED.search(text):
        return frozenset()
    text = bare(text)
    value, unit = _without_unit(text)
    pairs = []
    for choice in choices:
        wanted, other = _without_unit(choice)
        pairs.append({(choice, text)} | ({(wanted, value)} if "" in (unit, other) or unit == other else set()))
    told = [{compare(*pair) for pair in spellings} for spellings in pairs]
    same = [index for index, statuses in enumerate(told) if "correct" in statuses]
    if same:
        return _one(same, choices)
    open_ = [
        index
        for index, statuses in enumerate(told)
        if None in statuses and _mathematical(text) and _mathematical(choices[index])
    ]
    if not open_:
        return frozenset()
    if leaf is None:
        raise _UndecidedError
    return _one([i for i in open_ if any(compare(*pair, leaf) == "correct" for pair in pairs[i])], choices)


def _one(places: Sequence[int], choices: Sequence[str]) -> frozenset[str]:
    """The letters at these places if their options are spelled the same; else none, for it is no single one."""
    if len({_plain(choices[place]) for place in places}) != 1:
        return frozenset()
    return frozenset(string.ascii_uppercase[place] for place in places)


def _mathematical(text: str) -> bool:
    """Whether algebra may compare it: as a product of its letters, ``act`` would be ``cat``."""
    try:
        plain = canonical(text)
    except UnreadableError:
        return False
    return _MATHEMATICAL.search(plain) is not None and re.search("[A-Za-z]{3}", _WORDS.sub(" ", plain)) is None


def _without_unit(text: str) -> tuple[str, str]:
    r"""``("4.40", "米")`` of ``4.40米``, and so of ``\text{20元}`` and ``￥20``: words and signs of no Latin script."""
    try:
        plain = TEXT.sub(r"\1", canonical(text)).strip()
    except UnreadableError:
        return text, ""
    start, end = 0, len(plain)
    while end and (_is_word(plain[end - 1]) or plain[end - 1] == " "):
        end -= 1
    while start < end and (_is_word(plain[start]) or plain[start] == " "):
        start += 1
    value, unit = plain[start:end], (plain[:start] + plain[end:]).strip()
    return (value, unit) if unit and any(char.isdigit() for char in value) else (text, "")


def _is_word(char: str) -> bool:
    if char.isascii() or "\u0370" <= char <= "\u03ff":
        return False
    return unicodedata.category(char) in {"Lo", "Ll", "Lu", "Lm", "Sc"} or char in "℃℉"


def _plain(text: str) -> str:
    text = bare(text)
    try:
        text = canonical(text)
    except UnreadableError:
        return text
    return tight(TEXT.sub(r"\1", text)).rstrip(".")
