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
    old, new = ({**some, "judge_unreadable": share} for some, share in ((BEFORE, 0.2), (AFTER, 0.1)))
    table = rows(old, new)
    assert table["judge_unreadable"].better is True
    assert rows(new, old)["judge_unreadable"].better is False
    assert table["judge_f1"].better is None, "no change"


def test_shares_of_what_training_itself_picks_have_their_n_and_are_neither_better_nor_worse() -> None:
    """Of 80 errors a quarter was mended, of the 5 hardest none: that is no loss."""
    old = {
        "n": 100, "policy_accuracy": 0.2, "status/correct": 20, "status/wrong": 80, "reflection_fix": 0.25,
        "reflection_break": 0.5, "judge_precision": 0.25, "judge_recall": 0.5, "pairwise_accuracy": 0.5,
        "pairwise_accuracy_n": 40,
    }  # fmt: skip
    new = {**old, "status/correct": 95, "status/wrong": 5, "reflection_fix": 0.0, "judge_precision": 0.95}
    table = rows(old, new)
    assert table["reflection_fix"].trials == (80, 5)
    assert table["reflection_break"].trials == (20, 95)
    assert table["judge_precision"].trials == (40, 50), "10 of 20 right ones are a quarter of 40"
    assert table["pairwise_accuracy"].trials == (40, 40)
    assert table["policy_accuracy"].trials == (100, 100)
    assert table["reflection_fix"].change == -0.25
    assert table["reflection_fix"].better is None
    assert rows(old, {**old, "reflection_fix": 0.5})["reflection_fix"].better is None, "perhaps another 80"


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
