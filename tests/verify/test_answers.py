"""Kind ``math``: the table of answers through the real verifier, and properties of the rules."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_rl.config import VerifyConfig
from spark_rl.verify import Verifier
from spark_rl.verify.equivalence import compare
from spark_rl.verify.grade import grade

from .rows import MATH

PIECES = [
    *"0123456789abxyABC+-*/^_=<>()[]{}|.,;:!%$&~ '\"\\",
    r"\frac",
    r"\text{",
    r"\in ",
    r"\pm",
    r"\{",
    r"\}",
    "²",
    "½",
]
latex_like = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map("".join)
fractions = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=997)
integers = st.integers(min_value=-(10**9), max_value=10**9)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=2, timeout=20.0)) as shared:
        yield shared


def test_the_table_is_large_enough() -> None:
    assert len(MATH) >= 150
    assert len(set(MATH)) == len(MATH)


@pytest.mark.parametrize(("gold", "answer", "expected", "why"), MATH)
def test_table(verifier: Verifier, gold: str, answer: str, expected: str, why: str) -> None:
    verdict = verifier.verify(f"Let me think. So the answer is \\boxed{{{answer}}}.", gold)

    assert verdict.status == expected, why
    assert verdict.reward == float(expected == "correct")
    assert verdict.extracted == answer


@pytest.mark.parametrize("response", ["I do not know.", r"\boxed{", r"\boxed{}", r"\boxed{ $ $ }", ""])
def test_without_an_answer(response: str) -> None:
    status, _ = grade(response, "5")

    assert status == "no_answer"


@pytest.mark.parametrize("gold", ["", "  ", "$$", "\n"])
def test_an_empty_gold_is_the_users_mistake(gold: str) -> None:
    with pytest.raises(ValueError, match="gold answer is empty"):
        grade(r"\boxed{5}", gold)


def test_an_unknown_kind_is_the_users_mistake() -> None:
    with pytest.raises(ValueError, match="unknown kind of answer 'maths'; use math"):
        grade(r"\boxed{5}", "5", "maths")  # type: ignore[arg-type]


def test_an_unreadable_gold_is_equal_only_to_itself() -> None:
    assert compare(r"\frac{1}{", r"\frac{1}{") == "correct"
    assert compare(r"\frac{1}{", "1") == "wrong"


@given(latex_like.filter(str.strip), latex_like.filter(str.strip))
def test_no_text_raises(gold: str, answer: str) -> None:
    assert compare(gold, answer) in ("correct", "wrong", "unparsable", None)


@given(st.text(min_size=1).filter(str.strip))
def test_an_answer_equals_itself(text: str) -> None:
    assert compare(text, text) == "correct"
    assert compare(text, f" {text} ") == "correct"


def spellings(value: Fraction) -> dict[str, str]:
    """The same number as people write it."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    whole, rest = divmod(size, 1)
    written = {
        "latex": rf"{sign}\frac{{{size.numerator}}}{{{size.denominator}}}",
        "display": rf"${sign}\dfrac{{{size.numerator}}}{{{size.denominator}}}$",
        "sign inside": rf"\frac{{{sign}{size.numerator}}}{{{size.denominator}}}",
        "slash": f"{sign}{size.numerator}/{size.denominator}",
        "unreduced": rf"{sign}\frac{{{3 * size.numerator}}}{{{3 * size.denominator}}}",
        "unit": rf"{sign}\frac{{{size.numerator}}}{{{size.denominator}}}\text{{ cm}}",
        "assignment": rf"x = {sign}\frac{{{size.numerator}}}{{{size.denominator}}}",
    }
    if whole and rest:
        written["mixed"] = rf"{sign}{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}"
        written["mixed plain"] = f"{sign}{whole} {rest.numerator}/{rest.denominator}"
    return written


@given(fractions, st.data())
def test_a_fraction_equals_itself_however_written(value: Fraction, data: st.DataObject) -> None:
    written = spellings(value)
    gold = data.draw(st.sampled_from(sorted(written)))
    answer = data.draw(st.sampled_from(sorted(written)))

    assert compare(written[gold], written[answer]) == "correct", (gold, answer)


@given(fractions, fractions, st.data())
def test_unequal_fractions_never_verify(first: Fraction, second: Fraction, data: st.DataObject) -> None:
    assume(first != second)
    gold = data.draw(st.sampled_from(sorted(spellings(first).values())))
    answer = data.draw(st.sampled_from(sorted(spellings(second).values())))

    assert compare(gold, answer) == "wrong"


@given(st.integers(-(10**12), 10**12), st.integers(0, 8))
def test_a_finite_decimal_equals_its_fraction(digits: int, places: int) -> None:
    sign, text = ("-" if digits < 0 else ""), str(abs(digits)).zfill(places + 1)
    decimal = sign + (f"{text[:-places]}.{text[-places:]}" if places else text)
    fraction = rf"{sign}\frac{{{abs(digits)}}}{{{10**places}}}"

    assert compare(decimal, fraction) == "correct"
    assert compare(fraction, decimal) == "correct"
    assert compare(decimal, decimal + "0" if places else decimal + ".0") == "correct"


def written_integers(value: int) -> tuple[str, ...]:
    plain = str(value)
    return (
        plain,
        f"{value:,}",
        f"${plain}$",
        f"{plain}.0",
        rf"{plain}\text{{ cm}}",
        rf"\text{{{plain}}}",
        f"x={plain}",
    )


@given(integers, st.data())
def test_an_integer_equals_itself_however_written(value: int, data: st.DataObject) -> None:
    gold, answer = data.draw(st.tuples(*[st.sampled_from(written_integers(value))] * 2))

    assert compare(gold, answer) == "correct"


@given(integers, integers, st.data())
def test_unequal_integers_never_verify(first: int, second: int, data: st.DataObject) -> None:
    assume(first != second)
    gold = data.draw(st.sampled_from(written_integers(first)))
    answer = data.draw(st.sampled_from(written_integers(second)))

    assert compare(gold, answer) == "wrong"


@given(st.lists(integers, min_size=2, max_size=6), st.randoms(use_true_random=False), st.booleans())
def test_lists_and_tuples_of_integers(values: list[int], random: object, ordered: bool) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    opening, closing = ("(", ")") if ordered else (r"\{", r"\}")
    gold = opening + ", ".join(map(str, values)) + closing
    compact = ",".join(map(str, shuffled))
    assume(not re.fullmatch(r"-?[0-9]{1,3}(,[0-9]{3})+", compact))  # {1,100} is also the number 1,100: nobody can tell
    answer = opening + compact + closing

    same = values == shuffled if ordered else True
    assert compare(gold, answer) == ("correct" if same else "wrong")


HOSTILE = (
    "{" * 1000 + "}" * 1000,
    "(" * 1000 + ")" * 1000,
    "[" * 1999,
    "a" * 1999 + "1",
    "a " * 900 + "1",
    r"\text{a}" * 240 + "1",
    r"\text{" * 300,
    "1," * 999,
    "1 " * 999,
    "1,000" * 390,
    "x=" * 999,
    r"x\in " * 390,
    r"\pm" * 600,
    r"\pmy+\pm" * 200,
    r"\frac" * 390,
    "-" * 1999,
    "." * 1999,
    "$" * 1999,
    "*" * 1999,
    "^2" * 990,
    "9" * 2000,
    "9" * 1_000_000,
    "x" * 1_000_000,
    r"\boxed" * 100_000,
    "1e" + "9" * 1900,
    "10^{" + "9" * 1900 + "}",
    "٣" * 2000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:8]}x{len(text)}")
@pytest.mark.parametrize("kind", ["math", "choice", "verdict", "exact"])
def test_hostile_text_is_cheap_in_process(text: str, kind: str) -> None:
    gold = {"math": "5", "choice": "B", "verdict": "Yes", "exact": "5"}[kind]
    start = time.perf_counter()

    compare(gold, text)
    status, _ = grade(f"\\boxed{{{text}}}", gold, kind, ("1", "2", "3") if kind == "choice" else ())  # type: ignore[arg-type]

    assert status != "correct"
    assert time.perf_counter() - start < 2.0
