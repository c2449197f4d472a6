"""DynaMath: one variant and all of them, the tolerance, and the worst case by seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks import dynamath_all
from spark_rl.evals.benchmarks.dynamath import BENCHMARK, extract
from vision_sets import added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write

ALL = dynamath_all.BENCHMARK


def row(**columns: Any) -> dict[str, Any]:
    plain = {
        "question": "What is the range?", "answer": "12", "image": "image/image4.png", "answer_type": "float",
        "subject": "analytic  geometry ", "level": "high school",
    }  # fmt: skip
    return plain | columns


def item(folder: Path, **columns: Any) -> Item:
    return BENCHMARK.load(write(folder / "dataset.json", {"4": row(**columns)}))[0]


def test_a_row_of_github_and_of_the_hub(tmp_path: Path) -> None:
    picture = draw(tmp_path / "image" / "image4.png")
    found = item(tmp_path, answer_type="single answer")
    assert (found.problem.id, found.problem.answer, found.problem.images) == ("4", "12", (str(picture),))
    assert found.meta == {
        "seed": "4", "answer_type": "float", "subject": "analytic geometry", "level": "high school"
    }  # fmt: skip
    hub = {"id": "9", "question": "?", "image": "x.png", "decoded_image": {"bytes": picture.read_bytes(), "path": None},
           "ground_truth": "B", "answer_type": "multiple choice", "subject": "statistics",
           "knowledge_level": "undergraduate"}  # fmt: skip
    held = BENCHMARK.load(write(tmp_path / "sample_variant1.parquet", [hub]))[0]
    assert (held.problem.id, held.problem.kind, held.problem.answer) == ("9", "choice", "B")
    assert held.problem.images == (picture.read_bytes(),)
    assert held.meta["level"] == "undergraduate"


def test_unusable_rows_are_one_line(tmp_path: Path) -> None:
    assert "row 4: no 'ground_truth' or 'answer'" in fails(BENCHMARK, write(tmp_path / "a.json", {"4": row(answer="")}))
    assert "row 4: no image" in fails(BENCHMARK, write(tmp_path / "a.json", {"4": row(image=None)}))


@pytest.mark.parametrize(
    ("gold", "answer", "rule", "reference"),
    [
        ("3.1416", "3.1416", 1, 1), ("3.1416", "3.1426", 1, 0), ("3.1416", "3.1427", 0, 0), ("3.1416", "3.14", 0, 0),
        ("3.1416", r"\pi", 1, 0), ("2.0944", r"\frac{2\pi}{3}", 1, 0), ("-15.700000000000001", "-15.7", 1, 1),
        ("8.0", "8", 1, 1), ("0.5774", r"\frac{1}{\sqrt{3}}", 1, 0), ("12", "12.001", 1, 0), ("12", "12.002", 0, 0),
    ],
)  # fmt: skip
def test_numbers_within_a_thousandth(gold: str, answer: str, rule: int, reference: int, tmp_path: Path) -> None:
    found = item(tmp_path, answer=gold)
    assert score(BENCHMARK, found, rf"\boxed{{{answer}}}") == rule
    assert score(BENCHMARK, found, rf"\boxed{{{answer}}}", "reference") == reference
    assert score(BENCHMARK, found, rf"\boxed{{{answer}}}", "official") == rule


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("May", "may", 1), ("May", r"\text{The month is May}", 1), ("May", "Mayor", 0), ("AG", "AC", 0),
        ("AG", "AG, AC", 0),
        ("(-2.777, -1.136)", "(-2.7771, -1.1359)", 1), ("(-2.777, -1.136)", "(-1.136, -2.777)", 0), ("5:0", "5:0", 1),
        ("y = -3", "y=-3", 1), ("May", "not May", 0),
    ],
)  # fmt: skip
def test_texts_under_rule(gold: str, answer: str, expected: int, tmp_path: Path) -> None:
    found = item(tmp_path, answer=gold, answer_type="text")
    assert score(BENCHMARK, found, rf"\boxed{{{answer}}}") == expected


def test_letters(tmp_path: Path) -> None:
    found = item(tmp_path, answer="B", answer_type="multiple choice", question="Which? choice: (A) yes (B) no")
    said = (r"\boxed{B}", r"\boxed{(B) no}", "The answer is B.", r"\boxed{A}", "")
    assert [grade.score for grade in graded(BENCHMARK, [found] * 5, said)] == [1, 1, 1, 0, 0]
    said = (
        '{"solution": "...", "short answer": "B"}', '{"short answer": "b"}', '{"short answer": "(B) no"}',
        '{"short answer": "It is B"}', '{"short answer": "A or B"}', r"\boxed{(B)}", r"\boxed{C}", "", "so\nB.",
        "so\nB",
    )  # fmt: skip
    # one letter must be the gold, case and all; of more the first three characters count
    expected = [1, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    assert [grade.score for grade in graded(BENCHMARK, [found] * 10, said, "official")] == expected


def test_official_short_answers(tmp_path: Path) -> None:
    assert extract('```json\n{"solution": "a b", "short answer": 2.5}\n```') == "2.5"
    assert extract('{"short answer": "3π"}') == "3π"
    assert extract('{"solution": "new\nline", "short answer": "B"}') == "B", "raw line breaks are taken"
    assert extract('{"solution": "$\\\\frac{1}{2}$", "short answer": "B"}') == "B", "backslashes are removed first"
    assert extract('{"solution": "a \\"b\\"", "short answer": 2.5}').endswith('"short answer": 2.5'), "quotes too, then"
    assert extract('{"short answer": "1"} and {"short answer": "2 cm"}').endswith('"2 cm"'), "two objects are none"
    assert extract('{"answer": "B"}') == "None"
    assert extract("so\n7.") == "7", "without JSON the last line, but for its last character"
    assert extract("so\n7") == ""
    assert extract("7") == extract('"B"') == "", "JSON that is no object"
    assert extract(r"so \boxed{7}") == "7"
    assert extract("") == ""
    rows = (("1.5π", "4.712", 1), ("π", "3.1416", 0), ("2.5 cm", "2.5", 1), ("2.5cm", "2.5", 0), ("2.501", "2.5", 1),
            ("2.5011", "2.5", 0), ("1,000", "1000", 0), ("007", "7", 1), ("1e1", "10", 1), (r"\frac{1}{2}", "0.5", 0),
            ("nan", "1", 0))  # fmt: skip
    for said, gold, expected in rows:
        held = json.dumps({"short answer": said}, ensure_ascii=False)
        assert score(BENCHMARK, item(tmp_path, answer=gold), held, "official") == expected, said
    assert score(BENCHMARK, item(tmp_path, answer="9.4248"), '{"short answer": "3π"}', "official") == 1.0
    month = item(tmp_path, answer="May", answer_type="text")
    assert score(BENCHMARK, month, '{"short answer": "It is May"}', "official") == 1.0


def variants(folder: Path, seeds: tuple[str, ...] = ("4", "9"), count: int = 3) -> Path:
    for number in range(1, count + 1):
        write(folder / f"trial{number}" / "dataset.json", {seed: row(answer=str(number)) for seed in seeds})
    return folder


def test_all_variants_come_seed_by_seed(tmp_path: Path) -> None:
    found = ALL.load(variants(tmp_path))
    assert [i.problem.id for i in found] == ["4/1", "4/2", "4/3", "9/1", "9/2", "9/3"]
    assert [i.problem.answer for i in found] == ["1", "2", "3", "1", "2", "3"]


def test_the_worst_case_goes_by_seed(tmp_path: Path) -> None:
    found = ALL.load(variants(tmp_path))
    scores = added(ALL, found, [1, 1, 1, 1, 1, 0], "rule")
    assert scores["score"] == pytest.approx(5 / 6)
    assert (scores["worst_case"], scores["robustness"]) == (0.5, pytest.approx(0.6))
    assert (scores["variant/1"], scores["variant/3"]) == (1.0, 0.5)
    assert added(ALL, found, [0] * 6, "rule")["robustness"] == 0.0
    assert added(ALL, found[:4], [1, 1, 1, 0], "rule")["worst_case"] == 1.0, "a seed that was cut is left out"
    assert added(ALL, found[:3] * 2 + found[3:], [1] * 6 + [0] * 3, "rule")["worst_case"] == pytest.approx(2 / 3)


def test_variants_that_do_not_match_are_one_line(tmp_path: Path) -> None:
    assert "no variant of DynaMath" in fails(ALL, tmp_path)
    variants(tmp_path, count=1)
    write(tmp_path / "trial2" / "dataset.json", {"4": row()})
    assert "trial2/dataset.json: seed 9 is not in every variant" in fails(ALL, tmp_path)


@real_rows
def test_all_golds_of_the_real_rows_are_right() -> None:
    one, every = real_items(BENCHMARK), real_items(ALL)
    assert (len(one), len(every), len({i.meta["seed"] for i in every})) == (6, 60, 6)
    assert Counter(i.problem.kind for i in every) == {"math": 40, "choice": 20}
    assert all(Path(str(i.problem.images[0])).is_file() for i in every)
    assert [i.problem.question for i in one] == [i.problem.question for i in every if i.meta["variant"] == 1]
    for benchmark, items in ((BENCHMARK, one), (ALL, every)):
        for protocol in benchmark.protocols:
            assert {grade.score for grade in graded(benchmark, items, gold_boxed(items), protocol)} == {1.0}
