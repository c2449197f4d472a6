"""POPE: the three published files, both readings, and the confusion matrix."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Graded, Item
from spark_rl.evals.benchmarks.pope import BENCHMARK, add_up, confusion, load, read_first_sentence
from spark_rl.problem import Problem, Status
from spark_rl.verify import Verifier

VERIFIER = Verifier()
DATA = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[4] / "shared" / "data")) / "vlm" / "pope"


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def published(number: int, label: str) -> dict[str, Any]:
    return {
        "question_id": number,
        "image": f"COCO_{number}.jpg",
        "text": "Is there a cat in the image?",
        "label": label,
    }


def test_the_three_files_are_read_from_any_of_them(tmp_path: Path) -> None:
    for split, label in (("random", "yes"), ("popular", "no"), ("adversarial", "yes")):
        written(tmp_path, f"coco_pope_{split}.json", [published(1, label), published(2, "no")])
    (tmp_path / "image").mkdir()
    picture = tmp_path / "image" / "COCO_1.jpg"
    picture.write_bytes(b"never opened")
    items = load(tmp_path / "coco_pope_adversarial.json")
    assert [(item.problem.id, item.problem.answer) for item in items] == [
        ("random-1", "Yes"), ("random-2", "No"), ("popular-1", "No"), ("popular-2", "No"), ("adversarial-1", "Yes"),
        ("adversarial-2", "No"),
    ]  # fmt: skip
    assert items[0].problem.images == items[2].problem.images == (str(picture),)
    assert items[0].problem.prompt is None  # chat.policy adds the answer format


def test_one_file_alone_is_one_split(tmp_path: Path) -> None:
    path = written(tmp_path, "coco_pope_popular.json", [published(1, "yes"), published(2, "no")])
    assert [item.meta["split"] for item in load(path)] == ["popular", "popular"]


def test_the_hubs_layout(tmp_path: Path) -> None:
    image = {"bytes": None, "path": "x.png"}
    row = {"id": "7", "question": "Is there a dog?", "answer": "no", "category": "adversarial", "image": image}
    (item,) = load(written(tmp_path, "test.jsonl", [row]))
    assert (item.problem.id, item.problem.answer, item.meta["split"]) == ("7", "No", "adversarial")


@pytest.mark.parametrize("bad", [published(2, "maybe"), published(2, ""), {**published(2, "yes"), "image": ""}])
def test_unusable_rows_are_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    path = written(tmp_path, "coco_pope_random.json", [published(1, "yes"), bad])
    with pytest.raises(DataError, match="row 2: "):
        load(path)


@pytest.mark.parametrize(
    ("text", "official", "rule"),
    [
        ("Yes, there is.", "Yes", "Yes"),
        ("No, there is not.", "No", "No"),
        ("There is not a cat. Yes.", "No", "Yes"),  # the first sentence only; the rule knows no "not"
        ("It is hard to tell. no", "Yes", "No"),
        ("NO", "Yes", "No"),  # the official list has No, no and not
        (r"I see one, so \boxed{No}", "Yes", "No"),
        (r"\boxed{\text{Yes}}", "Yes", "Yes"),
        ("yes and no", "No", None),
        ("", "Yes", None),
    ],
)
def test_two_readings(text: str, official: str, rule: str | None) -> None:
    assert read_first_sentence(text) == official
    for gold in ("Yes", "No"):
        item = Item(Problem(id="1", question="?", answer=gold, kind="verdict"), {"split": "random"})
        for name, found in (("official", official), ("rule", rule)):
            (grade,) = BENCHMARK.protocols[name].score([item], [text], VERIFIER)
            assert grade.score == float(found == gold), (name, gold)
            assert (grade.status in {"unparsable", "no_answer"}) == (found is None), (name, gold)


@given(st.lists(st.sampled_from(["No", "no", "not", "Yes", "a", ".", ",", "No,", " "]), max_size=12))
def test_first_sentence_agrees_with_the_published_script(words: list[str]) -> None:
    text = " ".join(words)
    sentence = re.match(r"[^.]*", text)
    assert sentence is not None
    said_no = any(word in {"No", "not", "no"} for word in re.split(" ", re.sub(",", "", sentence[0])))
    assert read_first_sentence(text) == ("No" if said_no else "Yes")


def graded(*rows: tuple[str, Status, str]) -> tuple[list[Item], list[Graded]]:
    items = [
        Item(Problem(id=str(i), question="?", answer=gold, kind="verdict"), {"split": split})
        for i, (gold, _, split) in enumerate(rows)
    ]
    return items, [Graded(float(status == "correct"), None, status) for _, status, _ in rows]


def test_confusion() -> None:
    # 3 hits, 1 miss said No, 1 miss unread; 2 rejections, 1 false alarm, 1 unread
    yes = [("Yes", status, "random") for status in ("correct", "correct", "correct", "wrong", "unparsable")]
    no = [("No", status, "random") for status in ("correct", "correct", "wrong", "no_answer")]
    found = confusion(*graded(*yes, *no))
    assert found == pytest.approx(
        {"accuracy": 5 / 9, "precision": 3 / 4, "recall": 3 / 5, "f1": 2 * 3 / (2 * 3 + 1 + 2), "yes_ratio": 4 / 9}
    )


def test_headline_is_the_pooled_f1_beside_the_splits() -> None:
    found = add_up(*graded(
        ("Yes", "correct", "random"), ("No", "correct", "random"),
        ("Yes", "correct", "popular"), ("No", "wrong", "popular"),
        ("Yes", "wrong", "adversarial"), ("No", "correct", "adversarial"),
    ))  # fmt: skip
    assert found["random/f1"] == 1.0
    assert found["popular/f1"] == pytest.approx(2 / 3)
    assert found["adversarial/f1"] == 0.0
    assert found["mean_f1"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["score"] == found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["accuracy"] == pytest.approx(4 / 6)


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set SPARK_RL_DATA_ROOT")
def test_the_real_golds() -> None:
    items = load(DATA / "coco_pope_random.json")
    assert len(items) == BENCHMARK.published == 9000
    assert len({item.problem.id for item in items}) == 9000
    for split in ("random", "popular", "adversarial"):
        golds = [item.problem.answer for item in items if item.meta["split"] == split]
        assert (golds.count("Yes"), golds.count("No")) == (1500, 1500)
    for protocol in BENCHMARK.protocols.values():
        right = protocol.add_up(items, protocol.score(items, [item.problem.answer for item in items], VERIFIER))
        assert {right[name] for name in ("score", "accuracy", "popular/precision", "mean_f1")} == {1.0}
        always = protocol.add_up(items, protocol.score(items, ["Yes"] * 9000, VERIFIER))
        assert (always["accuracy"], always["yes_ratio"]) == (0.5, 1.0)
        assert always["score"] == pytest.approx(2 / 3)
