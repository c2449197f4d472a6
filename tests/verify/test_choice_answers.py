"""Kind ``choice``: letters and option texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.verify.choice import compare_choice
from spark_rl.verify.grade import grade
from spark_rl.verify.letters import read_letters
from spark_rl.verify.pool import default_verifier
from spark_rl.verify.symbolic import symbolically_equal

OPTIONS = ("3/11", r"$\frac{1}{2}$", "a quarter", "2.50")
PLAIN: tuple[str, ...] = ()

ROWS = (
    ("B", "B", OPTIONS, "correct", "the letter"),
    ("B", "b", OPTIONS, "correct", "a small letter"),
    ("B", "(B)", OPTIONS, "correct", "in parentheses"),
    ("B", "B.", OPTIONS, "correct", "with a stop"),
    ("B", "B)", OPTIONS, "correct", "with a closing parenthesis"),
    ("B", r"\text{B}", OPTIONS, "correct", "in text"),
    ("B", r"\textbf{(B)}", OPTIONS, "correct", "in bold parentheses"),
    ("B", r"\mathrm{B}", OPTIONS, "correct", "in roman"),
    ("B", "**B**", OPTIONS, "correct", "in Markdown"),
    ("B", "Option B", OPTIONS, "correct", "named as an option"),
    ("B", r"B: \frac{1}{2}", OPTIONS, "correct", "with its text"),
    ("B", r"(B) \frac12", OPTIONS, "correct", "with its text, spelled otherwise"),
    ("B", "A", OPTIONS, "wrong", "another letter"),
    ("B", r"\frac{1}{2}", OPTIONS, "correct", "the option's text"),
    ("B", r"\dfrac12", OPTIONS, "correct", "the text, canonical"),
    ("B", "0.5", OPTIONS, "correct", "the same number as one option"),
    ("D", "2.5", OPTIONS, "correct", "a number with fewer zeros"),
    ("C", "A quarter.", OPTIONS, "correct", "words without regard to case"),
    ("B", "3/11", OPTIONS, "wrong", "the text of another option"),
    ("C", "a", OPTIONS, "wrong", "a lone letter is a letter"),
    ("a quarter", "C", OPTIONS, "correct", "the gold is an option's text"),
    (r"\frac{1}{2}", "(B)", OPTIONS, "correct", "the gold is a number among the options"),
    ("B", "B: 3/11", OPTIONS, "unparsable", "a letter beside another option's text"),
    ("B", "E", OPTIONS, "unparsable", "no such option"),
    ("B", "7", OPTIONS, "unparsable", "no option has this value"),
    ("B", "B or C", OPTIONS, "unparsable", "two letters for a gold of one"),
    ("B", "A, B", OPTIONS, "unparsable", "two letters in a list"),
    ("B", "none of these", OPTIONS, "unparsable", "other words"),
    ("A", "1", ("1", "1.0", "2"), "correct", "the same words before the same number"),
    ("A", "1.00", ("1", "1.0", "2"), "unparsable", "a number that two options have"),
    ("A", "x", ("x", "x"), "correct", "equal options are the same answer"),
    ("A", "0.5", (r"\frac{2}{4}", r"\frac{1}{2}"), "unparsable", "two options of one value, spelled differently"),
    ("B", "BB Bb", ("BB BB", "BB Bb", "Bb Bb", "Bb bb"), "correct", "options that differ in case only"),
    ("B", "(A) and (C)", ("x", "(A) and (C)", "y"), "correct", "an option that speaks of others"),
    ("A", "(A) and (C)", OPTIONS, "unparsable", "two labels"),
    ("C", "A", ("x", "y", "A"), "wrong", "a lone letter is a label, not a text"),
    ("E", "(E)", PLAIN, "correct", "letters need no options"),
    ("E", "F", PLAIN, "wrong", "nor do other letters"),
    ("B, D", "D, B", PLAIN, "correct", "several letters in any order"),
    ("B, D", "BD", PLAIN, "correct", "run together"),
    ("B, D", "B and D", PLAIN, "correct", "in words"),
    ("B, D", "B", PLAIN, "wrong", "one of two"),
    ("B, D", "BB", PLAIN, "unparsable", "a letter twice"),
    ("B", "", OPTIONS, "no_answer", "an empty box"),
)


@pytest.mark.parametrize(("gold", "answer", "choices", "expected", "why"), ROWS)
def test_table(gold: str, answer: str, choices: tuple[str, ...], expected: str, why: str) -> None:
    status, extracted = grade(f"thus \\boxed{{{answer}}}", gold, "choice", choices)

    assert status == expected, why
    assert extracted == answer


NUMBERS = ("7", "8", "9", "10")
LETTERS = (
    "B", "b", "(B)", "(b)", "[B]", "{B}", "<B>", "B.", "B)", "B:", r"\text{B}", r"\text{(B)}", r"\textbf{B}",
    r"\textbf{(B)}", r"\mathbf{B}", r"\boldsymbol{B}", r"\bm{B}", r"\mathcal{B}", r"\mathbb{B}", r"\boxed{B}",
    r"\fbox{B}", r"\underline{B}", r"\emph{B}", r"\textcolor{red}{B}", r"\color{blue}B", r"\Large B",
    r"\left(B\right)", r"\big(B\big)", "$B$", r"\(B\)", "**B**", "`B`", '"B"', "'B'", r"\mathrm{(B)}", r"\mathsf B",
    r"{\bf B}", r"B\ ", r"\,B\,", "~B", r"\operatorname{B}", r"\textsc{B}", r"\textcircled{B}", "Ｂ", "（Ｂ）", "Ⓑ",
    "ⓑ", "⒝", "🅑", "🅱", "𝐁", "【B】", "「B」", "Option B", "choice B", "Answer: B", r"\text{Answer: }B",
    "The correct answer is (B)", "B is correct", "B only", "选B", "答案：B", "故选B。", "B项",
    r"\mathds{B}", r"{\cal B}", r"\colorbox{red}{B}", r"\boxed{\boxed{B}}", r"\left( \text{B} \right)",
    r"\text{Option (B)}", "It is B", "I choose B", r"\therefore B", "→ B", "🇧", "B ✓", "<b>B</b>", "((B))", r"B\\",
    "选项：B", "答案为B",
)  # fmt: skip
WITH_TEXT = (
    "B (8)", "B: 8", "B. 8", "B) 8", "B, 8", "B = 8", "B - 8", "B 8", "(B) 8", "8 (B)", r"\textbf{(B)}\ 8",
    r"\textbf{(B) }8", r"\textit{(B)}\; 8", r"B \quad 8", "B: $8$", "$B: 8$", "**B. 8**", r"\text{B. 8}", "B、8",
    "B．8", r"B: 2^3", r"8 \ (\text{B})", r"\text{8 (B)}", r"B\,(8)", r"\text{B (8)}", "B — 8", "B → 8",
    r"\text{B. }\frac{16}{2}",
)  # fmt: skip
HEDGES = (
    "A. 7, B. 8", "A. 7 B. 8", "A) 7; C) 9", "A. B. C. D.", "A) B) C) D)", "A: 7 or 8", "(A) and (B)", "A and B",
    "A or B", r"A \text{ or } B", r"\text{A or B}", r"A \lor B", "A/B", "A / C", "A, B", "A B", "A: B", "A|B",
    "A & B", "A; B", "A vs B", "A-B", "A+B", "A→B", "AB", "ABCD", "(A)(B)", "(A),(B),(C),(D),(E)", "either A or B",
    "A, but maybe B", "A (or B)", "A?", "A or not", "A. 7 and B. 8", "Not A", "not A", r"\text{Not }A", r"\neg A",
    "no A", "Except A", "neither A nor B", "all but A", "A, not B", "A: not 7", "A is incorrect", "A is wrong",
    "A is not correct", "A isn't correct", "A > B", "A < B", r"A \neq B", "A. no, B", "the answer is not A",
    "The answer is A. Wait, the answer is B",
)  # fmt: skip
CONTRADICTIONS = (
    "A: 7, 8",
    "A: 7 / 8",
    "A. 8",
    "A (8)",
    "8 (A)",
    "A 8",
    "A = 8",
    "A; 8",
    r"A: \frac{16}{2}",
    "7 or 8",
    "7, 8",
    "7 (B)",
)


@pytest.mark.parametrize("answer", ["(A) 0 (B) 1", "A: 0 or 1", "A. 0; B. 1", "0 (B)", "0 or 1", "A (0), B (1)"])
def test_a_product_with_zero_hides_no_hedge(answer: str) -> None:
    assert decided("A", answer, ("0", "1", "2", "10")) == "unparsable"


def decided(gold: str, answer: str, choices: tuple[str, ...]) -> str | None:
    """The status that a worker finds."""
    return compare_choice(gold, answer, choices, symbolically_equal)


@pytest.mark.parametrize("answer", LETTERS)
def test_letters_in_every_dress(answer: str) -> None:
    assert decided("B", answer, NUMBERS) == decided("B", answer, ()) == "correct"
    assert decided("A", answer, NUMBERS) == "wrong"
    assert read_letters(answer) == {"B"}


@pytest.mark.parametrize("answer", WITH_TEXT)
def test_letters_beside_their_own_text(answer: str) -> None:
    assert decided("B", answer, NUMBERS) == "correct"


@pytest.mark.parametrize("answer", HEDGES)
def test_what_keeps_a_way_out_is_no_answer(answer: str) -> None:
    assert decided("A", answer, NUMBERS) == decided("A", answer, ()) == "unparsable"
    assert read_letters(answer, several=False) is None


@pytest.mark.parametrize("answer", CONTRADICTIONS)
def test_a_letter_beside_the_text_of_another_option(answer: str) -> None:
    assert decided("A", answer, NUMBERS) == decided("B", answer, NUMBERS) == "unparsable"


@pytest.mark.parametrize(
    "answer",
    [
        "A. Point B",
        "A. 7",
        "A: 30 N",
        "A (8)",
        r"(A) \frac12",
        "A: $x=5$",
        "A: No correct answer",
        "A、12",
        "A. AB = CD",
    ],
)
def test_texts_beside_letters_of_unknown_options(answer: str) -> None:
    assert decided("A", answer, ()) == "correct"


@pytest.mark.parametrize(
    "answer", [r"\overline{A}", "E(X)", "f(x)", "B'", "B^c", "B_1", "P(A|B)", "AB=5", r"B^{\prime}", "B2", "Bob"]
)
def test_names_are_no_letters(answer: str) -> None:
    assert {decided(letter, answer, ()) for letter in "ABEFP"} == {"unparsable"}


PI = (r"$\pi + 2$", r"$2\pi$", r"$\frac{5}{3} \pi$", r"$\frac{5}{6} \pi + 2$", r"$\frac{5}{3} \pi + 2$")
METRES = ("3.85米", "4.00米", "4.40米", "4.50米")
TWICE = ("9", "12", "18", "18")

MATHEMATICS = (
    ("E", r"\frac{5\pi}{3}+2", PI, "correct", "the same sum"),
    ("E", r"2+\frac{5}{3}\pi", PI, "correct", "in another order"),
    ("E", r"E: \frac{5\pi}{3}+2", PI, "correct", "with its letter"),
    ("D", r"D: \frac{5\pi}{3}+2", PI, "unparsable", "with another letter"),
    ("E", r"\frac{5\pi}{3}+3", PI, "unparsable", "no option"),
    ("D", r"\frac{5\pi}{3}+2", PI, "wrong", "another option"),
    (
        "E",
        r"5\sqrt{5}-10",
        ("1", "1.2", r"$2(\sqrt{5}-2)$", r"$3(\sqrt{5}-1)$", r"$5(\sqrt{5}-2)$"),
        "correct",
        "a product",
    ),
    ("A", r"\sqrt{\frac{4}{\pi}}", (r"$\frac{2}{\sqrt{\pi}}$", r"$\frac{3}{2}$", r"$\sqrt{3}$"), "correct", "a root"),
    ("A", "1+x", ("x+1", "x-1"), "correct", "variables"),
    ("C", "(1,2)", ("(2,1)", "(1,3)", "(1,2)"), "correct", "pairs have an order"),
    ("A", "x=7", ("7", "8"), "correct", "a name before the value"),
    ("B", "d = 8", ("7", "8"), "correct", "a small letter is a variable"),
    ("A", "cat", ("act", "dog"), "unparsable", "words are no products"),
    ("A", "5", ("5x", "6x"), "unparsable", "a variable is no unit"),
    ("A", "5", ("5δ", "6δ"), "unparsable", "nor is one in Greek"),
    ("C", "4.40", METRES, "correct", "without the unit"),
    ("C", "4.4米", METRES, "correct", "with the unit"),
    ("C", "4.40厘米", METRES, "unparsable", "with another unit"),
    ("C", "4.40", ("3.85米", "4.00米", "4.40米", "4.40厘米"), "unparsable", "two options without their units"),
    ("C", "4.40米", ("3.85", "4.00", "4.40", "4.50"), "correct", "a unit that the question holds"),
    ("B", "20", ("￥10", "￥20"), "correct", "a currency before the number"),
    ("B", r"\text{20元}", ("10元", "20元"), "correct", "a unit in text"),
    ("A", "5", ("5 cm", "5 m"), "unparsable", "two units"),
    ("B", "5 m", ("5 cm", "5 m"), "correct", "one of two units"),
    ("B", "8", ("7%", "8%"), "correct", "a percent sign"),
    ("C", "18", TWICE, "correct", "the text of two equal options"),
    ("D", "18", TWICE, "correct", "whichever is the gold"),
    ("C", "D", TWICE, "correct", "the letter of the other one"),
    ("18", "D", TWICE, "correct", "a gold that is a text of two"),
    ("A", "18", TWICE, "wrong", "of other options"),
    ("A", "B", ("<image>", "<image>"), "wrong", "pictures are not compared"),
    ("A", "B", (r"\frac{2}{4}", r"\frac{1}{2}"), "wrong", "forms of one value are different options"),
    ("A", "not a function", ("a function", "not a function"), "wrong", "a text with not"),
    ("B", "B: not a function", ("a function", "not a function"), "correct", "and beside its letter"),
    ("A", "A. No", ("Yes", "No"), "unparsable", "yes and no"),
    ("B", "c", ("2c", "c", "0.8c"), "correct", "a small letter that is an option's text as it stands"),
    ("C", "C", ("2c", "c", "0.8c"), "correct", "a capital is a label"),
    ("A", "(c)", ("(c)", "(a)", "(b)"), "correct", "in brackets as the option has it"),
    ("B", r"\text{I, II; and III}", ("I only", "I, II; and III"), "correct", "an option's text in LaTeX"),
    ("B", "B (f (x) and g)", ("f", "f (x) and g"), "correct", "a text with brackets in brackets"),
    ("B", "B. It costs $9,830.", ("It costs $983", "It costs $9,830."), "correct", "a lone dollar sign"),
    ("B, D", r"\{B, D\}", NUMBERS, "correct", "a set of letters"),
    ("B, D", "(B), (D)", NUMBERS, "correct", "in brackets"),
    ("B, D", "B、D", NUMBERS, "correct", "an ideographic comma"),
    ("B, D", "B, D, A", NUMBERS, "wrong", "one too many"),
    ("B, D", "B or D", NUMBERS, "unparsable", "a hedge between them"),
)


@pytest.mark.parametrize(("gold", "answer", "choices", "expected", "why"), MATHEMATICS)
def test_options_as_mathematics(gold: str, answer: str, choices: tuple[str, ...], expected: str, why: str) -> None:
    assert decided(gold, answer, choices) == expected, why


@pytest.mark.parametrize(("gold", "answer", "choices", "expected", "why"), MATHEMATICS)
def test_without_algebra_nothing_is_guessed(
    gold: str, answer: str, choices: tuple[str, ...], expected: str, why: str
) -> None:
    assert compare_choice(gold, answer, choices) in {expected, None}, why


def test_the_verifier_asks_a_worker_about_options() -> None:
    rows = [(rf"\boxed{{{answer}}}", gold, "choice", choices) for gold, answer, choices, *_ in MATHEMATICS]
    found = [verdict.status for verdict in default_verifier().verify_many(rows)]

    assert found == [row[3] for row in MATHEMATICS]


@pytest.mark.parametrize("response", [r"\boxed{B}", "no box at all"])
def test_a_gold_that_is_no_option_is_the_users_mistake(response: str) -> None:
    with pytest.raises(ValueError, match="neither a letter nor the text of one of the 4 choices"):
        grade(response, "seven", "choice", OPTIONS)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    status, _ = grade(f"\\boxed{{{text}}}", "B", "choice", OPTIONS)

    assert status in ("correct", "wrong", "no_answer", "unparsable", None)
