from __future__ import annotations

from typing import Any

import pytest

from spark_rl.intervals import wilson
from spark_rl.report.comparison import Row, compare, problems_note

BEFORE: dict[str, Any] = {
    "policy_accuracy": 0.25, "policy_accuracy_low": 0.19, "policy_accuracy_high": 0.31,
    "tts_accuracy": 0.20, "judge_accuracy": 0.5, "judge_precision": 0.3, "judge_recall": 0.6,
    "judge_f1": 0.4, "pairwise_accuracy": 0.5, "reflection_fix": 0.1, "reflection_break": 0.4, "n": 200.0,
}  # fmt: skip
AFTER: dict[str, Any] = {
    **BEFORE, "policy_accuracy": 0.4, "policy_accuracy_low": 0.333, "policy_accuracy_high": 0.467, "tts_accuracy": 0.46,
    "reflection_break": 0.1,
}  # fmt: skip


def rows(before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Row]:
    return {row.key: row for row in compare(before, after)}


def test_every_measure_has_a_row_and_missing_ones_are_dashes() -> None:
    table = rows({}, None)
    assert list(table) == [
        "policy_accuracy", "tts_accuracy", "tts_gain", "judge_accuracy", "judge_precision", "judge_recall", "judge_f1",
        "pairwise_accuracy", "reflection_fix", "reflection_break",
    ]  # fmt: skip
    assert all(row.written() == ("–", "–", "–") and row.better is None for row in table.values())


def test_changes_are_in_points_with_half_widths() -> None:
    row = rows(BEFORE, AFTER)["policy_accuracy"]
    assert row.before.interval == (0.19, 0.31)
    assert row.written() == ("25.0 ± 6.0", "40.0 ± 6.7", "+15.0")
    assert row.better is True


def test_the_gain_of_test_time_scaling_can_be_negative() -> None:
    row = rows(BEFORE, AFTER)["tts_gain"]
    assert row.written() == ("−5.0", "+6.0", "+11.0")


def test_a_fall_of_a_lower_is_better_rate_is_better() -> None:
    table = rows(BEFORE, AFTER)
    assert table["reflection_break"].better is True
    assert rows(AFTER, BEFORE)["reflection_break"].better is False
    assert table["judge_f1"].better is None, "no change"


def test_a_share_without_both_ends_has_no_interval() -> None:
    table = rows(BEFORE, {**BEFORE, "policy_accuracy_high": None})
    assert table["policy_accuracy"].after.interval is None
    assert table["policy_accuracy"].written() == ("25.0 ± 6.0", "25.0", "0.0")
    assert table["judge_f1"].before.interval is None


def test_the_judge_stands_beside_a_constant_verdict() -> None:
    table = rows({**BEFORE, "judge_balanced_accuracy": 0.5, "judge_constant_accuracy": 0.75}, {})
    assert list(table).index("judge_constant_accuracy") == list(table).index("judge_accuracy") + 2
    assert table["judge_balanced_accuracy"].written()[0] == "50.0"


@pytest.mark.parametrize("nested", [True, False])
def test_statuses_become_shares_of_their_sum(nested: bool) -> None:
    counts = {"correct": 50, "wrong": 100, "no_answer": 50, "timeout": 0}
    evaluation = {"status": counts} if nested else {f"status/{status}": count for status, count in counts.items()}
    table = rows({}, evaluation)
    assert table["status/no_answer"].after.value == 0.25
    assert table["status/no_answer"].after.interval == wilson(50, 200)
    assert table["status/no_answer"].lower_is_better
    assert "status/timeout" not in table, "what never occurred needs no row"


def test_percent_where_a_share_belongs_is_an_error() -> None:
    with pytest.raises(ValueError, match="judge_f1 is 40, but an evaluation holds shares between 0 and 1"):
        compare({"judge_f1": 40.0}, {})


def test_the_note_says_how_many_problems() -> None:
    assert problems_note(BEFORE, AFTER) == "n = 200"
    assert problems_note({}, {"n": 1200}) == "n = – before, 1,200 after"
    assert problems_note({}, None) == ""
