r"""Whether two answers are the same: exact rules first, structure next, symbolic algebra last (Eq. 2).

:func:`compare` is the whole of it, in three-valued logic: yes, no, or undecided. In the trainer's process it runs
without symbolic algebra and costs microseconds; what it leaves undecided goes to a worker, which runs the same function
again with :func:`spark_rl.verify.symbolic.symbolically_equal` for the leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import gcd

from spark_rl.problem import Status
from spark_rl.verify.choice import read_letters
from spark_rl.verify.notation import TEXT, UnreadableError, canonical, tight
from spark_rl.verify.number import THOUSANDS, Number, agrees, equal_bases, equal_numbers, read_number
from spark_rl.verify.structure import Relation, Shape, comparisons, is_relational, relation, shape, split
from spark_rl.verify.words import is_text, read_words, same_text, spelled, without_label

Leaf = Callable[[str, str], bool | None]
"""(gold expression, answer expression) -> equal? ``None``: undecided. May raise :class:`UnreadableError`."""

MAX_UNORDERED = 32
"""Longer lists are compared in order: matching takes a quadratic number of comparisons."""

_LETTERED_GOLD = re.compile(r"[A-Z](?:, ?[A-Z])*")
_LETTER_AND_VALUE = re.compile(r"\\text\{\(([A-J])\)[.:]?\} ?(?=.)")
_SET_SYMBOL = re.compile(r"\\(?:mathbb|R|Reals|cap|setminus|backslash|emptyset)(?![a-z])")
_CYCLE_OR_PRODUCT = re.compile(r"(-?[0-9]*\.[0-9]+)\(([0-9]+)\)")
_ANSWER_WORDS = frozenset(("yes", "no", "true", "false", "odd", "even", "dne", "none"))
_BARS = re.compile(r"\\(?:overline|overrightarrow|vec|text|mathcal)(?![A-Za-z])|[|{} ]")
_CALLED = re.compile(r"[A-Za-z]\(([a-z])\)")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-5][0-9]")


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
        answer_text = canonical(answer, stated=True)
        if not answer_text:
            return "unparsable"
        if not readable:
            return "wrong"
        found = _lettered(gold_text, answer)
        equal = _equal(gold_text, answer_text, leaf) if found is None else found
    except UnreadableError:
        return "unparsable"
    return None if equal is None else "correct" if equal else "wrong"


def _lettered(gold: str, answer: str) -> bool | None:
    """Golds that are option letters (``A``, ``\\text{(C)}``, ``B, D``) without a list of options.

    A gold that is a letter and its value (``\\text{(B)}3``) is stated by either.
    """
    with_value = _LETTER_AND_VALUE.match(gold)
    if with_value and read_letters(answer, several=False) == frozenset((with_value[1],)):
        return True
    bare = TEXT.sub(r"\1", gold).strip("() ")
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
    plain = [spelled(_without_label(gold, gold_number)), spelled(_without_label(answer, answer_number))]
    if plain != [gold, answer]:
        return _equal(plain[0], plain[1], leaf)
    by_name = _relations(gold, answer, leaf)
    if by_name is not _NO_RELATION:
        return by_name
    based = equal_bases(gold, answer)
    if based is not None:
        return based
    by_words = _words(gold, answer, gold_number, answer_number)
    if by_words is not None:
        return by_words
    if ":" in gold or ":" in answer:
        return _ratios(gold, answer, leaf)
    equal = _shapes(gold, answer, leaf)
    return equal or _as_cycles(gold, answer, equal, leaf)


def _without_label(text: str, number: Number | None) -> str:
    return text if number is not None else without_label(text)


def _as_cycles(gold: str, answer: str, equal: bool | None, leaf: Leaf) -> bool | None:
    """``0.1(6)``, which is a product here, is a repeating decimal elsewhere: right if it equals the gold as either."""
    other = [_CYCLE_OR_PRODUCT.sub(r"\1\\overline{\2}", text) if "." in text else text for text in (gold, answer)]
    if other == [gold, answer]:
        return equal
    return True if _equal(other[0], other[1], leaf) else equal


_NO_RELATION: bool | None = object()  # type: ignore[assignment]  # a fourth value beside True, False, None


def _relations(gold: str, answer: str, leaf: Leaf) -> bool | None:
    """Names, chains and equations: ``x=5`` and ``2+3=5`` equal 5, but an equation never equals a value."""
    first, second = relation(gold), relation(answer)
    if first is None and second is None:
        return _NO_RELATION
    if first is not None and second is not None:
        return _two_relations(first, second, gold, answer, leaf)
    known, other = (first, answer) if first is not None else (second, gold)
    assert known is not None
    if is_relational(other) or any(is_relational(item) for item in split(other)):
        return _NO_RELATION
    return _states(known, other, leaf, is_gold=first is not None)


def _two_relations(first: Relation, second: Relation, gold: str, answer: str, leaf: Leaf) -> bool | None:
    if first.name is not None and second.name is not None and _same_name(first, second):
        if len(first.values) == len(second.values) == 1:
            equal = _equal(first.values[0], second.values[0], leaf)
            if equal or read_number(first.values[0]) is not None:
                return equal
            return leaf(gold, answer) if equal is False else None
        return _both_chains(first, second, leaf)
    if first.name is None and second.name is None:
        return leaf(gold, answer)
    if first.name is not None and second.name is not None:
        both_numbers = read_number(first.values[-1]) is not None and read_number(second.values[-1]) is not None
        return False if both_numbers else leaf(gold, answer)
    by_value = _both_chains(first, second, leaf)
    return by_value or leaf(gold, answer)


def _both_chains(first: Relation, second: Relation, leaf: Leaf) -> bool | None:
    """Two chains of values: the gold's last value is stated by the answer."""
    if len(first.values) > 1 and not (true := _is_true(first, leaf)):
        return true
    return _states(second, first.values[-1], leaf, is_gold=False)


def _same_name(first: Relation, second: Relation) -> bool:
    """``x`` and ``x``, ``AB`` and ``|AB|``, ``y`` and ``f(x)`` (of a value in x), and a description with anything."""
    one, two = (_BARS.sub("", relation.name or "") for relation in (first, second))
    if one == two or is_text(one) or is_text(two):
        return True
    called = [_CALLED.fullmatch(name) for name in (one, two)]
    if all(called):
        return False
    argument = next((found[1] for found in called if found), None)
    plain = two if called[0] else one
    return argument is not None and plain == "y" and all(argument in side.values[-1] for side in (first, second))


def _states(stated: Relation, other: str, leaf: Leaf, *, is_gold: bool) -> bool | None:
    """Whether a name or chain states the value ``other``: a true chain does, by one of its exact members."""

    def equal(value: str) -> bool | None:
        return _equal(value, other, leaf) if is_gold else _equal(other, value, leaf)

    if len(stated.values) == 1:
        return equal(stated.values[0])
    true = _is_true(stated, leaf)
    if not true:
        return true
    found = [equal(value) for value in _exact_members(stated, other)]
    return True if any(found) else None if None in found else False


def _exact_members(stated: Relation, other: str) -> tuple[str, ...]:
    """The members that may be the answer: roundings only where the other side is one too."""
    wanted = read_number(other)
    if wanted is not None and wanted.places > 0:
        return stated.values
    exact = []
    for index, value in enumerate(stated.values):
        number = read_number(value)
        near = stated.senses[max(index - 1, 0) : index + 1]
        if r"\approx" not in near or number is None or (number.places == 0 and number.value.denominator > 1):
            exact.append(value)
    return tuple(exact) or stated.values[:1]


def _is_true(stated: Relation, leaf: Leaf) -> bool | None:
    """Whether neighbours in a chain agree: exactly, or to the precision of the one that is a decimal."""
    certain: bool | None = True
    for one, other, sense in zip(stated.values[:-1], stated.values[1:], stated.senses, strict=True):
        agreed = _agree(one, other, sense, leaf)
        if agreed is False:
            return False
        certain = None if agreed is None else certain
    return certain


def _agree(one: str, other: str, sense: str, leaf: Leaf) -> bool | None:
    if is_relational(one) or is_relational(other):
        return False
    numbers = read_number(one), read_number(other)
    certain: bool | None = False
    for rounded, number, exact, exact_number in (
        (other, numbers[1], one, numbers[0]),
        (one, numbers[0], other, numbers[1]),
    ):
        if number is None or (number.places == 0 and (sense == "=" or number.value.denominator > 1)):
            continue
        if exact_number is not None and (number.unit is None or number.unit == exact_number.unit):
            agreed: bool | None = agrees(number, exact_number.value)
        elif exact_number is not None:
            agreed = False
        else:
            agreed = leaf(r"\approx" + rounded, exact)
        if agreed:
            return True
        certain = None if agreed is None else certain
    equal = _equal(one, other, leaf)
    return equal if equal or certain is False else None


def _ratios(gold: str, answer: str, leaf: Leaf) -> bool | None:
    """``2:4`` is ``1:2`` and one half, but times of day are not ratios."""
    first, second = split(gold, ":"), split(answer, ":")
    if len(first) == len(second) == 1:
        return _shapes(gold, answer, leaf)
    if len(first) == len(second):
        same = _ordered(first, second, leaf)
        if same or (_CLOCK.fullmatch(gold) and (_CLOCK.fullmatch(answer) or _is_time(first))):
            return same
        return _ordered(_quotients(first), _quotients(second), leaf)
    if {len(first), len(second)} != {1, 2} or (_CLOCK.fullmatch(gold) and _is_time(first)):
        return False
    one, two = (_quotients(parts)[0] if len(parts) == 2 else parts[0] for parts in (first, second))
    return _equal(one, two, leaf)


def _is_time(parts: Sequence[str]) -> bool:
    """Whether a gold like ``12:30`` is no ratio: those are given in lowest terms."""
    return gcd(int(parts[0]), int(parts[1])) > 1


def _quotients(parts: Sequence[str]) -> list[str]:
    """Each part over the next."""
    return [rf"\frac{{{one}}}{{{other}}}" for one, other in pairwise(parts)]


def _words(gold: str, answer: str, gold_number: Number | None, answer_number: Number | None) -> bool | None:
    """Golds in plain words: equal without regard to case and punctuation. A number and a word are never equal."""
    if same_text(gold, answer):
        return True
    gold_words, answer_words = read_words(gold), read_words(answer)
    for words, other in ((gold_words, answer), (answer_words, gold)):
        if words == "no solution" and other in (r"\emptyset", r"\{\}"):
            return True
    if gold_words is not None:
        if gold_words == answer_words and gold_words in _ANSWER_WORDS:
            return True
        if is_text(gold) or (answer_words is not None and is_text(answer)):
            return gold_words == answer_words if answer_words is not None or answer_number is not None else None
        return None
    if gold_number is not None and answer_words is not None and is_text(answer):
        return False
    return None


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
    if "list" in kinds and any(_is_condition(item) for side in (first, second) for item in side.items):
        return True if _lists(first.items, second.items, undecided) else leaf(gold, answer)
    if kinds <= {"list", "set"}:
        return _lists(first.items, second.items, leaf)
    if kinds == {"list", "()"} or len(kinds) == 1:
        if first.columns != second.columns:
            return False
        if kinds == {"matrix"}:
            return _ordered(first.items, second.items, leaf)
        return _tuples(first.items, second.items, leaf)
    return False


def _is_condition(text: str) -> bool:
    return any(sense != "=" for _, sense, _ in comparisons(text))


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
    if structured.kind == "set" and len(structured.items) == 1 and not _SET_SYMBOL.search(structured.items[0]):
        return _equal(first.items[0], second.items[0], leaf)
    text = single.items[0]
    if read_number(text) is not None or (structured.kind == "matrix" and len(structured.items) < 2):
        return False
    if not is_relational(text) and r"\begin" not in text and not _SET_SYMBOL.search(text):
        return False
    return leaf(gold, answer)


def _lists(gold: Sequence[str], answer: Sequence[str], leaf: Leaf) -> bool | None:
    """Lists and sets: in any order, unless they assign different names (``x=1,y=2`` against ``1,2``)."""
    names = [_names(items) for items in (gold, answer)]
    distinct = any(len({name for name in side if name}) > 1 for side in names)
    if not distinct:
        return _unordered(_values(gold), _values(answer), leaf)
    if all(names[0]) and all(names[1]):
        return _unordered(gold, answer, leaf)
    return _ordered(_values(gold), _values(answer), leaf)


def _tuples(gold: Sequence[str], answer: Sequence[str], leaf: Leaf) -> bool | None:
    """In order; by name where both name their coordinates (``(q=2,p=5)``)."""
    names = [_names(items) for items in (gold, answer)]
    if all(all(side) and len(set(side)) == len(side) for side in names) and set(names[0]) == set(names[1]):
        placed = dict(zip(names[1], answer, strict=True))
        answer = [placed[name] for name in names[0]]
    return _ordered(_values(gold), _values(answer), leaf)


def _names(items: Sequence[str]) -> list[str | None]:
    return [stated.name if (stated := relation(item)) else None for item in items]


def _values(items: Iterable[str]) -> tuple[str, ...]:
    """The items without ``x=``."""
    found = []
    for item in items:
        stated = relation(item)
        found.append(stated.values[0] if stated is not None and stated.name and len(stated.values) == 1 else item)
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
