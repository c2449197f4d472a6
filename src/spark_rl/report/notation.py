"""How numbers are written for people: one spelling in the terminal, in the tables and on the axes.

Shares are percentages, differences of shares are points (percentage points), and what is unknown is a dash, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

DASH = "–"
"""What stands for an unknown number."""

_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def plain(value: float | None) -> str:
    """Three significant digits, thousands separated: 0.0213, 213, 1,832, 2.1e-5."""
    if value is None:
        return DASH
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value and abs(value) < 1e-3:
        return _scientific(value, 1)
    return f"{value:.3g}"


def fixed(value: float | None, digits: int = 2) -> str:
    """A fixed number of decimals, so that a live table does not jitter."""
    return DASH if value is None else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share between 0 and 1 as a percentage."""
    return DASH if share is None else f"{100 * share:.{digits}f}%"


def points(difference: float | None) -> str:
    """A difference of two shares in signed percentage points: +16.9."""
    if difference is None:
        return DASH
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def compact(value: float | None) -> str:
    """Three significant digits with k, M or G: 1.83k, 12.3M."""
    if value is None:
        return DASH
    for scale, suffix in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}" if abs(value) < 999.5 * scale else f"{value / scale:.0f}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that matter: 5.9 s, 25 min 40 s, 3 h 05 min, 2 d 03 h."""
    if seconds is None:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def axis_labels(ticks: Sequence[float], *, share: bool = False) -> list[str]:
    """Labels of evenly spaced ticks, with just enough decimals to tell them apart."""
    if share:
        return [f"{100 * tick:g}%" for tick in ticks]
    largest = max((abs(tick) for tick in ticks), default=0.0)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else largest or 1.0
    if largest < 1e-3:
        digits = 0 if all(math.isclose(float(f"{tick:.0e}"), tick, abs_tol=step / 100) for tick in ticks) else 1
        return [_scientific(tick, digits) if tick else "0" for tick in ticks]
    scale, suffix = next(((scale, suffix) for scale, suffix in _SCALES if largest >= 10 * scale), (1.0, ""))
    decimals = next((d for d in range(8) if abs(round(step / scale, d) - step / scale) < 1e-6 * step / scale), 8)
    return [f"{tick / scale:,.{decimals}f}{suffix}" if tick else "0" for tick in ticks]


def _scientific(value: float, digits: int) -> str:
    return re.sub(r"e([+-])0(\d)$", r"e\1\2", f"{value:.{digits}e}")
