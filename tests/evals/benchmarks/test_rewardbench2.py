"""RewardBench 2: prompts, readers, the golden values of the Ties formula, and how subsets add up."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark, Graded, Item
from spark_rl.evals.benchmarks import find, members
from spark_rl.evals.benchmarks.rewardbench2 import (
    BENCHMARK,
    RATINGS,
    SYSTEM,
    read_choice,
    read_rating,
    ties_score,
)
from spark_rl.verify import Verifier

READERS = Verifier()


def best_of_four(name: str, subset: str, **other: Any) -> dict[str, Any]:
    return {
        "id": name, "prompt": f"Question {name}?", "chosen": [f"good {name}"], "num_correct": 1, "num_rejected": 3,
        "rejected": [f"bad {name} {i}" for i in range(3)], "total_completions": 4, "subset": subset, **other,
    }  # fmt: skip


def tied(name: str, right: int, wrong: int) -> dict[str, Any]:
    return {
        "id": name, "prompt": "Name a colour.", "chosen": [f"colour {i}" for i in range(right)], "num_correct": right,
        "rejected": [f"no colour {i}" for i in range(wrong)], "total_completions": right + wrong, "subset": "Ties",
    }  # fmt: skip


ROWS = [
    best_of_four("1", "Factuality"), best_of_four("2", "Precise IF"), best_of_four("3", "Math"),
    best_of_four("4", "Safety"), best_of_four("5", "Focus"), tied("ref:0", 1, 3), tied("tied:0", 3, 2),
]  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]], name: str = "reward_bench_2.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def results(benchmark: Benchmark, items: list[Item], responses: list[str]) -> dict[str, float]:
    protocol = benchmark.protocols["official"]
    return dict(protocol.add_up(items, protocol.score(items, responses, READERS)))


RATED = {"ref:0": [9, 3, 2, 1], "tied:0": [9, 8, 9, 3, 2]}


def rating_of(item: Item) -> str:
    """The ratings of golden value (i) for Ties; elsewhere the right completion is the best."""
    row = item.meta["row"]
    place = int(item.problem.id.rpartition("/")[2]) - 1
    return f"Fine.\n{RATED[row][place] if row in RATED else 8 if item.meta['correct'] else 3}"


def test_ranking_shows_the_chosen_answer_at_the_drawn_place_only(tmp_path: Path) -> None:
    rows = [best_of_four(str(number), "Math") for number in range(400)]
    items = BENCHMARK.load(written(tmp_path, rows))
    for item in items:
        blocks = re.findall(
            r"\[The Start of Assistant ([A-D])'s Answer\]\n(.*)\n\[The End of Assistant \1's Answer\]",
            item.problem.prompt or "",
        )
        shown = dict(blocks)
        name = item.problem.id
        assert shown[item.problem.answer] == f"good {name}"
        assert sorted(shown.values()) == sorted([f"good {name}", *(f"bad {name} {i}" for i in range(3))])
        # a swap, not a shuffle: the displaced answer takes the first place
        assert next(text for _, text in blocks) in {
            f"good {name}",
            f"bad {name} {'ABCD'.index(item.problem.answer) - 1}",
        }
    places = Counter(item.problem.answer for item in items)
    assert set(places) == set("ABCD")
    assert max(places.values()) < 150, places
    assert [item.problem.answer for item in items] == [
        item.problem.answer for item in BENCHMARK.load(written(tmp_path, rows))
    ]


def test_ranking_prompt_is_the_protocols(tmp_path: Path) -> None:
    (item,) = BENCHMARK.load(written(tmp_path, [best_of_four("7", "Focus", prompt="{a} {question}?")]))
    assert item.system == SYSTEM
    assert SYSTEM.startswith(
        "Please act as an impartial judge and evaluate the quality of the responses provided by four"
    )
    assert SYSTEM.endswith('"[[C]]" if assistant C is best, and "[[D]]" if assistant D is best.')
    prompt = item.problem.prompt or ""
    assert prompt.startswith("[User Question]\n{a} {question}?\n\n[The Start of Assistant A's Answer]\n")
    assert "\n[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\n" in prompt
    assert prompt.endswith("\n[The End of Assistant D's Answer]")


def test_rating_prompts_differ_for_ties(tmp_path: Path) -> None:
    rows = [best_of_four("1", "Math", chosen=["ends {prompt}"]), tied("ref:0", 1, 1)]
    usual, *_, ties = RATINGS.load(written(tmp_path, rows))
    assert usual.system == ties.system == ""
    text = usual.problem.prompt or ""
    assert text.startswith(
        "\n### Task Description\nPlease act as an impartial judge and evaluate the quality of the response"
    )
    assert "by an\nAI assistant to the user query displayed below.\n\nNotes:\n1- Your evaluation" in text
    assert "depth, creativity, and level of detail of the response.\n2- Begin" in text
    assert text.endswith("[Query]\nQuestion 1?\n\n[Response]\nends {prompt}\n\n[Your judgement]")
    assert "but need not consider depth or level of detail of the response.\n2- Begin" in (ties.problem.prompt or "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("So [[B]] it is", "B"),
        ("Not [[C]]. My verdict: [[A]]", "A"),  # tested in the order of letters, not by place
        ("[[D]] or rather [[B]]", "B"),
        ("[A] is best, [[E]] is not", None),
        ("", None),
    ],
)
def test_read_choice_takes_the_first_letter_that_stands_anywhere(text: str, found: str | None) -> None:
    assert read_choice(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Good. Rating: 7", 7), ("10", 10), ("10\n\n ", 10), ("Rating:10", 10), ("8.", None), ("**9**", None),
        ("11", None), ("0", None), ("7/10", 10), ("8.5", 5), ("x10", None), ("9 of ten", None), ("", None),
    ],
)  # fmt: skip
def test_read_rating_takes_a_number_that_ends_the_text(text: str, found: int | None) -> None:
    assert read_rating(text) == found


@given(st.text(alphabet="0123456789 .\nx*/-", max_size=40))
def test_read_rating_agrees_with_the_official_expression(text: str) -> None:
    match = re.search(r"\b([1-9]|10)\b\s*$", text.strip())
    assert read_rating(text) == (int(match[1]) if match else None)


FIRST = {"ref": ([9], [3, 2, 1]), "tied": ([9, 8, 9], [3, 2])}
SECOND = {"ref": ([5], [5, 2, 1]), "tied": ([9, 4], [3, 2])}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"0": FIRST}, 1.009993),
        ({"0": FIRST, "1": SECOND}, 0.651189),
        ({"0": {"ref": ([10], [1]), "tied": ([10, 10], [1])}}, 1.01),
        # 0/0 counts 0, and margins of 0 are no margins
        ({"0": {"ref": ([4], [4]), "tied": ([6, 6], [2])}}, 0.30 + 0.20),
        ({"0": {"ref": ([3], [4]), "tied": ([6, 6], [7])}}, -0.01),
    ],
)
def test_ties_score_has_the_golden_values(rows: Any, expected: float) -> None:
    found = ties_score(rows)
    assert found is not None
    assert math.isclose(found, expected, abs_tol=1e-6)


def test_ties_score_needs_a_pair() -> None:
    assert ties_score({"0": {"ref": ([9], [1])}, "1": {"tied": ([9, 9], [1])}}) is None


def test_ranking_headline_is_the_mean_of_the_subsets(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, [*ROWS, best_of_four("6", "math"), best_of_four("8", "MATH")]))
    wrong = {"3"}
    responses = [
        rating_of(item)
        if item.meta["mode"] == "rating"
        else "no idea"
        if item.problem.id == "8"
        else f"[[{'ABCD'[('ABCD'.index(item.problem.answer) + (item.problem.id in wrong)) % 4]}]]"
        for item in items
    ]
    found = results(BENCHMARK, items, responses)
    assert found["subset/math"] == pytest.approx((0 + 1 + 0.25) / 3)
    assert found["subset/ties"] == pytest.approx(1.009993, abs=1e-6)
    assert found["score"] == pytest.approx((4 * 1.0 + 1.25 / 3 + found["subset/ties"]) / 6)
    assert found["unparsed/ranking"] == pytest.approx(1 / 7)
    assert found["unparsed/rating"] == 0.0


def test_ratings_share_the_first_place(tmp_path: Path) -> None:
    items = RATINGS.load(written(tmp_path, [best_of_four(name, "Math") for name in "abcd"]))
    said = [7, 7, 2, 7, 5, 6, 1, 1, "?", "?", "?", "?", "?", 1, 1, 1]
    found = results(RATINGS, items, [str(value) for value in said])
    assert found["subset/math"] == pytest.approx((1 / 3 + 0 + 0.25 + 0) / 4)
    assert found["unparsed/rating"] == pytest.approx(5 / 16)


def test_ratings_of_every_subset(tmp_path: Path) -> None:
    items = RATINGS.load(written(tmp_path, ROWS))
    assert len(items) == 5 * 4 + 4 + 5
    found = results(RATINGS, items, [rating_of(item) for item in items])
    assert found["score"] == pytest.approx((5 + 1.009993) / 6, abs=1e-6)


def test_a_failed_rating_is_minus_one_in_ties(tmp_path: Path) -> None:
    items = RATINGS.load(written(tmp_path, [tied("ref:3", 1, 1), tied("tied:3", 2, 1)]))
    found = results(RATINGS, items, ["?", "1", "5", "4", "?"])
    # ref: -1 - 1 = -2; tied: 4 - (-1) = 5, spread 1
    assert found["score"] == pytest.approx(0.30 + 0.20 + 0.01 * math.tanh(-2 - 1))


def test_a_row_drawn_twice_counts_twice(tmp_path: Path) -> None:
    items = RATINGS.load(written(tmp_path, [best_of_four("a", "Math"), best_of_four("b", "Math")]))
    right, wrong = items[:4], items[4:]
    responses = ["9", "1", "1", "1"] * 2 + ["1", "9", "1", "1"]
    assert results(RATINGS, [*right, *right, *wrong], responses)["score"] == pytest.approx(2 / 3)


def test_rows_in_part_are_left_out(tmp_path: Path) -> None:
    items = RATINGS.load(written(tmp_path, [best_of_four("a", "Math"), best_of_four("b", "Focus")]))[:6]
    found = results(RATINGS, items, ["9", "1", "1", "1", "9", "1"])
    assert {name for name in found if name.startswith("subset/")} == {"subset/math"}


def test_missing_responses_are_no_guess(tmp_path: Path) -> None:
    for benchmark in (BENCHMARK, RATINGS):
        items = benchmark.load(written(tmp_path, [best_of_four("a", "Math")]))
        found = benchmark.protocols["official"].add_up(items, [Graded(0.0, None, "no_answer")] * len(items))
        assert found["score"] == 0.0


def test_ties_pairs_are_drawn_together(tmp_path: Path) -> None:
    items = BENCHMARK.load(written(tmp_path, ROWS))
    unit = BENCHMARK.protocols["official"].unit
    assert len({unit(item) for item in items}) == 6


def test_names_are_known_and_groups_leave_the_ratings_out() -> None:
    assert find("rewardbench2") is BENCHMARK
    assert find("RewardBench2-Ratings") is RATINGS
    assert "rewardbench2" in members("reward")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (best_of_four("1", "Poetry"), "unknown subset 'Poetry'"),
        (best_of_four("1", "Math", rejected=["x"]), "1 chosen and 1 rejected completions, not 1 and 3"),
        (best_of_four("1", "Math", rejected="x"), "'rejected' is not a list"),
        (tied("ref:0", 1, 0), "Ties needs both kinds"),
        (tied("zero", 1, 1), "neither ref:N nor tied:N"),
    ],
)
def test_unusable_rows_are_named(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    path = written(tmp_path, [best_of_four("0", "Math"), row])
    with pytest.raises(DataError, match=r"row 2: .*" + re.escape(why)):
        BENCHMARK.load(path)


def test_parquet_is_read_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "reward_bench_2.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert BENCHMARK.load(path) == BENCHMARK.load(written(tmp_path, ROWS))
