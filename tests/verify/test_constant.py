"""Values of texts as floats: what is read, what is not, and that nothing hostile gets far."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.verify.constant import number_value
from spark_rl.verify.tree import MAX_HEIGHT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.0944", 2.0944), ("-15.7", -15.7), ("1,000", 1000), ("3π", 3 * math.pi),
        (r"\frac{2\pi}{3}", 2 * math.pi / 3), (r"\frac12", 0.5), (r"2\sqrt{3}", 12**0.5), (r"\sqrt[3]{27}", 3),
        (r"-(3+4)^2", -49), ("2^{10}", 1024), ("2^{-1}", 0.5), (r"1.5 \times 10^3", 1500), ("2(3+4)", 14),
        (r"\pi^2", math.pi**2), ("7-3-2", 2), ("8/4/2", 1), ("$0.25$", 0.25), (r"2\frac{1}{2}", 2.5),
        (r"\sqrt[3]{-8}", -2), (r"\sqrt{2}-\sqrt{2}", 0), (r"\sqrt{2}\sqrt{3}-\sqrt{6}+1", 1), (r"2^\pi", 2**math.pi),
    ],
)  # fmt: skip
@pytest.mark.parametrize("units", [False, True])
def test_values(text: str, value: float, units: bool) -> None:
    assert number_value(text, units=units) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "without", "left"),
    [
        ("50%", 50, 0.5), (r"50\%", 50, 0.5), (r"\sqrt{9}\%", 3, 0.03), ("12%-2%", 10, 0.1), ("12 cm", 12, None),
        (r"12\text{ cm}", 12, None), (r"45^\circ", 45, None), (r"\sqrt{2}\text{ m}", 2**0.5, None),
        (r"\pi^\circ", math.pi, None), (r"\$5", 5, None), ("12 or more", None, None),
        (r"12\text{ or more}", None, None),
    ],
)  # fmt: skip
def test_units_are_left_out_or_make_it_no_number(text: str, without: float | None, left: float | None) -> None:
    assert number_value(text, units=True) == pytest.approx(without)
    assert number_value(text) == pytest.approx(left)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a+b", "2x", "(1, 2)", "1/0", r"\sqrt{-1}", "(-8)^{0.5}", "1+", "(1", "2 3+", r"\frac{1}", "import os",
        "9^{9^{9^{9}}}", "9" * 3000, "(" * 1000, "(" * 900 + "1" + ")" * 900, "1e999", "nan", "inf", r"\infty", "--",
        "e", "i", "52_8", "5!", r"\ln2", r"\sum_{k=1}^{2000}k", r"\begin{pmatrix}1\end{pmatrix}", "0^{-1}",
        r"1/(\sqrt{2}\sqrt{3}-\sqrt{6})", "1/" * 990 + "1", "2^" * 900 + "2", "1" + "!" * 1900, "1" + "%" * 1900,
        r"\pi^{\pi^{\pi^{\pi^{\pi}}}}", "(-1)^{\\sqrt{2}}", "1/" * MAX_HEIGHT + "1",
        "+".join(rf"\frac{{{n}^{{4000}}}}{{{n + 7}^{{5000}}}}" for n in range(2, 70)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("units", [False, True])
def test_no_values(text: str, units: bool) -> None:
    assert number_value(text, units=units) is None


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_fractions_in_every_spelling(top: int, bottom: int) -> None:
    for text in (rf"\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"({top})/({bottom})"):
        assert number_value(text) == top / bottom


@given(st.text(alphabet=r"0123456789.+-*/^(){}[]\fracsqrtpi $%,", max_size=60), st.booleans())
def test_any_text_has_a_finite_value_or_none(text: str, units: bool) -> None:
    value = number_value(text, units=units)
    assert value is None or math.isfinite(value)
