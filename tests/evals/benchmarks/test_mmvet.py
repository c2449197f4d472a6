"""MM-Vet: the grading prompt, the judge's number, and the substitute without a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.mmvet import BENCHMARK, grade_prompt, load, read_grade, read_parts
from spark_rl.verify import Verifier

VERIFIER = Verifier()


def row(name: str = "v1_0", **other: Any) -> dict[str, Any]:
    return {
        "question_id": name, "image": f"{name}.png", "question": "What is x?\nSay it.", "answer": "-1<AND>-5",
        "capability": "ocr,math", **other,
    }  # fmt: skip


def read(folder: Path, *rows: dict[str, Any]) -> list[Item]:
    path = folder / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load(path)


def test_a_row_becomes_an_item(tmp_path: Path) -> None:
    first, second = read(tmp_path, row(), row("v1_1", capability=["rec", "gen", "rec"]))
    assert (first.problem.id, first.problem.answer, first.problem.prompt) == ("v1_0", "-1<AND>-5", None)
    assert (first.meta["capability"], first.meta["combination"]) == (["math", "ocr"], "math+ocr")
    assert second.meta["capability"] == ["gen", "rec"]


def test_the_judge_is_asked_to_continue_the_table(tmp_path: Path) -> None:
    (item,) = read(tmp_path, row())
    asked = grade_prompt(item, "x = -1\n\nand nothing | else {0}")
    *_, last = asked.splitlines()
    assert last == "What is x? Say it. | -1 <AND> -5 | x = -1 and nothing | else {0} |"
    assert asked.count("| 0.5\n") == 3
    protocol = BENCHMARK.protocols["judged"]
    assert protocol.ask_judge is grade_prompt
    assert BENCHMARK.protocols["mmvet_rule"].ask_judge is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.7", 0.7), ("1.0", 1.0), ("1", 1.0), ("0", 0.0), (" .5 \n", 0.5), ("0.4 because 1 part is there", 0.4),
        ("Correctness: 0.9", 0.9), ("| 0.9 |", 0.9), ("**0.3**", 0.3), ("0.3.", 0.3),
        ("The score is 1.0. So 1.0.", 1.0),
        (r"\boxed{0.6}", 0.6),
        ("7", None), ("1.5", None), ("-0.5", None), ("0.5 of 1.0, so 0.2", 0.5), ("between 0.2 and 0.4", None),
        ("8/10", None), ("1/2", None), ("50%", None), ("1%", None), ("good", None), ("", None), ("10", None),
        ("0,5", None),
    ],
)  # fmt: skip
def test_read_grade(text: str, found: float | None) -> None:
    assert read_grade(text) == found


def test_judged_scores_read_the_judge(tmp_path: Path) -> None:
    items = read(tmp_path, row(), row("v1_1", capability="ocr"), row("v1_2", capability="rec"))
    protocol = BENCHMARK.protocols["judged"]
    grades = protocol.score(items, ["1.0", "0.4", "I can't say"], VERIFIER)
    assert [grade.status for grade in grades] == ["correct", "wrong", "unparsable"]
    assert protocol.add_up(items, grades) == pytest.approx(
        {
            "score": 1.4 / 3, "capability/math": 1, "capability/ocr": 0.7, "capability/rec": 0,
            "combination/math+ocr": 1, "combination/ocr": 0.4, "combination/rec": 0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gold", "response", "share"),
    [
        ("-1<AND>-5", "x = -1 or x = -5", 1.0),
        ("-1<AND>-5", "x = -1", 0.5),
        ("-1<AND>-5", "x = 1 or x = 5", 0.0),
        ("5", "it is 55", 0.0),
        ("5", "it is 5.", 1.0),
        ("5", "it is 5.5", 0.0),
        ("two cats<OR>2 cats", "There are 2  Cats", 1.0),
        ("red<AND>blue<OR>green", "only red", 0.5),
        ("red<AND>blue<OR>green", "GREEN!", 1.0),
        ("a (b) [c]", "so a (b) [c]", 1.0),
    ],
)
def test_read_parts(gold: str, response: str, share: float) -> None:
    assert read_parts(gold, response) == share


@pytest.mark.parametrize("bad", [row(answer=""), row(question=None), row(image=None)])
def test_unusable_rows_are_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="row 1: "):
        read(tmp_path, bad)
