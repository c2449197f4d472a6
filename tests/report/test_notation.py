from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.report.charts import nice_ticks
from spark_rl.report.notation import axis_labels, compact, duration, percent, plain, points


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02134, "0.0213"), (213.4, "213"), (1832.4, "1,832"), (2.13e-5, "2.1e-5"), (0.0, "0"), (-5e-7, "-5.0e-7"),
     (None, "–")],
)  # fmt: skip
def test_plain(value: float | None, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.94, "5.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (1540, "25 min 40 s"),
     (3900, "1 h 05 min"), (183600, "2 d 03 h"), (0, "0.0 s"), (None, "–")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1832, "1.83k"), (12_345_678, "12.3M"), (999_999, "1000k"), (12.5, "12.5"), (0, "0")]
)
def test_compact(value: float, text: str) -> None:
    assert compact(value) == text


def test_shares_and_differences() -> None:
    assert percent(0.237, 1) == "23.7%"
    assert percent(None) == "–"
    assert [points(0.169), points(-0.05), points(0.0), points(-0.0001)] == ["+16.9", "−5.0", "0.0", "0.0"]


@given(st.floats(-1e7, 1e7), st.floats(1e-3, 1e7))
def test_ticks_cover_the_data_and_their_labels_differ(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(ticks) <= 8
    if span > 1e-4 * abs(low):  # closer together than that no short label can tell them apart
        assert len(set(axis_labels(ticks))) == len(ticks)


def test_tick_labels_are_as_short_as_they_can_be() -> None:
    assert axis_labels([0.0, 0.5, 1.0]) == ["0", "0.5", "1.0"]
    assert axis_labels([0, 5000, 10000]) == ["0", "5k", "10k"]
    assert axis_labels([0, 1e-5, 2e-5]) == ["0", "1e-5", "2e-5"]
    assert axis_labels([0, 0.25, 0.5], share=True) == ["0%", "25%", "50%"]
