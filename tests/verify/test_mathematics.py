"""Mathematics by kind: rows of right and wrong answers, pairs of known truth, bounds on what is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SHARED
from spark_rl.config import VerifyConfig
from spark_rl.verify import Verifier, extract_boxed
from spark_rl.verify.equivalence import compare
from spark_rl.verify.evaluation import evaluate
from spark_rl.verify.expression import read_expression
from spark_rl.verify.notation import UnreadableError, canonical
from spark_rl.verify.pool import Item
from spark_rl.verify.symbolic import symbolically_equal
from spark_rl.verify.tree import Node
from spark_rl.verify.value import ImpreciseError, is_zero, precise, rational, separation, subtract

from .rows_mathematics import MATHEMATICS
from .rows_siblings import SIBLINGS

CASES = SHARED.parent / "cases" / "math.jsonl"


def status(gold: str, answer: str) -> str:
    """What a worker finds, in this process."""
    try:
        return compare(gold, answer, symbolically_equal) or "unparsable"
    except (UnreadableError, ImpreciseError):
        return "unparsable"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=2, timeout=20.0)) as shared:
        yield shared


def test_every_kind_has_right_and_wrong_rows() -> None:
    assert len(MATHEMATICS) >= 350
    assert len({row[:2] for row in MATHEMATICS}) == len(MATHEMATICS)


@pytest.mark.parametrize(("gold", "answer", "right", "why"), MATHEMATICS)
def test_rows(gold: str, answer: str, right: bool, why: str) -> None:
    assert (status(gold, answer) == "correct") is right, why


@pytest.mark.parametrize(("gold", "right", "wrong"), SIBLINGS)
def test_siblings(gold: str, right: tuple[str, ...], wrong: tuple[str, ...]) -> None:
    assert [answer for answer in right if status(gold, answer) != "correct"] == []
    assert [answer for answer in wrong if status(gold, answer) == "correct"] == []


def test_workers_find_the_same(verifier: Verifier) -> None:
    items: list[Item] = [(rf"\boxed{{{answer}}}", gold, "math", ()) for gold, answer, *_ in MATHEMATICS]
    verdicts = verifier.verify_many(items)

    assert [verdict.reward == 1.0 for verdict in verdicts] == [right for *_, right, _ in MATHEMATICS]
    assert verifier.kills == 0


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_file(), reason=f"no cases at {CASES}")
def test_the_shared_cases() -> None:
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row["want"] != "no_answer":
            found = status(row["gold"], extract_boxed(row["response"]) or "")
            assert (found == "correct") == (row["want"] == "correct"), row


HOSTILE = (
    "9^{9^{9^{9}}}",
    "(10^9)!",
    r"\binom{10^{9}}{5 \cdot 10^{8}}",
    r"\prod_{k=1}^{1000000} k",
    r"\sum_{n=1}^{\infty} \frac{1}{n}",
    "(x+y+z)^{200}",
    r"\sqrt[1000000]{2}",
    "2^{2^{100}}",
    r"e^{e^{e^{e^{e}}}}",
    r"\sin(10^{1000})",
    r"\ln(\ln(\ln(1)))",
    r"10^{10^{10}}-10^{10^{10}}",
    r"\lfloor 10^{900}\pi \rfloor",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{1000000}",
    "+".join(rf"\sqrt{{{n}}}" for n in range(2, 60)),
    r"\sqrt{2+" * 50 + "x" + "}" * 50,
    "(" * 60 + "x" + "+1)" * 60,
    "-" * 500 + "x",
    r"\frac{1}{0}",
    r"0^{-1}",
    r"\tan 90^\circ",
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:24])
@pytest.mark.parametrize("gold", ["5", r"x+\sqrt{2}"])
def test_what_is_too_large_is_refused_before_it_is_computed(gold: str, text: str) -> None:
    assert status(gold, text) in ("wrong", "unparsable")
    assert status(gold, f"{text}+1") in ("wrong", "unparsable")


@given(st.text(alphabet=r"0123456789xyeiπ+-*/^_!|()[]{}\.,:=<> ", min_size=1, max_size=24).filter(str.strip))
def test_the_reader_reads_or_refuses(text: str) -> None:
    try:
        tree = read_expression(canonical(text))
    except UnreadableError:
        return
    assert isinstance(tree, Node)


coefficients = st.fractions(min_value=-50, max_value=50, max_denominator=12)


@given(coefficients, coefficients, st.integers(2, 40), st.integers(2, 40))
def test_sums_of_two_roots_are_decided_like_their_squares(p: Fraction, q: Fraction, a: int, b: int) -> None:
    r"""p sqrt(a) + q sqrt(b) = 0 exactly if p^2 a = q^2 b and the signs differ."""
    tree = read_expression(canonical(rf"({p})\sqrt{{{a}}}+({q})\sqrt{{{b}}}"))
    zero = precise(lambda: is_zero(evaluate(tree, {})))  # type: ignore[arg-type]

    assert zero == (p * p * a == q * q * b and p * q <= 0 and (p == 0) == (q == 0))


@pytest.mark.parametrize("digits", [5, 20, 80, 300, 700])
def test_precision_grows_with_the_difference(digits: int) -> None:
    tree = read_expression(canonical(rf"\sqrt{{2}}+10^{{-{digits}}}-\sqrt{{2}}"))

    assert precise(lambda: is_zero(evaluate(tree, {}))) is False  # type: ignore[arg-type]


def test_the_bound_is_that_of_the_theorem() -> None:
    r"""sqrt(2) + sqrt(3) - sqrt(5): degree 8, conjugates below (2 + 2) + 4, so 7 log2 of the bound."""
    tree = read_expression(r"\sqrt{2}+\sqrt{3}-\sqrt{5}")
    value = precise(lambda: evaluate(tree, {}))

    assert 7 <= separation(value) <= 40
    assert is_zero(subtract(rational(2), rational(2)))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("3(4)", "product"),
        (r"3\frac{1}{2}", "number"),
        (r"4\frac{3}{2}", "product"),
        ("x+1", "sum"),
        ("-x", "negative"),
    ],
)
def test_what_the_reader_makes_of(text: str, kind: str) -> None:
    assert read_expression(canonical(text)).kind == kind


@pytest.mark.parametrize("text", ["", "5+", "(5", "5)", r"\frac{1}", "3 4", "x2", r"\nonsense", "^2", "[1,2)"])
def test_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_expression(text)
