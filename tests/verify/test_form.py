r"""Which answers are evaluated: rows of (gold, answer, evaluated?, why), all of them right answers.

The property tests build right answers from operations that are known to be left to do, and from numbers.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spark_rl.verify.form import is_evaluated, left_to_do

ROWS = (
    # integers
    ("42", "42", True, "the number"),
    ("42", "-(-42)", True, "signs alone are no arithmetic"),
    ("42", "42.0", True, "a decimal"),
    ("42", r"x=42", True, "a name"),
    ("42", r"f(2)=42", True, "a name with a number in it"),
    ("42", r"42\text{ cm}^2", True, "a unit with an exponent"),
    ("42", r"42\,\frac{\text{km}}{\text{h}}", True, "a unit with a fraction"),
    ("42", r"42^\circ", True, "degrees"),
    ("42", r"\text{Answer: }42", True, "words"),
    ("42", r"\$42", True, "money"),
    ("42", r"\mathbf{42}", True, "bold"),
    ("42", r"42元", True, "words of any language"),
    ("1234567", "1,234,567", True, "commas between thousands"),
    ("1234567", r"1\,234\,567", True, "spaces between thousands"),
    ("42", r"6\times7", False, "a product"),
    ("42", r"6 \cdot 7", False, "another"),
    ("42", "6*7", False, "with a star"),
    ("42", "6×7", False, "with the sign itself"),
    ("42", "(6)(7)", False, "in brackets"),
    ("12", "3(4)", False, "one in brackets"),
    ("12", r"3\left(4\right)", False, "with growing brackets"),
    ("5", "2+3", False, "a sum"),
    ("5", "8-3", False, "a difference"),
    ("42", "42+0", False, "a sum with nothing"),
    ("42", r"1\cdot42", False, "a product with one"),
    ("42", r"\frac{84}{2}", False, "a fraction that is an integer"),
    ("42", "84/2", False, "on one line"),
    ("42", r"84\div2", False, "a division"),
    ("42", r"\frac{42}{1}", False, "over one"),
    ("42", "42^1", False, "the first power"),
    ("8", "2^3", False, "a short power"),
    ("1024", "2^{10}", False, "another"),
    ("55", r"\sum_{k=1}^{10}k", False, "a sum in symbols"),
    ("55", "∑_{k=1}^{10} k", False, "with the sign itself"),
    ("120", r"\prod_{k=1}^{5}k", False, "a product in symbols"),
    ("2", r"\int_0^2 1\,dx", False, "an integral"),
    ("1", r"\lim_{x\to0}\frac{\sin x}{x}", False, "a limit"),
    ("10", r"\binom{5}{2}", False, "a binomial"),
    ("10", r"{5 \choose 2}", False, "another"),
    ("10", r"C(5,2)", False, "a function of numbers"),
    ("120", "5!", False, "a factorial"),
    ("6", r"\gcd(12,18)", False, "a divisor"),
    ("36", r"\operatorname{lcm}(12,18)", False, "a multiple"),
    ("3", "|-3|", False, "an absolute value"),
    ("2", r"\lfloor 2.5\rfloor", False, "a floor"),
    ("1", r"7 \bmod 3", False, "a remainder"),
    ("2", r"\sqrt{4}", False, "a square under a root"),
    ("2", r"\sqrt[3]{8}", False, "a cube"),
    ("2", r"4^{1/2}", False, "a root as a power"),
    ("3", r"\log_2 8", False, "a logarithm"),
    ("1", r"\ln e", False, "of the base"),
    ("-1", "i^2", False, "a power of i"),
    ("-1", r"e^{i\pi}", False, "Euler"),
    ("1", r"(\sqrt2-1)(\sqrt2+1)", False, "an integer in disguise"),
    ("1", r"\sin^2 1+\cos^2 1", False, "another"),
    ("42", r"6\times7=42", True, "a chain that ends in the number"),
    ("42", r"42=6\times7", True, "or begins with it"),
    ("42", r"x=6\times7", False, "a name has no value"),
    ("42", r"f(2)=6\times7", False, "nor has one with a number in it"),
    ("5", r"2+3=4+1", False, "two sums"),
    ("2", r"\sqrt4=2", True, "a root that is drawn in the end"),
    # other rational numbers
    (r"\frac12", r"\frac12", True, "a fraction"),
    (r"\frac12", r"\frac{2}{4}", True, "in other terms"),
    (r"\frac12", "0.5", True, "a decimal"),
    (r"\frac12", "1/2", True, "on one line"),
    (r"-\frac12", r"\frac{-1}{2}", True, "the sign above"),
    (r"-\frac12", r"-\frac{1}{2}", True, "the sign before"),
    (r"\frac32", r"1\frac12", True, "a mixed number"),
    (r"\frac32", r"1 1/2", True, "on one line"),
    (r"\frac13", r"0.\overline{3}", True, "a repeating decimal"),
    (r"\frac13", "0.(3)", True, "in another spelling"),
    (r"\frac13", r"\frac13\approx0.33", True, "rounded too"),
    ("0.5", r"50\%", True, "a percentage"),
    ("150000", r"1.5\times10^5", True, "scientific notation"),
    ("0.0015", r"1.5 \cdot 10^{-3}", True, "of a small number"),
    ("1000000", "10^6", True, "a power of ten"),
    ("100", "10^2", False, "a short one"),
    ("300000", r"1.5\times2\times10^5", False, "two factors before it"),
    ("1000001", "10^6+1", False, "a sum with it"),
    (r"\frac12", r"\frac{1+2}{6}", False, "a sum above"),
    (r"\frac16", r"\frac{1}{(2)(3)}", False, "a product below"),
    (r"\frac16", r"\frac12\cdot\frac13", False, "a product of fractions"),
    (r"\frac56", r"\frac12+\frac13", False, "a sum of fractions"),
    (r"\frac16", r"\frac{\frac12}{3}", False, "a fraction of fractions"),
    (r"\frac12", r"1-\frac12", False, "a difference"),
    (r"\frac12", r"\sin 30^\circ", False, "a sine"),
    (r"\frac12", r"\cos\frac{\pi}{3}", False, "a cosine"),
    (r"\frac12", "sin 30°", False, "without TeX"),
    (r"\frac18", "2^{-3}", False, "a power"),
    (r"\frac{8}{27}", r"\left(\frac23\right)^3", False, "of a fraction"),
    (r"\frac12", r"\frac{\sqrt2}{\sqrt8}", False, "a quotient of roots"),
    (r"\frac12", r"\frac{\sqrt2}{2\sqrt2}", False, "in disguise"),
    # long numbers
    ("2^{100}", "2^{100}", True, "as its gold answer"),
    ("1267650600228229401496703205376", "2^{100}", True, "a power that a person would leave"),
    ("1267650600228229401496703205375", "2^{100}-1", True, "less one"),
    ("2^{100}", "4^{50}", True, "another power"),
    ("2^{100}", r"2^{50}\cdot2^{50}", False, "a product of equal ones"),
    ("6^{100}", r"2^{100}\cdot3^{100}", True, "a product of unlike ones"),
    ("4", r"\frac{2^{100}}{2^{98}}", False, "but a short gold answer is short"),
    ("100!", "100!", True, "a factorial"),
    ("93326215443944152681699238856", "30!", True, "a long one"),
    # golds that are not evaluated
    ("2^{10}", "2^{10}", True, "as its gold answer"),
    ("2^{10}", "4^5", True, "the same operation"),
    ("2^{10}", "1024", True, "evaluated"),
    ("2^{10}", r"2\cdot512", False, "another operation"),
    ("2^{10}", "2^10", True, "without braces"),
    (r"\binom{5}{2}", r"\binom{5}{3}", True, "a binomial"),
    (r"\binom{5}{2}", "10", True, "its value"),
    (r"6\times7", r"7\cdot6", True, "a product"),
    (r"\sin50^\circ", r"\cos40^\circ", True, "a function"),
    (r"\arctan 2", r"\arctan 2", True, "another"),
    # constants and radicals
    (r"2\sqrt3", r"2\sqrt3", True, "a radical"),
    (r"2\sqrt3", r"\sqrt{12}", True, "in other terms"),
    (r"2\sqrt3", r"2\cdot\sqrt{3}", True, "with a dot"),
    (r"2\sqrt3", r"2\sqrt3\ (\approx 3.46)", True, "rounded in brackets"),
    (r"2\sqrt3", "3.4641016151", True, "a decimal"),
    (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt3}", True, "a root below"),
    (r"\frac{\sqrt3}{2}", r"\frac12\sqrt3", True, "a fraction before it"),
    (r"\sqrt6", r"\sqrt2\sqrt3", False, "a product of roots"),
    (r"2\sqrt2", r"\sqrt2+\sqrt2", False, "like terms"),
    (r"3\sqrt2", r"\sqrt2+\sqrt8", False, "hidden like terms"),
    (r"6\sqrt3", r"2\cdot3\sqrt3", False, "two numbers before it"),
    (r"2\sqrt3", r"\frac{6\sqrt3}{3}", False, "a fraction that cancels"),
    (r"\sqrt3", r"2\sin60^\circ", False, "a sine"),
    (r"\sqrt[3]{2}", r"2^{1/3}", True, "a root as a power"),
    (r"\sqrt2+\sqrt3", r"\sqrt3+\sqrt2", True, "unlike terms"),
    (r"1+\sqrt2", r"1+\sqrt2", True, "a sum that stays"),
    (r"1+\sqrt2", r"3+\sqrt2-2", False, "a sum that does not"),
    (r"\frac{1+\sqrt5}{2}", r"\frac12+\frac{\sqrt5}{2}", True, "in two fractions"),
    (r"5\sqrt5-10", r"5(\sqrt5-2)", True, "a factor before a bracket"),
    (r"3+2\sqrt2", r"(1+\sqrt2)^2", False, "a power of a sum"),
    (r"1+\sqrt2", r"(1+\sqrt2)(3-2)", False, "a product of sums"),
    (r"2\pi+3", r"2\pi+3", True, "pi"),
    (r"6\pi", r"6\times\pi", True, "a number times pi"),
    (r"6\pi", r"2\cdot3\pi", False, "two numbers"),
    (r"6\pi", r"2\pi+4\pi", False, "a sum of its multiples"),
    (r"9\pi", r"\pi\cdot3^2", False, "an area before it is worked out"),
    (r"\pi^2", r"\pi^2", True, "its square"),
    (r"\frac{2\pi}{3}", r"\frac23\pi", True, "a fraction of it"),
    (r"e^2", r"e^2", True, "a power of e"),
    ("3.1416", r"\pi", True, "a gold answer that is rounded"),
    ("0.5", r"\sin30^\circ", False, "but a function is a function"),
    ("0.5", r"\sqrt{0.25}", False, "and a square a square"),
    (r"90^\circ", r"\frac{\pi}{2}", True, "a gold answer in degrees"),
    (r"90^{\circ}", r"\frac{\pi}{2}", True, "with braces"),
    (r"90^\circ", r"45^\circ+45^\circ", False, "a sum of angles"),
    (r"\ln 2", r"\ln 2", True, "a logarithm that stays"),
    (r"\ln 2", "ln(2)", True, "without TeX"),
    (r"\log_2 3", r"\log_{2}3", True, "to another base"),
    (r"3+\ln 2", r"\log_2 8+\ln2", False, "one that does not"),
    (r"3+4i", r"3+4i", True, "a complex number"),
    (r"3+4i", r"(2+i)^2", False, "a power of one"),
    (r"i", r"\frac{1+i}{1-i}", False, "a quotient"),
    (r"5+5i", r"(2+i)(3+i)", False, "a product"),
    # lists and the like
    ("1,2", "1, 2", True, "a list"),
    ("1,2", "1, 1+1", False, "with a sum in it"),
    (r"\{1,2\}", r"\{2, \frac{1}{1}\}", False, "with a fraction in it"),
    ("(6,42)", "(6, 42)", True, "a tuple"),
    ("(6,42)", r"(6, 6\cdot7)", False, "with a product in it"),
    (r"[0,\sqrt2)", r"[0,\sqrt{2})", True, "an interval"),
    (r"[0,2)", r"\left[0,\sqrt{4}\right)", False, "with a square under a root"),
    (r"(-\infty,1)\cup(2,\infty)", r"(-\infty,1)\cup(2,\infty)", True, "a union"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", True, "a matrix"),
    (r"\begin{pmatrix}1\\4\end{pmatrix}", r"\begin{pmatrix}1\\2\cdot2\end{pmatrix}", False, "with a product in it"),
    ("x=1,y=2", "x=1, y=2", True, "names"),
    (r"1\text{ and }2", r"1 \text{ and } 2", True, "words between"),
    ("3:4", "3:4", True, "a ratio"),
    ("12:30", "12:30", True, "a time"),
    ("2", r"2\text{ hours }30\text{ minutes}", True, "two units"),
    (r"\pm3", r"\pm 3", True, "two signs"),
    (r"\pm\sqrt3", r"\pm\sqrt{3}", True, "of a radical"),
    (r"2\pm\sqrt3", r"2\pm\sqrt{3}", True, "in a sum"),
    # what only trees and units know
    ("42", r"\frac{42x}{x}", False, "a variable that cancels"),
    ("5", "5m", True, "but a letter after a number is a unit"),
    (r"\textbf{(B)}\ 3", "B", True, "or the letter of an option"),
    ("6", r"4\frac{3}{2}", False, "no mixed number but a product"),
    ("-2", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", False, "a determinant"),
    ("42", "84/2 apples", False, "a quotient with a unit"),
    ("42", r"6\times7\text{ cm}", False, "a product with one"),
    ("2", r"200\%", True, "a percentage of more than everything"),
    ("10e", "2e+8e", False, "e is no exponent here"),
    (r"\frac12", r"\frac{1\frac12}{3}", False, "a mixed number over a number"),
    (r"\frac16", "0.1(6)", True, "a repeating decimal that begins late"),
    ("90°", r"\frac{\pi}{2}", True, "degrees with the sign itself"),
    ("(-2,2)", "-2<x<2", True, "an interval as an inequality"),
    ("(-2,2)", "-2<x<1+1", False, "with a sum in it"),
    ("42", "1" + "/1" * 500 + r"\cdot42", False, "a high tree"),
    # golds that are no numbers
    ("x+1", "1+x", True, "a variable"),
    ("2x", r"x(6-4)", True, "nothing is asked of expressions"),
    ("x^2-1", "(x-1)(x+1)", True, "nor of products"),
    (r"2\theta", r"\theta+\theta", True, "whatever the letter"),
    (r"\text{Yes}", "Yes", True, "a word"),
    ("(A)", "A", True, "a letter"),
)


@pytest.mark.parametrize(("gold", "answer", "evaluated", "why"), ROWS, ids=[f"{r[0]}|{r[1]}" for r in ROWS])
def test_rows(gold: str, answer: str, evaluated: bool, why: str) -> None:
    assert is_evaluated(gold, answer) is evaluated, f"{why}; left to do: {left_to_do(answer)}"


numbers = st.integers(-(10**6), 10**6)
small = st.integers(2, 30)


@given(numbers, numbers.filter(bool))
def test_written_numbers_are_evaluated(above: int, below: int) -> None:
    value = Fraction(above, below)
    gold = f"\\frac{{{above}}}{{{below}}}"
    assert is_evaluated(gold, f"{value.numerator}/{value.denominator}") or value.denominator == 1
    assert is_evaluated(gold, f"\\frac{{{value.numerator}}}{{{value.denominator}}}") or value.denominator == 1
    assert is_evaluated(gold, str(above / below))
    assert is_evaluated(str(above), f"{above:,}")
    assert is_evaluated(str(above), f"x = {above}")
    assert is_evaluated(str(above), f"{above}\\text{{ apples}}")


@given(numbers, numbers.filter(bool), st.sampled_from([r"\times", r"\cdot", "*", "×", "·"]))
def test_arithmetic_of_two_numbers_is_not(one: int, other: int, times: str) -> None:
    assert not is_evaluated(str(one * other), f"{one}{times}{other}")
    assert not is_evaluated(str(one * other), f"({one})({other})")
    assert not is_evaluated(str(one + other), f"{one}+({other})")
    assert not is_evaluated(str(one - other), f"{one}-({other})")
    assert not is_evaluated(str(one), f"\\frac{{{one * other}}}{{{other}}}")
    assert not is_evaluated(str(one), f"{one * other}/{abs(other)}")
    assert is_evaluated(str(one * other), f"{one}{times}{other}={one * other}")


@given(small, small, small)
def test_nor_is_that_of_radicals_and_constants(a: int, b: int, c: int) -> None:
    for part in (rf"\sqrt{{{a}}}", r"\pi", r"e", r"\ln 7"):
        gold = rf"{b * c}{part}"
        assert not is_evaluated(gold, rf"{b}\cdot{c}{part}")
        assert not is_evaluated(gold, rf"{b}{part}+{b * c - b}{part}")
        assert not is_evaluated(rf"{b + c}+{part}", rf"{b}+{part}+{c}")
    assert not is_evaluated(str(a), rf"\sqrt{{{a * a}}}")
    assert not is_evaluated(str(a), rf"\log_{{{b}}}{{{b**a}}}")
    assert is_evaluated(rf"{b * c}\pi+{a}", rf"{a}+{b * c}\pi")


HOSTILE = (
    r"\frac",
    r"\sqrt",
    r"\ln",
    r"\sin",
    "(",
    "{",
    "-",
    "^",
    "!",
    r"\text",
    "=",
    ",",
    "|",
    "e^",
    r"\sqrt[",
    "C(",
    "/10^{-300}",
    "9",
)
"""Beginnings without an end."""


@given(st.text(max_size=80) | st.lists(st.sampled_from([*HOSTILE, "2", ")", "}", "]", "+", r"\\", "&"])).map("".join))
@example(r"\frac12" * 280)
@example("9" * 1999)
@example("9^" * 900)
@example(r"\log_{1.0000001}2")
@example(r"\binom{9999}{5000}")
@example(r"10^{-300}" * 200)
@settings(deadline=None)
def test_any_text_is_read(text: str) -> None:
    assert is_evaluated("42", text) in {True, False}
    assert is_evaluated(text, text)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_are_read(piece: str) -> None:
    for text in (piece * (1990 // len(piece)), piece * 100 + "2", piece * 10_000):
        assert is_evaluated(text, text)
        is_evaluated("42", text)


def test_roots_with_more_digits_than_a_float_are_drawn() -> None:
    assert left_to_do(rf"\sqrt[3]{{{(10**17 + 1) ** 3}}}") == {"root"}
    assert left_to_do(rf"\sqrt[3]{{{(10**17 + 1) ** 3 + 1}}}") == frozenset()
