r"""Whether two answers are the same: exact rules first, structure next, symbolic algebra last (Eq. 2).

:func:`compare` is the whole of it, in three-valued logic: yes, no, or undecided. In the trainer's process it runs
without symbolic algebra and costs microseconds; what it leaves undecided goes to a worker, which runs the same function
again with :func:`spark_rl.verify.symbolic.symbolically_equal` for the leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from spark_rl.problem import Status
from spark_rl.verify.choice import read_letters
from spark_rl.verify.notation import UnreadableError, canonical, tight
from spark_rl.verify.number import THOUSANDS, Number, equal_bases, equal_numbers, read_number
from spark_rl.verify.structure import Shape, is_relational, relation, shape, split

Leaf = Callable[[str, str], bool | None]
"""(gold expression, answer expression) -> equal? ``None``: undecided. May raise :class:`UnreadableError`."""

MAX_UNORDERED = 32
"""Longer lists are compared in order: matching takes a quadratic number of comparisons."""

_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z'\-]++| )++")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_LETTERED_GOLD = re.compile(r"[A-Z](?:, ?[A-Z])*")
_TEXTUAL = re.compile(r"\\text\{[^{}]*[A-Za-z]{2}|(?<![\\A-Za-z])(?:[A-Za-z]{4}|[A-Z][a-z]+)")


def undecided(_gold: str, _answer: str) -> None:
    """The leaf comparison of the trainer's process: none."""


def compare(gold: str, answer: str, leaf: Leaf = undecided) -> Status | None:
    """``correct``, ``wrong`` or ``unparsable`` for a non-empty boxed ``answer``; ``None`` when ``leaf`` must decide.

    Args:
        gold: the gold answer as it stands in the data.
        answer: the content of the box.
        leaf: how two expressions without further structure are compared.
    """
    if gold.strip() == answer.strip():
        return "correct"
    try:
        gold_text = canonical(gold)
        read_number(gold_text)
        readable = True
    except UnreadableError:
        gold_text, readable = gold, False
    try:
        answer_text = canonical(answer)
        if not answer_text:
            return "unparsable"
        if not readable:
            return "wrong"
        found = _lettered(gold_text, answer_text)
        equal = _equal(gold_text, answer_text, leaf) if found is None else found
    except UnreadableError:
        return "unparsable"
    return None if equal is None else "correct" if equal else "wrong"


def _lettered(gold: str, answer: str) -> bool | None:
    """Golds that are option letters (``A``, ``\\text{(C)}``, ``B, D``) without a list of options."""
    bare = _TEXT.sub(r"\1", gold).strip("() ")
    if not _LETTERED_GOLD.fullmatch(bare):
        return None
    letters = read_letters(gold)
    if letters is None or max(letters) > ("E" if len(letters) == 1 else "I"):
        return None
    read = read_letters(answer, several=len(letters) > 1)
    return None if read is None else read == letters


def _equal(gold: str, answer: str, leaf: Leaf) -> bool | None:
    if tight(gold) == tight(answer):
        return True
    gold_number = read_number(gold)
    answer_number = read_number(answer, bare_letters=gold_number is not None)
    if gold_number is not None and answer_number is not None:
        return equal_numbers(gold_number, answer_number)
    by_name = _relations(gold, answer, leaf)
    if by_name is not _NO_RELATION:
        return by_name
    based = equal_bases(gold, answer)
    if based is not None:
        return based
    by_words = _words(gold, answer, gold_number, answer_number)
    if by_words is not None:
        return by_words
    return _shapes(gold, answer, leaf)


_NO_RELATION: bool | None = object()  # type: ignore[assignment]  # a fourth value beside True, False, None


def _relations(gold: str, answer: str, leaf: Leaf) -> bool | None:
    """Assignments and equations: ``x=5`` equals 5, but an equation never equals a value."""
    first, second = relation(gold), relation(answer)
    if first is None and second is None:
        return _NO_RELATION
    if first is not None and second is not None:
        if first.value is None or second.value is None:
            return leaf(gold, answer)
        if first.name == second.name or first.name is None or second.name is None:
            return _equal(first.value, second.value, leaf)
        both_numbers = read_number(first.value) is not None and read_number(second.value) is not None
        return False if both_numbers else leaf(gold, answer)
    known = first or second
    assert known is not None
    other = answer if first is not None else gold
    if is_relational(other) or any(is_relational(item) for item in split(other)):
        return _NO_RELATION
    if known.value is None:
        return False
    return _equal(known.value, answer, leaf) if first is not None else _equal(gold, known.value, leaf)


def _words(gold: str, answer: str, gold_number: Number | None, answer_number: Number | None) -> bool | None:
    """Golds in plain words: equal without regard to case and punctuation. A number and a word are never equal."""
    gold_words, answer_words = _read_words(gold), _read_words(answer)
    if _is_text(gold) and _TEXT.sub(r"\1", gold).casefold() == _TEXT.sub(r"\1", answer).casefold():
        return True
    if gold_words is not None:
        if _is_text(gold) or (answer_words is not None and _is_text(answer)):
            return gold_words == answer_words if answer_words is not None or answer_number is not None else None
        return None
    if gold_number is not None and answer_words is not None and _is_text(answer):
        return False
    return None


def _read_words(text: str) -> str | None:
    if not _WORDS.fullmatch(text):
        return None
    plain = _TEXT.sub(r" \1 ", text)
    words = " ".join(re.sub(r"[^a-z0-9'\- ]", " ", plain.lower()).split())
    return words if any(char.isalpha() for char in words) else None


def _is_text(text: str) -> bool:
    r"""Whether words are meant, not a product of variables: two letters in ``\text{}``, four in a row, or ``Yes``."""
    return _TEXTUAL.search(text) is not None


def _shapes(gold: str, answer: str, leaf: Leaf) -> bool | None:
    first, second = shape(gold), shape(answer)
    core = [one.items[0] if one.kind == "leaf" else text for one, text in ((first, gold), (second, answer))]
    if core != [gold, answer]:
        return _equal(core[0], core[1], leaf)
    if first.kind == "leaf" and second.kind == "leaf":
        return leaf(gold, answer)
    first, second = _as_list(first, second), _as_list(second, first)
    kinds = {first.kind, second.kind}
    if "leaf" in kinds:
        return _against_leaf(first, second, gold, answer, leaf)
    if "union" in kinds:
        matched = _unordered(first.items, second.items, leaf) if kinds <= {"union", "list"} else None
        return True if matched else leaf(gold, answer)
    if kinds <= {"list", "set"}:
        return _lists(first.items, second.items, leaf)
    if kinds == {"list", "()"} or len(kinds) == 1:
        if first.columns != second.columns:
            return False
        values = [_values(first.items), _values(second.items)] if "list" in kinds else [first.items, second.items]
        return _ordered(values[0], values[1], leaf)
    return False


def _as_list(one: Shape, other: Shape) -> Shape:
    """``100,200,300`` is a number, unless the other side is a list of as many items."""
    item = one.items[0] if one.items else ""
    if one.kind == "leaf" and other.kind != "leaf" and THOUSANDS.fullmatch(item):
        pieces = tuple(item.split(","))
        if len(pieces) == len(other.items):
            return Shape("list", pieces)
    return one


def _against_leaf(first: Shape, second: Shape, gold: str, answer: str, leaf: Leaf) -> bool | None:
    """One side has structure, the other is an expression: ``\\{5\\}`` equals 5; the rest only algebra can tell."""
    structured, single = (second, first) if first.kind == "leaf" else (first, second)
    if structured.kind == "set" and len(structured.items) == 1:
        return _equal(first.items[0], second.items[0], leaf)
    if read_number(single.items[0]) is not None or (structured.kind == "matrix" and len(structured.items) < 2):
        return False
    return leaf(gold, answer)


def _lists(gold: Sequence[str], answer: Sequence[str], leaf: Leaf) -> bool | None:
    """Lists and sets: in any order, unless they assign different names (``x=1,y=2`` against ``1,2``)."""
    names = [[rel.name if (rel := relation(item)) else None for item in items] for items in (gold, answer)]
    distinct = any(len({name for name in side if name}) > 1 for side in names)
    if not distinct:
        return _unordered(_values(gold), _values(answer), leaf)
    if all(names[0]) and all(names[1]):
        return _unordered(gold, answer, leaf)
    return _ordered(_values(gold), _values(answer), leaf)


def _values(items: Iterable[str]) -> tuple[str, ...]:
    """The items without ``x=``."""
    found = []
    for item in items:
        stated = relation(item)
        found.append(stated.value if stated is not None and stated.value is not None else item)
    return tuple(found)


def _ordered(gold: Sequence[str], answer: Sequence[str], leaf: Leaf) -> bool | None:
    if len(gold) != len(answer):
        return False
    certain: bool | None = True
    for one, other in zip(gold, answer, strict=True):
        equal = _equal(one, other, leaf)
        if equal is False:
            return False
        certain = None if equal is None else certain
    return certain


def _unordered(gold: Sequence[str], answer: Sequence[str], leaf: Leaf) -> bool | None:
    """Whether the items match one to one. Equality is transitive enough for a greedy match."""
    if len(gold) != len(answer):
        return False
    if len(gold) > MAX_UNORDERED:
        return _ordered(gold, answer, leaf)
    left = list(answer)
    pending = []
    for item in gold:
        match = next((other for other in left if _equal(item, other, undecided)), None)
        if match is None:
            pending.append(item)
        else:
            left.remove(match)
    for item in pending:
        results = [(other, _equal(item, other, leaf)) for other in left]
        match = next((other for other, equal in results if equal), None)
        if match is None:
            return None if any(equal is None for _, equal in results) else False
        left.remove(match)
    return True
