"""MMMU: rows with questions, the golds alone, the published parsers, and pictures at their markers."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.config import VerifyConfig
from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Graded, Item
from spark_rl.evals.benchmarks.mmmu import BENCHMARK, DISCIPLINES, is_open_right, load, read_open, read_option
from spark_rl.verify import Verifier

DATA = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[4] / "shared" / "data")) / "vlm" / "mmmu"
OPTIONS = ("a tall red tower", "the river", "a bridge")


@pytest.fixture(scope="module")
def verifier() -> Any:
    with Verifier(VerifyConfig(workers=1)) as one:
        yield one


def row(**other: Any) -> dict[str, Any]:
    return {
        "id": "validation_Art_Theory_3", "question": "What is <image 1>?", "options": str(list(OPTIONS)), "answer": "B",
        "question_type": "multiple-choice", **{f"image_{i}": None for i in range(1, 8)}, "image_1": "1.png", **other,
    }  # fmt: skip


def opened(answer: Any, **other: Any) -> dict[str, Any]:
    return row(options="[]", answer=answer, question_type="open", **other)


def read(folder: Path, *rows: dict[str, Any]) -> list[Item]:
    path = folder / "validation.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load(path)


def graded(protocol: str, item: Item, response: str, verifier: Verifier) -> Graded:
    (grade,) = BENCHMARK.protocols[protocol].score([item], [response], verifier)
    return grade


def test_a_row_becomes_an_item(tmp_path: Path) -> None:
    (item,) = read(tmp_path, row())
    problem = item.problem
    assert problem.question == "What is <image>?\nA. a tall red tower\nB. the river\nC. a bridge"
    assert (problem.answer, problem.kind, problem.choices) == ("B", "choice", OPTIONS)
    assert problem.images == (str(tmp_path / "1.png"),)
    assert problem.prompt is None
    assert (item.meta["subject"], item.meta["discipline"]) == ("Art_Theory", "Art and Design")


def test_options_may_be_a_list(tmp_path: Path) -> None:
    assert read(tmp_path, row(options=list(OPTIONS))) == read(tmp_path, row())


def test_pictures_stand_where_they_are_first_mentioned(tmp_path: Path) -> None:
    options = str(["<image 3>", "<image 2> again", "none"])
    (item,) = read(
        tmp_path,
        row(question="Like <image 2>? See <image 2>.", options=options, image_2="2.png", image_3="3.png", answer="A"),
    )
    assert [Path(str(image)).name for image in item.problem.images] == ["1.png", "2.png", "3.png"]
    assert item.problem.question == ("<image>Like <image>? See <image 2>.\nA. <image>\nB. <image 2> again\nC. none")
    assert item.problem.question.count("<image>") == len(item.problem.images)


@pytest.mark.parametrize(
    "bad",
    [
        row(question="See <image 5>"), row(image_1=None, question="?"), row(answer="D"), row(answer="AB"),
        row(answer="?"),
        row(options="__import__('os')"), row(options="[" * 500), opened(""), row(question=""),
    ],
)  # fmt: skip
def test_unusable_rows_are_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"row 2: "):
        read(tmp_path, row(), bad)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(A) no, (C) it is", "C"),
        ("I think B", "B"),
        ("B.", "B"),
        ("Not A but C .", "C"),
        ("A. because of its height", None),  # nor "A." inside
        ("(A), (B) or B C", "B"),  # brackets first, the last of them
        ("a B b C.", "C"),  # the stop at the end is cut off
        ("It must be, I am sure, the river here", "B"),
        ("the river", None),  # option texts only in more than five words
        ("The river? No, surely it is a bridge", "C"),
        ("nothing that one could read here at all", None),
        (r"so \boxed{B}", None),  # the official parser knows no box
        ("", None),
    ],
)
def test_read_option(text: str, found: str | None) -> None:
    assert read_option(text, OPTIONS) == found


@pytest.mark.parametrize(
    ("golds", "text", "right"),
    [
        (["24.32"], "So the result is 24.32", True),
        (["24.32"], "24.324 is near", False),  # the tail of "is" is what counts
        (["24.32"], "x = 24.324", True),  # rounded to two decimals
        (["2000000"], "The answer is 2,000,000 dollars", True),
        (["360"], "The answer is 1360", False),
        (["Transformation"], "this is a transformation of cells", True),
        (["1/64"], "Thus the chance is 1/64.", True),
        (["24/7", "3.429"], "The answer is 3.43", True),
        (["C"], "the answer is option c", True),  # a space on either side
        (["C"], "the answer is c, as seen", False),
        (["C"], "acidic", False),
        (["-120"], "V is -120 V", True),
        (["0.10"], "10 percent = .1", True),
        (["4"], "", False),
    ],
)
def test_open_answers_by_the_official_rule(golds: list[str], text: str, right: bool) -> None:
    assert is_open_right(golds, read_open(text)) is right


def test_read_open_takes_tails_and_numbers() -> None:
    found = read_open("We know a is 7 so far.\nTherefore the final answer is 1,500.5 m")
    assert set(found) == {"far.", "1,500.5 m", 1500.0, 500.5}
    assert read_open("None of the cues.") == ["none of the cues"]


@given(st.text(alphabet="0123.,eE+- x", max_size=24))
def test_read_open_finds_the_numbers_of_the_published_expressions(text: str) -> None:
    published = (
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
    )
    lowered = text.strip().strip(".").lower()
    numbers = [float(found.replace(",", "")) for pattern in published for found in re.findall(pattern, lowered)]
    candidates = read_open(text)
    assert {round(number, 2) for number in numbers} <= {found for found in candidates if isinstance(found, float)}
    # at most one more, the whole text where it is a number
    assert len(candidates) - len(numbers) in {1, 2}


def test_long_responses_are_read_in_time(tmp_path: Path, verifier: Verifier) -> None:
    (item,) = read(tmp_path, opened("5"))
    started = time.monotonic()
    graded("official", item, "9" * 1_000_000, verifier)
    graded("official", item, "is " * 300_000, verifier)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("24.32", r"\boxed{24.32}", True),
        ("24.32", r"\boxed{24.3}", False),
        ("24.32", "it is 24.32", False),  # the rule wants the box
        ("2000000", r"\boxed{2,000,000}", True),
        ("['24/7', '3.429']", r"\boxed{\frac{24}{7}}", True),
        (["24/7", "3.429"], r"\boxed{3.429}", True),
        ("Transformation", r"\boxed{\text{transformation}.}", True),
        ("Transformation", r"\boxed{translation}", False),
        (["Tampa", "Florida"], r"\boxed{florida}", True),
        ("C", r"\boxed{c}", True),
    ],
)
def test_open_answers_by_rule(tmp_path: Path, verifier: Verifier, answer: Any, response: str, right: bool) -> None:
    (item,) = read(tmp_path, opened(answer))
    assert graded("rule", item, response, verifier).score == float(right)


def test_letters_by_rule_and_officially(tmp_path: Path, verifier: Verifier) -> None:
    (item,) = read(tmp_path, row())
    for response, rule, official in ((r"\boxed{B}", 1.0, 0.0), (r"\boxed{the river}", 1.0, 0.0), ("(B)", 1.0, 1.0)):
        assert graded("rule", item, response, verifier).score == rule
        assert graded("official", item, response, verifier).score == official
    assert graded("official", item, "?", verifier).status == "unparsable"  # never drawn


def test_breakdowns(tmp_path: Path, verifier: Verifier) -> None:
    items = read(tmp_path, row(), row(id="validation_Math_15"), opened("3", id="validation_Math_16"))
    protocol = BENCHMARK.protocols["rule"]
    found = protocol.add_up(items, protocol.score(items, [r"\boxed{B}", r"\boxed{A}", r"\boxed{3}"], verifier))
    assert found == pytest.approx(
        {
            "score": 2 / 3, "subject/Art_Theory": 1, "subject/Math": 0.5, "discipline/Art and Design": 1,
            "discipline/Science": 0.5, "type/choice": 0.5, "type/open": 1,
        }
    )  # fmt: skip


def test_thirty_subjects() -> None:
    assert sum(map(len, DISCIPLINES.values())) == 30
    assert len(DISCIPLINES) == 6


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set SPARK_RL_DATA_ROOT")
def test_the_real_golds(verifier: Verifier) -> None:
    items = load(DATA / "answer_dict_val.json")
    assert len(items) == BENCHMARK.published == 900
    assert Counter(item.meta["type"] for item in items) == {"choice": 847, "open": 53}
    assert sum(len(item.meta["golds"]) > 1 for item in items) == 3
    assert set(Counter(item.meta["subject"] for item in items).values()) == {30}
    assert None not in {item.meta["discipline"] for item in items}
    assert not any(Path(str(image)).exists() for item in items for image in item.problem.images)
    said = [f"The answer is {item.meta['golds'][-1]}" for item in items]
    official = BENCHMARK.protocols["official"]
    assert official.add_up(items, official.score(items, said, verifier))["score"] == 1.0
    rule = BENCHMARK.protocols["rule"]
    boxed = [rf"\boxed{{{item.meta['golds'][-1]}}}" for item in items]
    assert rule.add_up(items, rule.score(items, boxed, verifier))["score"] == 1.0
    assert rule.add_up(items, rule.score(items, [r"\boxed{Z}"] * 900, verifier))["score"] == 0.0
