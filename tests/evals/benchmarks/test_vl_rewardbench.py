"""VL-RewardBench: orders, the official expression and its aggregation, our wider reading."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spark_rl.data.images import open_image
from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark, Item
from spark_rl.evals.benchmarks import find
from spark_rl.evals.benchmarks.vl_rewardbench import BENCHMARK, SHUFFLED, group_of, read_any, read_official
from spark_rl.verify import Verifier

VERIFIER = Verifier()
OFFICIAL = re.compile(
    r"(?:Overall Judgment|Therefore)\s*.*\s*-*\s*Answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE
)


def row(
    name: str, ranking: tuple[int, int] = (0, 1), responses: tuple[str, str] = ("aa", "bb"), **other: Any
) -> dict[str, Any]:
    return {
        "id": name, "query": f"<image>\nWhat of {name}?", "response": list(responses), "image": "picture.png",
        "human_ranking": list(ranking), "models": ["m", "n"], "query_source": "x", **other,
    }  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "vl_rewardbench.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def results(
    items: list[Item], say: Callable[[Item], str], protocol: str, benchmark: Benchmark = BENCHMARK
) -> dict[str, float]:
    used = benchmark.protocols[protocol]
    return dict(used.add_up(items, used.score(items, [say(item) for item in items], VERIFIER)))


def verdict(number: str | int) -> str:
    return f"Overall Judgment: Answer {number} is better."


def right(item: Item) -> str:
    return verdict(item.problem.answer)


def wrong(item: Item) -> str:
    return verdict(3 - int(item.problem.answer))


def test_both_orders_are_asked_with_the_gold_at_its_place(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, [row("RLHF-1", (1, 0), ("worse!", "better"))]))
    assert [item.meta["swapped"] for item in items] == [False, True]
    for item in items:
        text = item.problem.prompt or ""
        assert f"\n\nAnswer {item.problem.answer}: better\n\n" in text
        assert text.startswith(
            "You are a highly capable multimodal AI assistant tasked with evaluating answers to visual"
        )
        assert "\n\nQuestion: What of RLHF-1?\n\n" in text
        assert text.endswith("both the visual and textual elements of the task.<image>")  # the picture last
        assert text.count("<image>") == 1
        assert item.system == ""


@pytest.mark.parametrize(("responses", "swapped"), [(("aa", "bb"), False), (("aaa", "bb"), True), (("é", "b"), False)])
def test_the_single_order_is_swapped_for_an_odd_number_of_characters(
    tmp_path: Path, responses: tuple[str, str], swapped: bool
) -> None:
    items = BENCHMARK.load(written(tmp_path, [row("x", responses=responses)]))
    assert [item.meta["swapped"] for item in items if item.meta["single"]] == [swapped]


def test_shuffled_orders_are_fair_and_the_same_every_time(tmp_path: Path) -> None:
    path = written(tmp_path, [row(f"wildvision-{number}") for number in range(100)])
    items = SHUFFLED.load(path)
    assert len(items) == 1000
    assert len({item.problem.id for item in items}) == 1000
    assert 420 < sum(item.meta["swapped"] for item in items) < 580
    assert items == SHUFFLED.load(path)
    assert {item.problem.answer for item in items} == {"1", "2"}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("RLAIF-1031", "hallucination"), ("RLHF-V_3", "hallucination"), ("hallucination_pair-9", "hallucination"),
        ("mathverse_12", "reasoning"), ("mmmu-Art_3", "reasoning"), ("MathVerse-1", "reasoning"),
        ("wildvision-battle-3", "general"), ("LRVInstruction-3", "general"), ("", "general"),
    ],
)  # fmt: skip
def test_groups_come_from_ids(name: str, group: str) -> None:
    assert group_of(name) == group


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Overall Judgment: Answer 1 is better.", "1"),
        ("**Overall Judgment:**\n\n- **Answer 2** is slightly better", "2"),
        ("overall judgment - Answer 2 is the better one", "2"),
        ("Therefore, Answer 1 is better. No: Answer 2 is better.", "2"),
        ("Answer 1 is better. Therefore nothing.", None),
        ("Overall Judgment: Answer 2 is more accurate", None),
        ("Overall Judgment: Answer 2 is significantly better", None),
        ("Final Answer: Answer 1 is better.", None),
        ("", None),
    ],
)
def test_read_official(text: str, found: str | None) -> None:
    assert read_official(text) == found


PIECES = st.lists(
    st.sampled_from(
        ["Overall Judgment", "therefore", ":", " ", "\n", "-", "*", "Answer", "answer", " 1", "2 ", "is", " the ",
         "slightly", "better", "Answer 1 is better", "Answer 2 is the slightly better", "x"]
    ),
    max_size=16,
).map("".join)  # fmt: skip


@given(PIECES)
def test_read_official_agrees_with_the_official_expression(text: str) -> None:
    match = OFFICIAL.search(text.replace("\n", "").replace("*", ""))
    assert read_official(text) == (match[1] if match else None)


def test_readers_take_linear_time() -> None:
    long = "Therefore Answer " * 20_000 + " " * 100_000 + "- " * 50_000
    started = time.monotonic()
    assert read_official(long) is None
    assert read_any(long) is None
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{1}", "1"), (r"\boxed{B}", "2"), (r"\boxed{\text{Answer 2}}", "2"),
        (r"\boxed{Answer 1 is better.}", "1"), ("Answer " + 9_999 * "7" + " is better", 9_999 * "7"),
        ("**Final Answer: Answer 1 is better.**", "1"), (r"Answer 1 is better, so \boxed{2}", "2"),
        (r"\boxed{both}, Answer 2 is better", "2"), (r"\boxed{12}", None), ("Answer 2 is worse", None), ("", None),
    ],
)  # fmt: skip
def test_read_any(text: str, found: str | None) -> None:
    assert read_any(text) == found


ROWS = [
    row("RLAIF-1"), row("RLHF-2", (1, 0)), row("mathverse_3"), row("mmmu_4"), row("wildvision-5"), row("other-6"),
]  # fmt: skip


def test_official_leaves_unread_rows_out(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, ROWS))
    said = {"RLAIF-1": right, "RLHF-2": wrong, "mathverse_3": right, "mmmu_4": wrong, "wildvision-5": right}
    found = results(items, lambda item: said.get(item.meta["row"], lambda _: "?")(item), "official")
    assert found["score"] == pytest.approx(3 / 5)
    assert found["group/general"] == 1.0  # the unread row is not in the denominator
    assert found["group/hallucination"] == found["group/reasoning"] == 0.5
    assert found["part/mathverse"] == 1.0
    assert found["macro"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["overall_strict"] == pytest.approx(3 / 6)
    assert found["parsed"] == pytest.approx(5 / 6)


def test_official_counts_one_order_only(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, ROWS))
    always_first = results(items, lambda _: verdict(1), "official")
    assert always_first["score"] == pytest.approx(5 / 6)  # as given: all but one have the better one first


def test_rule_is_strict_over_both_orders(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, ROWS))
    biased = results(items, lambda _: verdict(1), "rule")
    assert biased["score"] == pytest.approx(0.5)
    assert biased["consistency"] == 0.0
    unread = results(items, lambda item: right(item) if item.meta["row"] != "mmmu_4" else "?", "rule")
    assert unread["score"] == unread["parsed"] == unread["consistency"] == pytest.approx(5 / 6)
    assert unread["group/reasoning"] == 0.5


def test_votes(tmp_path: Path) -> None:
    items = SHUFFLED.load(written(tmp_path, [row("RLAIF-1"), row("mathverse_2"), row("wildvision-3"), row("other-4")]))

    def say(item: Item) -> str:
        call = item.meta["call"]
        return {
            "RLAIF-1": right if call <= 5 else wrong,  # 5 of the first 9
            "mathverse_2": right if call <= 4 or call == 10 else wrong,  # 4 of the first 9; the tenth isn't counted
            "wildvision-3": right if call <= 4 else lambda _: "?",  # 5 unread: no majority for either
            "other-4": right if call <= 4 else wrong if call <= 8 else lambda _: "?",  # undecided
        }[item.meta["row"]](item)  # fmt: skip

    found = results(items, say, "official", SHUFFLED)
    assert found["score"] == pytest.approx(1 / 2)
    assert found["overall_strict"] == pytest.approx(1 / 4)
    assert found["k/1"] == 1.0
    assert "macro" not in found  # no decided row of the group general


def test_nothing_read_is_nothing_right(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, ROWS))
    found = results(items, lambda _: "?", "official")
    assert found == {"score": 0.0, "overall_strict": 0.0, "parsed": 0.0}


def test_a_row_drawn_twice_counts_twice(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, [row("a"), row("b")]))
    drawn = [*items[:2], *items[:2], *items[2:]]
    found = results(drawn, lambda item: right(item) if item.meta["row"] == "a" else wrong(item), "official")
    assert found["score"] == pytest.approx(2 / 3)


def test_names() -> None:
    assert find("VL-RewardBench") is BENCHMARK
    assert find("vl_rewardbench-k10") is SHUFFLED


@pytest.mark.parametrize(
    "bad", [{"response": ["one"]}, {"human_ranking": [0, 0]}, {"human_ranking": None}, {"image": None}, {"query": None}]
)
def test_unusable_rows_are_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    path = written(tmp_path, [row("a"), row("b", **bad)])
    with pytest.raises(DataError, match="row 2: "):
        BENCHMARK.load(path)


def test_images_of_a_parquet_file_can_be_opened(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(encoded, "PNG")
    path = tmp_path / "vl_rewardbench.parquet"
    pq.write_table(pa.Table.from_pylist([row("a", image={"bytes": encoded.getvalue(), "path": None})]), path)
    for item in BENCHMARK.load(path):
        (image,) = item.problem.images
        assert open_image(image).size == (40, 30)
