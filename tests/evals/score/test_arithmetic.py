"""Values of answers: what is read, what is not, and that nothing hostile gets far."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.evals.score.arithmetic import value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.0944", 2.0944), ("-15.7", -15.7), ("1,000", 1000), ("1 1/2", 1.5), ("50%", 50), (r"50\%", 50),
        ("3π", 3 * math.pi),
        (r"\frac{2\pi}{3}", 2 * math.pi / 3), (r"\frac12", 0.5), (r"2\sqrt{3}", 12**0.5), (r"\sqrt[3]{27}", 3),
        (r"x = \frac{\sqrt{2}}{2}", 0.5**0.5), (r"-(3+4)^2", -49), ("2^{10}", 1024), ("2^{-1}", 0.5), ("12 cm", 12),
        (r"12\text{ cm}", 12), (r"45^\circ", 45), (r"1.5 \times 10^3", 1500), ("2(3+4)", 14), (r"\pi^2", math.pi**2),
        ("7-3-2", 2), ("8/4/2", 1), ("$0.25$", 0.25), (r"\approx 3", 3),
    ],
)  # fmt: skip
def test_values(text: str, value: float) -> None:
    assert value_of(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "x", "a+b", "2x", "(1, 2)", "1/0", r"\sqrt{-1}", "(-8)^{0.5}", "1+", "(1", "2 3+", r"\frac{1}", "import os",
     "9^{9^{9^{9}}}", "9" * 3000, "(" * 1000, "(" * 900 + "1" + ")" * 900, "1e999", "nan", "inf", r"\infty", "--"],
)  # fmt: skip
def test_no_values(text: str) -> None:
    assert value_of(text) is None


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_fractions_in_every_spelling(top: int, bottom: int) -> None:
    for text in (rf"\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"({top})/({bottom})"):
        assert value_of(text) == pytest.approx(top / bottom)


@given(st.text(alphabet=r"0123456789.+-*/^(){}[]\fracsqrtpi $%,", max_size=60))
def test_any_text_has_a_finite_value_or_none(text: str) -> None:
    value = value_of(text)
    assert value is None or math.isfinite(value)
