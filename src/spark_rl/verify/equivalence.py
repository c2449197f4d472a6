r"""Whether two answers are the same: exact rules first, structure next, symbolic algebra last (Eq. 2).

The order of the rules stands here; what names and chains state is in :mod:`spark_rl.verify.chains`, how the members of
lists are matched in :mod:`spark_rl.verify.members`.

:func:`compare` is the whole of it, in three-valued logic: yes, no, or undecided. In the trainer's process it runs
without symbolic algebra and costs microseconds; what it leaves undecided goes to a worker, which runs the same function
again with :func:`spark_rl.verify.symbolic.symbolically_equal` for the leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import gcd

from spark_rl.problem import Status
from spark_rl.verify.chains import same_relations, states
from spark_rl.verify.leaf import Leaf, undecided
from spark_rl.verify.letters import read_letters
from spark_rl.verify.members import lists, ordered, tuples, unordered
from spark_rl.verify.notation import TEXT, UnreadableError, canonical, tight
from spark_rl.verify.number import THOUSANDS, Number, equal_bases, equal_numbers, read_number
from spark_rl.verify.structure import Shape, comparisons, is_relational, relation, shape, split
from spark_rl.verify.words import is_text, read_words, same_text, spelled, without_label

_LETTERED_GOLD = re.compile(r"[A-Z](?:, ?[A-Z])*")
_LETTER_AND_VALUE = re.compile(r"\\text\{\(([A-J])\)[.:]?\} ?(?=.)")
_SET_SYMBOL = re.compile(r"\\(?:mathbb|R|Reals|cap|setminus|backslash|emptyset)(?![a-z])")
_CYCLE_OR_PRODUCT = re.compile(r"(-?[0-9]*\.[0-9]+)\(([0-9]+)\)")
_ANSWER_WORDS = frozenset(("yes", "no", "true", "false", "odd", "even", "dne", "none"))
_CLOCK = re.compile(r"[0-9]{1,2}:[0-5][0-9]")


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
    """The rules in their order, for canonical texts, which may be pieces of the answers."""
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
        return same_relations(first, second, gold, answer, partial(_equal, leaf=leaf), leaf)
    known, other = (first, answer) if first is not None else (second, gold)
    assert known is not None
    if is_relational(other) or any(is_relational(item) for item in split(other)):
        return _NO_RELATION
    return states(known, other, partial(_equal, leaf=leaf), leaf, is_gold=first is not None)


def _ratios(gold: str, answer: str, leaf: Leaf) -> bool | None:
    """``2:4`` is ``1:2`` and one half, but times of day are not ratios."""
    first, second = split(gold, ":"), split(answer, ":")
    if len(first) == len(second) == 1:
        return _shapes(gold, answer, leaf)
    if len(first) == len(second):
        equal = partial(_equal, leaf=leaf)
        same = ordered(first, second, equal)
        if same or (_CLOCK.fullmatch(gold) and (_CLOCK.fullmatch(answer) or _is_time(first))):
            return same
        return ordered(_quotients(first), _quotients(second), equal)
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
    """Brackets, lists, sets and matrices; a pair of expressions goes to ``leaf``."""
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
    equal, quickly = partial(_equal, leaf=leaf), partial(_equal, leaf=undecided)
    if "union" in kinds:
        matched = unordered(first.items, second.items, equal, quickly) if kinds <= {"union", "list"} else None
        return True if matched else leaf(gold, answer)
    if "list" in kinds and any(_is_condition(item) for side in (first, second) for item in side.items):
        return True if lists(first.items, second.items, quickly, quickly) else leaf(gold, answer)
    if kinds <= {"list", "set"}:
        return lists(first.items, second.items, equal, quickly)
    if kinds == {"list", "()"} or len(kinds) == 1:
        if first.columns != second.columns:
            return False
        if kinds == {"matrix"}:
            return ordered(first.items, second.items, equal)
        return tuples(first.items, second.items, equal)
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
