"""The procedural families: splits that cannot leak, unique solutions, true work. Checked by independent arithmetic."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from fractions import Fraction
from functools import cache, reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.data.tasks import missing, operators
from spark_rl.data.tasks.chains import Split, apply, evaluate, number_tuples, split_of, write_chain

SPLITS: tuple[Split, ...] = ("warm", "train", "heldout")
STEP = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
EXACT = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}


def value_of(text: str) -> Fraction:
    """The value of ``7*3-4`` from left to right; division is exact."""
    first, *rest = re.findall(r"\d+|[-+*/]\d+", text)
    assert first + "".join(rest) == text
    value = Fraction(first)
    for step in rest:
        value = EXACT[step[0]](value, Fraction(step[1:]))
    return value


def runs(numbers: tuple[int, ...], chain: tuple[str, ...]) -> list[int]:
    """Running results by another road than the module's: every prefix reduced anew."""
    pairs = list(zip(chain, numbers[1:], strict=True))
    return [reduce(lambda v, pair: STEP[pair[0]](v, pair[1]), pairs[: i + 1], numbers[0]) for i in range(len(pairs))]


@cache
def all_operators(split: Split) -> tuple[tuple[tuple[int, ...], tuple[str, ...], int], ...]:
    return tuple(operators.puzzles(split))


@cache
def all_missing(split: Split) -> tuple[tuple[tuple[int, ...], tuple[str, ...], int, int], ...]:
    return tuple(missing.puzzles(split))


def test_no_ordered_tuple_of_numbers_is_in_two_splits_of_any_families() -> None:
    used = {s: {p[0] for p in all_operators(s)} | {p[0] for p in all_missing(s)} for s in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not used[one] & used[other]


def test_no_question_is_in_two_splits() -> None:
    asked = {
        s: {operators.question(n, t) for n, _, t in all_operators(s)} | {missing.question(*p) for p in all_missing(s)}
        for s in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not asked[one] & asked[other]


def test_splits_cover_all_tuples_in_the_documented_shares() -> None:
    counts = Counter({split: sum(1 for _ in number_tuples((3, 4), split)) for split in SPLITS})
    assert counts.total() == 9**3 + 9**4
    for split, share in (("warm", 0.6), ("train", 0.3), ("heldout", 0.1)):
        assert counts[split] / counts.total() == pytest.approx(share, abs=0.02)


def test_the_split_of_known_tuples_never_changes() -> None:
    """Golden, from ``printf 1,1,1 | sha256sum`` modulo 20: another hash would move held-out problems into training."""
    buckets = {(1, 1, 1): 0, (1, 2, 3, 4): 3, (1, 2, 3): 5, (8, 8, 8): 7, (5, 5, 5): 8, (3, 1, 4, 1): 18}
    for numbers, bucket in buckets.items():
        assert split_of(numbers) == ("heldout" if bucket < 2 else "train" if bucket < 8 else "warm")


@pytest.mark.parametrize("split", SPLITS)
def test_operators_puzzles_are_exactly_the_uniquely_solvable_ones(split: Split) -> None:
    expected = set()
    for numbers in {p[0] for p in all_operators(split)}:
        reached: dict[int, list[tuple[str, ...]]] = {}
        for chain in itertools.product("+-*", repeat=len(numbers) - 1):
            results = runs(numbers, chain)
            if min(results) >= 0 and max(results) <= 99:
                reached.setdefault(results[-1], []).append(chain)
        expected |= {(numbers, found[0], target) for target, found in reached.items() if len(found) == 1}
    assert len(all_operators(split)) == len(expected)
    assert set(all_operators(split)) == expected


@settings(deadline=None)
@given(st.sampled_from(SPLITS).flatmap(lambda s: st.sampled_from(all_operators(s))))
def test_an_operators_answer_reaches_the_target(puzzle: tuple[tuple[int, ...], tuple[str, ...], int]) -> None:
    numbers, solution, target = puzzle
    shown, _, wanted = operators.question(numbers, target).partition("=")
    answers = iter(solution)
    filled = re.sub(r"\?", lambda _: next(answers), shown)
    assert value_of(filled) == int(wanted) == target
    assert split_of([int(n) for n in shown.split("?")]) in SPLITS


@settings(deadline=None)
@given(st.sampled_from(SPLITS).flatmap(lambda s: st.sampled_from(all_missing(s))))
def test_a_missing_number_is_the_only_one_that_fits(puzzle: tuple[tuple[int, ...], tuple[str, ...], int, int]) -> None:
    numbers, _, _, hidden = puzzle
    shown, _, wanted = missing.question(*puzzle).partition("=")
    assert shown.count("_") == 1
    fitting = [n for n in range(200) if value_of(shown.replace("_", str(n))) == int(wanted)]
    assert fitting == [numbers[hidden]]


@pytest.mark.parametrize("split", SPLITS)
def test_missing_work_is_true_and_ends_in_the_hidden_number(split: Split) -> None:
    for puzzle in all_missing(split)[::5]:
        written = missing.work(*puzzle)
        for part in written.split(";"):
            left, *results = part.split("=")
            for result in results:
                number = re.match(r"\d+", result)
                assert number is not None
                assert value_of(left) == int(number[0]), (puzzle, written)
                left = result
        assert written.rpartition("=")[2] == str(puzzle[0][puzzle[3]])


def test_missing_work_uses_only_what_the_question_shows() -> None:
    """The documented example, written by hand."""
    assert missing.question((7, 3, 4), ("*", "-"), 17, 1) == "7*_-4=17"
    assert missing.work((7, 3, 4), ("*", "-"), 17, 1) == "17+4=21;21/7=3"
    assert missing.work((7, 3, 4), ("*", "-"), 17, 0) == "17+4=21/3=7"
    assert missing.work((7, 3, 4), ("*", "-"), 17, 2) == "7*3=21;21-17=4"


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.data())
def test_evaluate_agrees_with_independent_arithmetic(numbers: list[int], data: st.DataObject) -> None:
    chain = tuple(data.draw(st.lists(st.sampled_from("+-*"), min_size=len(numbers) - 1, max_size=len(numbers) - 1)))
    results = runs(tuple(numbers), chain)
    in_range = all(0 <= value <= 99 for value in results)
    assert evaluate(numbers, chain) == (results if in_range else None)


def test_a_chain_is_written_with_its_running_results() -> None:
    assert write_chain((5, 2, 7), "-+", (3, 10)) == "5-2=3+7=10"


def test_an_unknown_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match="'/' is not one of"):
        apply(4, "/", 2)


def test_puzzles_come_in_the_same_order_every_time() -> None:
    assert tuple(missing.puzzles("heldout")) == all_missing("heldout")
    assert tuple(operators.puzzles("heldout")) == all_operators("heldout")
