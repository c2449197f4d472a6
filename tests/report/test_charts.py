from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.report.charts import (
    HEIGHT,
    WIDTH,
    Effect,
    Estimated,
    Pair,
    Series,
    before_after_chart,
    effects_chart,
    line_chart,
    moving_average,
    score_chart,
    smoothing_window,
    stacked_chart,
)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own output


def series(*values: float | None, label: str = "x", tone: str = "s0") -> Series:
    return Series(label, tuple((float(step), value) for step, value in enumerate(values, start=1)), tone)


def line_of(svg: str, tone: str = "s0") -> list[tuple[float, float]]:
    path = next(e for e in parsed(svg).iter("path") if f"line {tone}" in e.get("class", ""))
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", path.get("d", ""))]


def test_the_moving_average_is_centred_and_shorter_at_the_ends() -> None:
    assert moving_average([0, 3, 6, 0], 3) == [1.5, 3, 3, 3]
    assert moving_average([1, 2, 3], 1) == [1, 2, 3]
    assert moving_average([], 3) == []


def test_the_window_is_odd_and_grows_with_the_run() -> None:
    windows = [smoothing_window(count) for count in (0, 4, 5, 100, 10_000)]
    assert windows == [1, 1, 3, 11, 51]


def test_higher_values_are_drawn_higher_and_later_steps_further_right() -> None:
    points = line_of(line_chart("t", [series(0.1, 0.4, 0.9)], y_label="y", scale="unit"))
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] > points[1][1] > points[2][1]
    # 0.9 on an axis from 0 to 1: nine tenths of the way from the bottom (180) to the top (26).
    assert points[2][1] == pytest.approx(180 - 0.9 * 154, abs=0.06)


def test_a_chart_names_itself_its_axes_and_its_values() -> None:
    svg = line_chart("Entropy", [series(0.5, 0.25)], y_label="nats per token")
    root = parsed(svg)
    assert root.get("role") == "img"
    assert root.findtext("title") == "Entropy"
    assert root.findtext("desc") == "x: 0.5 at step 1, 0.25 at step 2"
    assert {"nats per token", "training step"} <= {e.text for e in root.iter("text")}


def test_a_value_that_is_not_finite_is_a_cross_not_a_gap() -> None:
    root = parsed(line_chart("t", [series(1.0, None, 2.0)], y_label="y"))
    assert len([e for e in root.iter("path") if e.get("class") == "cross"]) == 1
    assert not [e for e in parsed(line_chart("t", [series(1.0, 2.0)], y_label="y")).iter() if e.get("class") == "cross"]


def test_one_step_is_one_dot_and_no_step_is_an_empty_frame() -> None:
    assert [e.get("cx") for e in parsed(line_chart("t", [series(0.5)], y_label="y")).iter("circle")] == ["208.0"]
    empty = parsed(line_chart("t", [series(None)], y_label="y"))
    assert empty.findtext("desc") == "x: no finite value"


def test_lines_that_share_a_chart_differ_in_more_than_colour() -> None:
    two = line_chart("t", [series(1, 2), series(2, 1, tone="s1")], y_label="y")
    assert 'class="line s1 dashed"' in two
    assert "dashed" not in line_chart("t", [series(1, 2)], y_label="y")


def test_stacked_parts_add_up() -> None:
    parts = [series(0.25, 0.5, label="a", tone="good"), series(0.75, 0.25, label="b", tone="bad")]
    rects = list(parsed(stacked_chart("t", parts, y_label="share", scale="share")).iter("rect"))
    heights = [float(rect.get("height", "")) for rect in rects]
    full = HEIGHT - 26 - 40
    assert heights == pytest.approx([0.25 * full, 0.75 * full, 0.5 * full, 0.25 * full], abs=0.11)
    assert float(rects[1].get("y", "")) + heights[1] == pytest.approx(float(rects[0].get("y", "")), abs=0.11)


def test_long_runs_stay_small_and_keep_their_last_value() -> None:
    long = Series("x", tuple((float(step), step / 20_000) for step in range(1, 20_001)))
    svg = line_chart("t", [long], y_label="y")
    assert len(svg) < 30_000
    assert "20,000" in svg
    assert "at step 20,000" in svg
    assert line_of(svg)[-1][0] == pytest.approx(WIDTH - 12, abs=0.1)
    assert len(list(parsed(stacked_chart("t", [long], y_label="y")).iter("rect"))) <= 60


def test_bars_are_as_long_as_their_shares_with_whiskers_where_known() -> None:
    svg = before_after_chart("t", [Pair("Policy", 0.5, 1.0, (0.4, 0.6), None), Pair("Judge", None, 0.25)])
    root = parsed(svg)
    widths = [float(rect.get("width", "")) for rect in root.iter("rect")]
    assert widths == pytest.approx([155, 310, 77.5], abs=0.1)
    assert len([e for e in root.iter("path") if e.get("class") == "whisker"]) == 1
    assert "–" in [e.text for e in root.iter("text")]


def test_names_are_escaped() -> None:
    evil = '<script>&"'
    charts = [
        line_chart(evil, [series(1, 2, label=evil)], y_label=evil),
        stacked_chart(evil, [series(1, 2, label=evil)], y_label=evil),
        before_after_chart(evil, [Pair(evil, 0.1, 0.2)]),
        effects_chart(evil, [Effect(evil, 0.1, 0.0, 0.2)], evil),
    ]
    for svg in charts:
        assert "<script" not in svg
        assert parsed(svg).findtext("title") == evil


values = st.lists(st.none() | st.floats(-1e12, 1e12), max_size=30)


@given(values, st.sampled_from(["share", "part", "unit", "zero", "free"]))
def test_any_values_make_a_chart_inside_its_frame(numbers: list[float | None], scale: str) -> None:
    svg = line_chart("t", [series(*numbers)], y_label="y", scale=scale)  # type: ignore[arg-type]
    assert "nan" not in svg
    assert "inf" not in svg.replace("finite", "")
    parsed(svg)
    if scale != "share" and any(number is not None for number in numbers):
        ys = [float(y) for y in re.findall(r'cy="([\d.-]+)"', svg)]
        if sum(number is not None for number in numbers) > 1:
            ys = [y for _, y in line_of(svg)]
        assert all(26 - 0.1 <= y <= HEIGHT - 40 + 0.1 for y in ys)
    parsed(stacked_chart("t", [series(*numbers), series(*numbers, label="z")], y_label="y"))


def test_effects_stand_between_their_ends_on_their_side_of_zero() -> None:
    svg = parsed(effects_chart("t", [Effect("gain", 6.0, 2.5, 9.5), Effect("loss", -3.0, -8.0, 1.0, "s1")], "points"))
    zero = next(float(line.get("x1", "")) for line in svg.iter("line") if line.get("class") == "axis")
    dots = [float(dot.get("cx", "")) for dot in svg.iter("circle")]
    ends = [[float(x) for x in re.findall(r"[MH]([\d.]+)", path.get("d", ""))[:2]] for path in svg.iter("path")]
    assert dots[1] < zero < ends[0][0] < dots[0] < ends[0][1] <= WIDTH
    assert 0 <= ends[1][0] < dots[1] < zero < ends[1][1]
    assert svg.findtext("desc") == "gain: +6.0 (+2.5 to +9.5); loss: -3.0 (-8.0 to +1.0)"


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 10.0))
def test_labels_of_the_value_axis_have_room(level: float, spread: float) -> None:
    """``1.0000004`` was cut to ``000004``. A digit of 11 pixels is less than 6.5 wide."""
    svg = line_chart("t", [series(level, level + spread)], y_label="y", scale="free")
    for label in parsed(svg).iter("text"):
        if label.get("text-anchor") == "end":
            assert float(label.get("x", "")) - 6.5 * len(label.text or "") >= 0


def test_estimates_stand_with_their_intervals_a_chance_line_and_what_is_beside_them() -> None:
    line = Estimated("judge", "s1", ((0, 0.5, (0.4, 0.6)), (10, 0.75, None)), ((1, 0.5), (2, 0.6)))
    root = parsed(score_chart("t", [line], [(0, 0.8), (10, 0.7)], 900, 330))
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter("circle")]
    assert dots == [(48.0, 158.0), (844.0, 92.0)], "0 to 100 % between 290 and 26"
    assert [dot.findtext("title") for dot in root.iter("circle")] == [
        "judge, step 0: 50.0% (40.0 to 60.0)", "judge, step 10: 75.0%",
    ]  # fmt: skip
    kinds = [path.get("class") for path in root.iter("path")]
    assert kinds == ["line chance", "line s1 beside", "line s1", "line bar s1"]
    assert "75.0%" in [text.text for text in root.iter("text")]
