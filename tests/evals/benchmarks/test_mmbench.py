"""MMBench: passes of a question, made or read, and the circular score."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spark_rl.data.images import open_image
from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.mmbench import BENCHMARK, load
from spark_rl.verify import Verifier

VERIFIER = Verifier()


def row(index: int, answer: str = "B", **other: Any) -> dict[str, Any]:
    return {
        "index": index, "question": "Which one?", "hint": "nan", "A": "red", "B": "green", "C": "blue", "D": "nan",
        "answer": answer, "category": "colour", "L2-category": "attributes", "image": "1.png", "split": "dev", **other,
    }  # fmt: skip


def read(folder: Path, *rows: dict[str, Any]) -> list[Item]:
    path = folder / "dev.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load(path)


def results(items: list[Item], responses: list[str]) -> dict[str, float]:
    protocol = BENCHMARK.protocols["rule"]
    return dict(protocol.add_up(items, protocol.score(items, responses, VERIFIER)))


def test_every_rotation_of_a_question_is_asked(tmp_path: Path) -> None:
    items = read(tmp_path, row(7))
    assert [item.problem.id for item in items] == ["7", "1000007", "2000007"]
    assert [item.problem.choices for item in items] == [
        ("red", "green", "blue"), ("green", "blue", "red"), ("blue", "red", "green"),
    ]  # fmt: skip
    # the gold letter follows its text
    assert [item.problem.choices["ABC".index(item.problem.answer)] for item in items] == ["green"] * 3
    assert items[1].problem.question == "Which one?\nThere are several options:\nA. green\nB. blue\nC. red"
    assert items[0].problem.prompt is None


def test_passes_of_the_file_are_taken_as_they_are(tmp_path: Path) -> None:
    items = read(tmp_path, row(7), row(1_000_007, "A", A="green", B="blue", C="red"), row(8))
    assert [item.problem.id for item in items] == ["7", "1000007", "8"]
    assert [item.meta["pass"] for item in items] == [0, 1, 0]
    assert len({item.meta["question"] for item in items}) == 2


def test_hints_come_first(tmp_path: Path) -> None:
    assert read(tmp_path, row(1, hint="Look well."))[0].problem.question.startswith("Look well.\nWhich one?\n")


def test_only_a_question_right_in_every_pass_counts(tmp_path: Path) -> None:
    items = read(tmp_path, row(1), row(2, category="shape"), row(3, category="shape"))
    responses = [rf"\boxed{{{item.problem.answer}}}" for item in items]
    responses[4] = r"\boxed{C}" if items[4].problem.answer != "C" else r"\boxed{A}"
    found = results(items, responses)
    assert found == pytest.approx(
        {"score": 2 / 3, "category/colour": 1, "category/shape": 0.5, "l2_category/attributes": 2 / 3, "vanilla": 1}
    )


def test_always_the_same_letter_scores_nothing(tmp_path: Path) -> None:
    items = read(tmp_path, row(1), row(2))
    found = results(items, [r"\boxed{B}"] * 6)
    assert (found["score"], found["vanilla"]) == (0.0, 1.0)


def test_option_texts_are_answers_too(tmp_path: Path) -> None:
    assert results(read(tmp_path, row(1)), [r"\boxed{green}"] * 3)["score"] == 1.0


def test_a_question_drawn_twice_counts_twice(tmp_path: Path) -> None:
    first, second = read(tmp_path, row(1))[:3], read(tmp_path, row(2))[:3]
    items = [*first, *first, *second]
    responses = [rf"\boxed{{{item.problem.answer}}}" for item in first] * 2 + ["?"] * 3
    assert results(items, responses)["score"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (row(2, "nan"), "no answer; only the dev split has them"),
        (row(2, "D"), "no letter of one of 3 options"),
        (row(2, B="nan"), "fewer than two options"),
        (row(1), "taken by an earlier row"),
        (row(2, image=None), "no image"),
    ],
)
def test_unusable_rows_are_named(tmp_path: Path, bad: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=f"row 2: .*{why}"):
        read(tmp_path, row(1), bad)


def test_a_hugging_face_parquet_file(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = io.BytesIO()
    Image.new("RGB", (24, 18), "green").save(encoded, "JPEG")
    path = tmp_path / "dev.parquet"
    pq.write_table(pa.Table.from_pylist([row(5, image={"bytes": encoded.getvalue(), "path": "x.jpg"})]), path)
    items = load(path)
    assert len(items) == 3
    assert open_image(items[2].problem.images[0]).size == (24, 18)


def test_an_index_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the index is '9{20}', no whole number"):
        read(tmp_path, row(7) | {"index": "9" * 5000})
