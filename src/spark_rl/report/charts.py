"""Charts as inline SVG: pure functions from data to text, drawn by hand so that a report is one file without scripts.

Colours come from the page's style sheet by class (``tone``), so light and dark modes need no second drawing; lines that
share a chart also differ in their dashes, for readers who cannot tell the colours apart. All text is escaped. Raw
values are light dots, the line is a centred moving average, and a step without a finite value is a cross on the axis,
never a gap that looks like a smooth curve.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from spark_rl.report import markup
from spark_rl.report.notation import axis_labels, percent, plain

WIDTH, HEIGHT = 380, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 26, 40
STEPS = "training step"
"""What the horizontal axis shows, unless a chart says otherwise."""
_MAX_DOTS = 500
_MAX_COLUMNS = 60

_Point = TypeVar("_Point")

Scale = Literal["share", "part", "unit", "zero", "free"]
"""The value axis. ``share``: 0 to 100 %; ``part``: percent, from 0 to what the data need; ``unit``: 0 to 1, wider if
the data are; ``zero``: from 0; ``free``: as wide as the data."""

PERCENT: tuple[Scale, ...] = ("share", "part")
"""The axes that are labelled in percent."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one layer of a stack.

    ``Series("policy", ((1, 0.2), (2, None), (3, 0.4)), "s0")``: at step 2 there was a value, but not a finite one.
    """

    label: str
    points: tuple[tuple[float, float | None], ...]
    """(step, value), in order of steps."""
    tone: str = "s0"
    """The CSS class that colours it."""

    @property
    def known(self) -> list[tuple[float, float]]:
        """The finite points."""
        return [(step, value) for step, value in self.points if value is not None]


@dataclass(frozen=True, slots=True)
class Pair:
    """One measure of a before-and-after chart, shares with optional intervals."""

    label: str
    before: float | None
    after: float | None
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """One difference with its interval, in the unit of the axis."""

    label: str
    effect: float
    low: float
    high: float
    tone: str = "s0"
    """The CSS class that colours its dot."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """One line of estimates with their intervals, and a thin line of something else beside it."""

    label: str
    tone: str
    points: tuple[tuple[float, float, tuple[float, float] | None], ...]
    """(step, share, 95 % interval)."""
    beside: tuple[tuple[float, float], ...] = ()
    """(step, share)."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Data coordinates to drawing coordinates."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float = _LEFT
    """What the labels of the value axis take."""
    right: float = _RIGHT
    width: float = WIDTH
    height: float = HEIGHT

    def x(self, step: float) -> float:
        return self.left + (step - self.x_low) / (self.x_high - self.x_low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        return self.base - (value - self.y_low) / (self.y_high - self.y_low) * (self.base - _TOP)

    @property
    def base(self) -> float:
        """Where the lower axis lies."""
        return self.height - _BOTTOM


def smoothing_window(count: int) -> int:
    """How many points the moving average spans: odd, about a tenth of them, 1 (no smoothing) below five."""
    return 1 if count < 5 else min(51, max(3, count // 10 | 1))


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Centred means over ``window`` values, shorter at both ends; as long as ``values``."""
    half = window // 2
    parts = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [math.fsum(part) / len(part) for part in parts]


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) that cover low..high. Needs low < high."""
    rough = max((high - low) / count, sys.float_info.min)  # the smallest numbers have no logarithm after division
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [index * step for index in range(first, last + 1)]


def line_chart(title: str, series: Sequence[Series], *, y_label: str, scale: Scale = "zero") -> str:
    """Values over steps: light dots for the raw values, a line for their moving average. ``y_label`` names the unit."""
    frame, parts = _framed(series, y_label, scale)
    dashed = " dashed" if len(series) > 1 else ""
    for one in series:
        known = one.known
        if len(known) > 1:
            dots = "".join(f"M{frame.x(step):.1f} {frame.y(value):.1f}h0" for step, value in _thin(known))
            parts.append(f'<path class="dots {one.tone}" d="{dots}"/>')
        smooth = moving_average([value for _, value in known], smoothing_window(len(known)))
        line = _thin([(step, value) for (step, _), value in zip(known, smooth, strict=True)])
        parts.extend(_curve(frame, line, f"{one.tone}{dashed}"))
        parts.extend(_cross(frame.x(step)) for step, value in _thin(one.points) if value is None)
    return _svg(title, _describe(series, scale), parts, HEIGHT)


def overlay_chart(
    title: str,
    series: Sequence[Series],
    *,
    y_label: str,
    scale: Scale = "zero",
    x_label: str = STEPS,
    means: Sequence[Series] = (),
    chance: float | None = None,
) -> str:
    """Many runs in one frame: a thin line each through its values as given, runs that belong together in one tone.

    ``means`` are lines that sum up others, drawn above them and thicker; ``chance`` is the level of who knows nothing.
    """
    frame, parts = _framed(series, y_label, scale, x_label)
    if chance is not None:
        parts += _curve(frame, [(frame.x_low, chance), (frame.x_high, chance)], "chance")
    for one in series:
        parts.extend(_curve(frame, _thin(one.known), f"{one.tone} thin"))
        parts.extend(_cross(frame.x(step)) for step, value in _thin(one.points) if value is None)
    for one in means:
        parts.extend(_curve(frame, _thin(one.known), f"{one.tone} mean"))
    return _svg(title, _describe(series, scale), parts, HEIGHT)


def score_chart(
    title: str, lines: Sequence[Estimated], chance: Sequence[tuple[float, float]], width: int, height: int
) -> str:
    """Shares over steps: points with whiskers and a line through them, a chance line, and thin lines beside them.

    A point says its numbers to whoever points at it. ``width`` and ``height`` are in pixels of the drawing.
    """
    steps = [step for one in lines for step in (*(point[0] for point in one.points), *(at for at, _ in one.beside))]
    frame = _Frame(*_step_range(steps, pad=0.0), 0.0, 1.0, _LEFT, 56, width, height)
    parts = _axes(frame, _value_ticks([], "share"), steps, "share (%)", share=True)
    if chance:
        level = [*chance] if len(chance) > 1 else [(frame.x_low, chance[0][1]), (frame.x_high, chance[0][1])]
        parts += _curve(frame, _thin(level), "chance")
    for one in lines:
        parts += _curve(frame, _thin(one.beside), f"{one.tone} beside") if len(one.beside) > 1 else []
    ends: list[tuple[float, str, float]] = []
    for index, one in enumerate(lines):
        line = [(step, share) for step, share, _ in one.points]
        if len(line) > 1:
            parts += _curve(frame, line, f"{one.tone}{' dashed' if index else ''}")
        for step, share, interval in one.points:
            x, y, said = frame.x(step), frame.y(share), f"{one.label}, step {step:,.0f}: {percent(share, 1)}"
            if interval is not None:
                low, high = frame.y(interval[0]), frame.y(interval[1])
                parts.append(f'<path class="line bar {one.tone}" d="M{x:.1f} {low:.1f}V{high:.1f}'
                             f'M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"/>')  # fmt: skip
                said += f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
            parts.append(f'<circle class="dot {one.tone}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
                         f"<title>{markup.text(said)}</title></circle>")  # fmt: skip
        if line:
            ends.append((frame.y(line[-1][1]), one.tone, line[-1][1]))
    lowest = 0.0
    for y, tone, share in sorted(ends):  # each below the one above it, so that none covers another
        lowest = max(y + 4, lowest + 13)
        parts.append(_text(width - 50, lowest, percent(share, 1), "start", f"value end {tone}"))
    series = [Series(one.label, tuple((step, share) for step, share, _ in one.points), one.tone) for one in lines]
    return _svg(title, _describe(series, "share"), parts, height, width)


def stacked_chart(title: str, series: Sequence[Series], *, y_label: str, scale: Scale = "zero") -> str:
    """Parts of a whole over steps, first series at the bottom. Long runs are drawn as means of neighbouring steps."""
    steps = sorted({step for one in series for step, _ in one.points})
    lookup = [dict(one.known) for one in series]
    bins = _bins(steps)
    heights = [[math.fsum(values.get(step, 0.0) for step in part) / len(part) for values in lookup] for part in bins]
    totals = [sum(max(0.0, height) for height in column) for column in heights]
    y_ticks = _value_ticks(totals, scale)
    frame = _Frame(*_step_range(steps, pad=0.5), y_ticks[0], y_ticks[-1], _left(y_ticks, scale))
    parts = _axes(frame, y_ticks, steps, y_label, share=scale in PERCENT)
    for part, column in zip(bins, heights, strict=True):
        left, right = frame.x(part[0] - 0.5), frame.x(part[-1] + 0.5)
        gap = min(1.0, (right - left) * 0.15)
        base = 0.0
        for one, height in zip(series, column, strict=True):
            if height <= 0:
                continue
            top, bottom = frame.y(base + height), frame.y(base)
            parts.append(f'<rect class="fill {one.tone}" x="{left + gap / 2:.1f}" y="{top:.1f}" '
                         f'width="{right - left - gap:.1f}" height="{bottom - top:.1f}"/>')  # fmt: skip
            base += height
    return _svg(title, _describe(series, scale), parts, HEIGHT)


def before_after_chart(title: str, pairs: Sequence[Pair]) -> str:
    """Horizontal bars from 0 to 100 %, before above after, with their intervals as whiskers."""
    left, right, row, bar = 8, 62, 52, 13
    height = 34 + row * len(pairs) + 20

    def x(share: float) -> float:
        return left + share * (WIDTH - left - right)

    parts = []
    bottom = height - 38
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}"/>')
        anchor = "start" if tick == 0 else "middle"
        parts.append(_text(x(tick), bottom + 14, percent(tick), anchor))
    parts.append(_text((x(0) + x(1)) / 2, height - 6, "share of trials (%)", "middle"))
    for index, pair in enumerate(pairs):
        top = 6 + row * index
        parts.append(_text(left, top + 10, pair.label, "start", "name"))
        for offset, tone, value, interval in (
            (15, "before", pair.before, pair.before_interval),
            (15 + bar + 2, "after", pair.after, pair.after_interval),
        ):
            middle = top + offset + bar / 2
            parts.append(_text(WIDTH - 4, middle + 4, percent(value, 1), "end", "value"))
            if value is None:
                continue
            parts.append(f'<rect class="fill {tone}" x="{left}" y="{top + offset}" '
                         f'width="{max(1.0, x(value) - left):.1f}" height="{bar}"/>')  # fmt: skip
            if interval is not None:
                low, high = x(interval[0]), x(interval[1])
                parts.append(f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}'
                             f'M{low:.1f} {middle - 3:.1f}v6M{high:.1f} {middle - 3:.1f}v6"/>')  # fmt: skip
    facts = "; ".join(f"{one.label}: {percent(one.before, 1)} before, {percent(one.after, 1)} after" for one in pairs)
    return _svg(title, facts, parts, height)


def effects_chart(title: str, effects: Sequence[Effect], x_label: str) -> str:
    """Effects with their intervals around a line at zero, one row each: a forest plot."""
    right, row = 62, 30
    height = 8 + row * len(effects) + 34
    ends = [0.0, *(end for one in effects for end in (one.low, one.high))]
    ticks = _value_ticks(ends, "free")
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return 8 + (value - low) / (high - low) * (WIDTH - 8 - right)

    bottom = height - 34
    parts = []
    for tick, label in zip(ticks, axis_labels(ticks), strict=True):
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}"/>')
        parts.append(_text(x(tick), bottom + 14, label, "start" if tick == low else "middle"))
    parts.append(_text((x(low) + x(high)) / 2, height - 6, x_label, "middle"))
    for index, one in enumerate(effects):
        top = 6 + row * index
        middle = top + 19
        parts.append(_text(8, top + 10, one.label, "start", "name"))
        parts.append(f'<path class="whisker" d="M{x(one.low):.1f} {middle}H{x(one.high):.1f}'
                     f'M{x(one.low):.1f} {middle - 3}v6M{x(one.high):.1f} {middle - 3}v6"/>')  # fmt: skip
        parts.append(f'<circle class="dot {one.tone}" cx="{x(one.effect):.1f}" cy="{middle}" r="3.5"/>')
        parts.append(_text(WIDTH - 4, middle + 4, f"{one.effect:+.1f}".replace("-", "−"), "end", "value"))
    facts = "; ".join(f"{one.label}: {one.effect:+.1f} ({one.low:+.1f} to {one.high:+.1f})" for one in effects)
    return _svg(title, facts, parts, height)


def _framed(series: Sequence[Series], y_label: str, scale: Scale, x_label: str = STEPS) -> tuple[_Frame, list[str]]:
    """The frame that holds all values of some lines, and its axes."""
    steps = [step for one in series for step, _ in one.points]
    y_ticks = _value_ticks([value for one in series for _, value in one.known], scale)
    frame = _Frame(*_step_range(steps, pad=0.0), y_ticks[0], y_ticks[-1], _left(y_ticks, scale))
    return frame, _axes(frame, y_ticks, steps, y_label, share=scale in PERCENT, x_label=x_label)


def _left(y_ticks: Sequence[float], scale: Scale) -> float:
    """Room for the longest label of the value axis."""
    return max(_LEFT, 14 + 6.5 * max(map(len, axis_labels(y_ticks, share=scale in PERCENT))))


def _curve(frame: _Frame, points: Sequence[tuple[float, float]], classes: str) -> list[str]:
    """A line, or a dot where there is but one point."""
    if len(points) > 1:
        path = "L".join(f"{frame.x(step):.1f} {frame.y(value):.1f}" for step, value in points)
        return [f'<path class="line {classes}" d="M{path}"/>']
    return [
        f'<circle class="dot {classes}" cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" r="3.5"/>'
        for step, value in points
    ]


def _svg(title: str, description: str, parts: Iterable[str], height: int, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img"><title>{markup.text(title)}</title>'
        f"<desc>{markup.text(description)}</desc>{''.join(parts)}</svg>"
    )


def _axes(
    frame: _Frame, y_ticks: Sequence[float], steps: Sequence[float], y_label: str, *, share: bool, x_label: str = STEPS
) -> list[str]:
    parts = [_text(4, 13, y_label, "start", "unit")]
    for tick, label in zip(y_ticks, axis_labels(y_ticks, share=share), strict=True):
        y = frame.y(tick)
        kind = "axis" if tick == frame.y_low else "grid"
        ends = f'x1="{frame.left:g}" x2="{frame.width - frame.right:g}"'
        parts.append(f'<line class="{kind}" {ends} y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(frame.left - 6, y + 4, label, "end"))
    for tick in _step_ticks(steps):
        x, base = frame.x(tick), frame.base
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base:g}" y2="{base + 4:g}"/>')
        label = f"{tick:,.0f}"
        fits = x + 3.5 * len(label) <= frame.width
        parts.append(_text(x, base + 16, label, "middle" if fits else "end"))
    parts.append(_text((frame.left + frame.width - frame.right) / 2, frame.height - 6, x_label, "middle"))
    return parts


def _value_ticks(values: Sequence[float], scale: Scale) -> list[float]:
    if scale == "share":
        return [0.0, 0.25, 0.5, 0.75, 1.0]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if scale == "unit":
        low, high = min(0.0, low), max(1.0, high)
    elif scale in {"zero", "part"}:
        low, high = min(0.0, low), max(0.0, high)
    # Below this the ticks would be rounding noise: a constant curve gets an axis of its own magnitude.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        if scale != "free":
            return [0.0, 0.05, 0.1] if scale == "part" else [0.0, 0.5, 1.0]
        pad = abs(high) / 2 or 0.5
        low, high = low - pad, high + pad
    return nice_ticks(low, high)


def _step_range(steps: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(steps, default=0.0) - pad, max(steps, default=1.0) + pad
    return (low, high) if high - low >= 1 else (low - 1, high + 1)


def _step_ticks(steps: Sequence[float]) -> list[float]:
    low, high = min(steps, default=0.0), max(steps, default=1.0)
    if low == high:
        return [low]
    whole = [tick for tick in nice_ticks(low, high, 5) if low <= tick <= high and tick == round(tick)]
    return whole or [low, high]


def _bins(steps: Sequence[float]) -> list[Sequence[float]]:
    size = max(1, math.ceil(len(steps) / _MAX_COLUMNS))
    return [steps[start : start + size] for start in range(0, len(steps), size)]


def _thin(points: Sequence[_Point]) -> list[_Point]:
    """Every k-th point and the last: more would not be seen, and would make the page slow."""
    stride = math.ceil(len(points) / _MAX_DOTS)
    if stride <= 1:
        return list(points)
    return [*points[:-1:stride], points[-1]]


def _cross(x: float) -> str:
    y = HEIGHT - _BOTTOM
    return f'<path class="cross" d="M{x - 3:.1f} {y - 3}l6 6m0 -6l-6 6"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{markup.text(text)}</text>'


def _describe(series: Sequence[Series], scale: Scale) -> str:
    """What a screen reader says; the data table below the chart holds the rest."""
    facts = []
    for one in series:
        known = one.known
        if not known:
            facts.append(f"{one.label}: no finite value")
            continue
        (first_step, first), (last_step, last) = known[0], known[-1]
        write = percent if scale in PERCENT else plain
        facts.append(f"{one.label}: {write(first)} at step {first_step:,.0f}, {write(last)} at step {last_step:,.0f}")
    return "; ".join(facts)
