"""The other columns of a row, for reward functions of a user's own: kept as JSON values beside the problem.

What JSON does not have is written as text (dates, decimals) or left out (bytes, pictures); NaN becomes null. Columns of
images are left out too: the problem has its images.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from spark_rl.config import ColumnsConfig
from spark_rl.data.values import IMAGES, MORE

DEEPEST = 32
"""Lists and objects nested deeper are left out."""


class _NoValueError(Exception):
    """JSON has no such value."""


def other_columns(row: Mapping[Any, Any], columns: ColumnsConfig | None = None) -> dict[str, Any]:
    """Every column of a row that JSON can hold, but for its images, by its name."""
    images = {*IMAGES, *([] if columns is None or columns.images is None else [columns.images])}
    kept: dict[str, Any] = {}
    for name, value in row.items():
        if not isinstance(name, str) or name.lower() in images or name == MORE:
            continue
        try:
            kept[name] = _json(value)
        except _NoValueError:
            continue
    return kept


def _json(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time | Decimal):
        return str(value)
    if depth < DEEPEST and isinstance(value, list | tuple):
        return [_json(item, depth + 1) for item in value]
    if depth < DEEPEST and isinstance(value, Mapping):
        return {str(key): _json(item, depth + 1) for key, item in value.items()}
    raise _NoValueError
