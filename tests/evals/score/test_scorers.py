"""Scorers shared by benchmarks: letters, Yes/No, both protocols, and how grades add up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from spark_rl.config import VerifyConfig
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks import find
from spark_rl.evals.benchmarks.catalogue import all_benchmarks
from spark_rl.evals.score.scorers import (
    ALSO_ACCEPT,
    LETTERS,
    by,
    mean_of_means,
    read_letter,
    read_yes_no,
    reference,
    rule,
    unboxed,
    value_of,
    within,
)
from spark_rl.evals.score.units import units
from spark_rl.problem import Kind, Problem
from spark_rl.verify import Verifier

FRUIT = ("a red apple", "pear", "12 plums", "fig")


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=1, timeout=20.0)) as one:
        yield one


def item(answer: str, kind: Kind = "math", choices: Sequence[str] = (), name: str = "1", **meta: Any) -> Item:
    problem = Problem(id=name, question="q", answer=answer, kind=kind, choices=tuple(choices))
    return Item(problem, meta)


@pytest.mark.parametrize(
    ("response", "letter", "why"),
    [
        (r"So \boxed{B}.", "B", "a boxed letter"),
        (r"\boxed{A} no, \boxed{C}", "C", "the last box"),
        (r"\boxed{\text{(C)}}", "C", "formatting"),
        (r"\boxed{b}", "B", "lower case, alone in a box"),
        (r"\boxed{pear}", "B", "an option's text"),
        (r"\boxed{D. fig}", "D", "letter and its text"),
        (r"\boxed{C: twelve of them}", "C", "a letter that begins the box"),
        (r"\boxed{B. 12 plums}", None, "a letter beside another option's text"),
        (r"\boxed{A grape or so}", None, "an article, not a letter"),
        ("<answer>(B)</answer>", "B", "a tag in place of a box"),
        ("I think of <answer>A</answer>, then <answer>D</answer>", "D", "the last tag"),
        ("</answer> <answer> C", "C", "a tag that never closes is none"),
        ("<answer>A or B</answer> The answer is B", None, "what a tag holds is the answer, be it readable or not"),
        (r"\boxed{A or B} The answer is B", None, "and so is what a box holds"),
        (r"\boxed{} The answer is B", "B", "an empty box is none"),
        ("The answer is A or B", None, "a hedge"),
        ("The answer is (A) and (B).", None, "two letters"),
        ("The answer is B, or maybe C", None, "one that is taken back"),
        ("the answer is B, not A", None, "and one beside another"),
        ("The answer is not B", None, "one that is denied"),
        ("So the answer isn't B", None, "in short"),
        ("The answer is B?", None, "a question"),
        ("Option B is incorrect", None, "one that is called wrong"),
        ("I live in (street B)", None, "a name"),
        ("(street B)", None, "alone"),
        ("We walk along line B", None, "of a line"),
        ("The answer is A dog", None, "an article behind the words that name an answer"),
        ("it is not the pear", None, "a text that is denied"),
        ("A: a red apple\nB: pear", None, "a list of the options"),
        ("Answer: A. pear", None, "a letter beside the text of another option"),
        ("Answer: B. pear", "B", "and beside its own"),
        ("The answer is C. Wait, the answer is D.", "D", "the last statement"),
        ("The answer is B. A is wrong.", "B", "what is said of another one"),
        ("pears are green\n\n**B. pear**", "B", "a last line with its text"),
        ("**Answer:** B", "B", "in Markdown"),
        ("Answer:\nB\n\nPears are green, and that is all there is to it", "B", "on a line of its own"),
        (r"Final answer: \text{(B)}", "B", "in LaTeX"),
        ("I choose B.", "B", "a choice"),
        ("Therefore, option D.", "D", "an option"),
        ("(B) is correct.", "B", "called correct"),
        ("答案是B", "B", "in Chinese"),
        ("故选：C。", "C", "as Chinese solutions end"),
        ("We weigh the options. The answer is D.", "D", "alone among the last words"),
        ("The correct answer is **B** because pears are green and nothing else here is", "B", "stated further up"),
        ("Answer: (C) since only plums come by the dozen in this picture of mine", "C", "stated with a colon"),
        ("A", "A", "a single letter"),
        ("The answer is A", "A", "A at the end"),
        ("Here I see A dog", None, "the article in capitals"),
        ("So option A is right", "A", "A behind the word option"),
        ("B is wrong, so it is C or D", None, "several letters"),
        ("B comes first in my list of all the fruits that I know", None, "a letter too far from the end"),
        ("it must be the pear", "B", "one option's text in a short response"),
        ("it must be the pear or fig", None, "two options' texts"),
        ("it must be pears", None, "text inside a longer word"),
        ("pear " + "because " * 40, None, "too long to search for texts"),
        ("I'm sorry, I can't answer with B", None, "a refusal"),
        ("", None, "nothing"),
        (r"\boxed{}", None, "an empty box"),
        ("the answer is a fruit of some kind that we have all eaten before", None, "a lower-case article"),
        ("The answer is E", None, "no such option"),
    ],
)
def test_letters(response: str, letter: str | None, why: str) -> None:
    assert read_letter(response, FRUIT) == letter, why


@pytest.mark.parametrize(
    ("response", "letters", "letter"),
    [
        (r"\boxed{E}", "ABCDE", "E"),
        (r"\boxed{E}", "ABCD", None),
        (r"\boxed{3}", "ABCD", None),
        ("so it is D", "ABCD", "D"),
        ("so it is I who is right", "ABCDEFGHI", None),
    ],
)
def test_letters_without_texts(response: str, letters: str, letter: str | None) -> None:
    assert read_letter(response, letters) == letter


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes.", "Yes"),
        ("no!", "No"),
        (r"\boxed{Yes}", "Yes"),
        ("Yes, there is no cat", None),
        ("There is nothing", None),
        ("I know", None),
        ("", None),
    ],
)
def test_yes_and_no(text: str, label: str | None) -> None:
    assert read_yes_no(text) == label


def test_rule_takes_the_last_box_and_reference_the_first(verifier: Verifier) -> None:
    items, responses = [item("2")], [r"\boxed{1} hm \boxed{2}"]

    assert rule(items, responses, verifier) == [Graded(1.0, "2", "correct")]
    assert reference(items, responses, verifier) == [Graded(0.0, "1", "wrong")]


def test_rule_is_strict_where_the_reference_is_not_and_the_other_way_round(verifier: Verifier) -> None:
    items = [item("12", name="1"), item(r"\sqrt{12}", name="2")]
    responses = [r"\boxed{1,2}", r"\boxed{2\sqrt{3}}"]

    assert [grade.score for grade in rule(items, responses, verifier)] == [0.0, 1.0]
    assert [grade.score for grade in reference(items, responses, verifier)] == [1.0, 0.0]


def test_letters_and_verdicts_without_a_box_count_where_none_was_asked_for(verifier: Verifier) -> None:
    rows = [
        (item("B", "choice", FRUIT), "The answer is B.", Graded(1.0, "B", "correct")),
        (item("B", "choice", FRUIT), "The answer is C.", Graded(0.0, "C", "wrong")),
        (item("pear", "choice", FRUIT), "The answer is B.", Graded(1.0, "B", "correct")),
        (item("B", "choice", FRUIT), "it must be the pear", Graded(1.0, "B", "correct")),
        (item("B, D", "choice", FRUIT), "The answers are D and B.", Graded(1.0, "B, D", "correct")),
        (item("F", "choice"), "The answer is F.", Graded(1.0, "F", "correct")),
        (item("B", "choice", **{LETTERS: "ABCDEF"}), "The answer is F.", Graded(0.0, "F", "wrong")),
        (item("Yes", "verdict"), "Yes, it is.", Graded(1.0, "Yes", "correct")),
        (item("no", "verdict"), "No.", Graded(1.0, "No", "correct")),
        (item("A", "verdict"), "I prefer answer A", Graded(1.0, "A", "correct")),
    ]
    items, responses = [row[0] for row in rows], [row[1] for row in rows]

    assert unboxed(rule)(items, responses, verifier) == [row[2] for row in rows]
    assert rule(items, responses, verifier) == [Graded(0.0, None, "no_answer")] * len(rows)


def test_what_a_box_says_is_the_answer_readable_or_not(verifier: Verifier) -> None:
    rows = [
        (item("B", "choice", FRUIT), r"\boxed{B}", Graded(1.0, "B", "correct")),
        (item("B", "choice", FRUIT), r"\boxed{\text{(B)}}", Graded(1.0, r"\text{(B)}", "correct")),
        (item("B", "choice", FRUIT), "no idea", Graded(0.0, None, "no_answer")),
        (item("B", "choice", FRUIT), r"\boxed{grapes}", Graded(0.0, "grapes", "unparsable")),
        (item("B", "choice", FRUIT), r"The answer is B. \boxed{grapes}", Graded(0.0, "grapes", "unparsable")),
        (item("A", "choice", FRUIT), r"\boxed{Not A}", Graded(0.0, "Not A", "unparsable")),
        (item("B", "choice"), "The answer is F.", Graded(0.0, None, "no_answer")),
        (item("5"), "the answer is 5", Graded(0.0, None, "no_answer")),
        (item(""), r"\boxed{5}", Graded(0.0, "5", "wrong")),
    ]

    for scorer in (rule, unboxed(rule)):
        assert scorer([row[0] for row in rows], [row[1] for row in rows], verifier) == [row[2] for row in rows]


@pytest.mark.parametrize(
    "box",
    [
        "(A),(B),(C),(D),(E)", "A B", "A) B) C) D)", "B / C", "Not A", "B > A", "A. 7, B. 8", "A. B. C. D.",
        "A: 7 or 8", "(A) and (B)", "B is incorrect", "A: B", "A or not", "A?", "neither A nor B",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scorer", [rule, unboxed(rule)])
def test_hedges_are_unparsable_in_evaluations_too(scorer: Any, box: str, verifier: Verifier) -> None:
    items = [item(gold, "choice", choices) for gold in "AB" for choices in ((), ("7", "8", "9", "10"))]
    responses = [rf"so \boxed{{{box}}}"] * len(items)

    assert scorer(items, responses, verifier) == [Graded(0.0, box, "unparsable")] * len(items)


LETTERED = Item(
    Problem(id="1", question="q", answer="B", kind="choice"),
    {"golds": ["B"], LETTERS: "ABCD", "answer_type": "multiple choice"},
)
SEEN = Item(Problem(id="1", question="q", answer="Yes", kind="verdict"), {"golds": ["Yes"]})


@pytest.mark.parametrize("name", [one.name for one in all_benchmarks() if "rule" in one.protocols])
def test_every_benchmark_does_what_it_states_about_letters_without_a_box(name: str, verifier: Verifier) -> None:
    benchmark = find(name)
    if name.startswith("vl_rewardbench"):  # its verdicts are no letters, and its rule reads them anywhere
        assert benchmark.unboxed
        return
    asked, said = (SEEN, "Yes.") if name == "pope" else (LETTERED, "The answer is B.")
    grades = benchmark.protocols["rule"].score([asked, asked], [said, rf"\boxed{{{asked.problem.answer}}}"], verifier)

    assert [grade.score for grade in grades] == [float(benchmark.unboxed), 1.0]


def test_reference_accepts_further_golds_and_says_why_not(verifier: Verifier) -> None:
    letter = item("B", "choice", FRUIT, **{ALSO_ACCEPT: ["pear"]})
    rows = [
        (letter, r"\boxed{B}", Graded(1.0, "B", "correct")),
        (letter, r"\boxed{pear}", Graded(1.0, "pear", "correct")),
        (letter, r"\boxed{fig}", Graded(0.0, "fig", "wrong")),
        (item("B", "choice", FRUIT), r"\boxed{pear}", Graded(0.0, "pear", "wrong")),
        (letter, "The answer is B.", Graded(0.0, None, "no_answer")),
        (item("5"), r"\boxed{ }", Graded(0.0, None, "no_answer")),
    ]

    assert reference([row[0] for row in rows], [row[1] for row in rows], verifier) == [row[2] for row in rows]


@pytest.mark.parametrize("scorer", [rule, reference])
def test_hostile_responses_cost_a_bounded_time(scorer: Any) -> None:
    responses = [
        "<answer>" * 120_000,
        r"\boxed{" * 20_000,
        "answer is " * 100_000,
        r"\boxed{" + r"\text{" * 5_000 + "}" * 5_001,
        "（" * 500_000,
        r"\boxed{9^{9^{9^{9}}}}",
    ]
    items = [item("B" if i % 2 else "4", "choice" if i % 2 else "math", name=str(i)) for i in range(len(responses))]
    with Verifier(VerifyConfig(workers=2, timeout=0.5)) as verifier:
        verifier.verify(r"\boxed{\sqrt{12}}", r"2\sqrt{3}")
        started = time.monotonic()
        grades = scorer(items, responses, verifier)

    assert [grade.score for grade in grades] == [0.0] * len(responses)
    assert time.monotonic() - started < 30.0


ITEMS = [
    item("1", name="1", subject="algebra", skills=["a", "b"]),
    item("1", name="2", subject="algebra", skills=["b"]),
    item("1", name="3", subject="logic", skills=[]),
    item("1", name="4", subject=None),
]
GRADES = [Graded(1.0), Graded(0.0), Graded(1.0), Graded(1.0)]


def test_breakdowns_stand_beside_the_headline() -> None:
    assert by("subject", "skills")(ITEMS, GRADES) == {
        "score": 0.75,
        "subject/algebra": 0.5,
        "subject/logic": 1.0,
        "skills/a": 1.0,
        "skills/b": 0.5,
    }
    assert by("subject")([], []) == {}


def test_another_headline() -> None:
    first = by("subject", headline=lambda *_: {"score": 0.3})

    assert first(ITEMS, GRADES) == {"score": 0.3, "subject/algebra": 0.5, "subject/logic": 1.0}
    assert mean_of_means("subject")(ITEMS, GRADES) == {"score": 0.75, "subject/algebra": 0.5, "subject/logic": 1.0}
    assert mean_of_means("subject")([], []) == {}


def test_a_unit_that_is_drawn_twice_counts_twice() -> None:
    algebra, logic = [0, 1], [2]
    drawn = algebra + logic + logic
    found = units([ITEMS[i] for i in drawn], [GRADES[i] for i in drawn], lambda one: str(one.meta["subject"]))

    assert [[item for item, _ in unit] for unit in found] == [[ITEMS[0], ITEMS[1]], [ITEMS[2]], [ITEMS[2]]]


@pytest.mark.parametrize(
    ("kind", "answer", "options", "right", "wrong"),
    [
        ("choice", "B", FRUIT, "<think>A?</think> The answer is B", "<think>The answer is B"),
        ("verdict", "Yes", (), "<think>no</think> Yes", "<think>yes</think> No"),
        ("math", "4", (), r"\boxed{3}</think> \boxed{4}", r"\boxed{4}</think> 4"),
    ],
)
def test_rule_does_not_read_thoughts(
    kind: Kind, answer: str, options: tuple[str, ...], right: str, wrong: str, verifier: Verifier
) -> None:
    asked = item(answer, kind, options)
    assert [grade.score for grade in unboxed(rule)([asked] * 2, [right, wrong], verifier)] == [1.0, 0.0]


def test_every_rule_protocol_is_given_what_is_outside_of_thoughts(verifier: Verifier) -> None:
    """A scorer of a benchmark's own too; the authors' protocols are given everything."""
    seen: list[tuple[str, ...]] = []

    def record(items: Sequence[Item], responses: Sequence[str], _: Verifier) -> list[Graded]:
        seen.append(tuple(responses))
        return [Graded(0.0)] * len(items)

    protocols = {name: Protocol(record) for name in ("rule", "reference", "official")}
    benchmark = Benchmark("b", "B", "general", "here", "free", (), lambda _: [], protocols)
    for protocol in benchmark.protocols.values():
        protocol.score([item("4")], ["<think>5</think>4"], verifier)
    assert seen == [("4",), ("<think>5</think>4",), ("<think>5</think>4",)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50%", 50), (r"x = \frac{\sqrt{2}}{2}", 0.5**0.5), (r"\approx 3", 3), ("x = 1 = 2", 2), ("y ≈ 45°", 45),
        ("12 cm", 12), ("1 1/2", 1.5), ("=", None), ("x = y", None), ("x = 3, y = 4 = z", None), ("", None),
    ],
)  # fmt: skip
def test_the_number_that_an_answer_states(text: str, value: float | None) -> None:
    assert value_of(text) == pytest.approx(value)


def test_a_tolerance_is_asked_about_boxes_that_are_no_letters_and_not_right(verifier: Verifier) -> None:
    asked: list[str] = []

    def same(item: Item, boxed: str) -> bool:
        asked.append(item.problem.id + boxed)
        return boxed == "6"

    exact = Item(Problem(id="1", question="?", answer="5"))
    choice = Item(Problem(id="2", question="?", answer="A", kind="choice", choices=("5", "6")))
    said = [(exact, r"\boxed{5}"), (exact, r"\boxed{6}"), (exact, r"\boxed{7}"), (exact, "6"), (choice, r"\boxed{6}")]
    grades = within(same)([item for item, _ in said], [text for _, text in said], verifier)
    assert [grade.score for grade in grades] == [1, 1, 0, 0, 0]
    assert asked == ["16", "17"], "item 1, boxes 6 and 7"
