"""The configuration section of the report: what differs from the defaults first, everything else folded away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from spark_rl.config import settings_table
from spark_rl.report.markup import folded, table, text


def settings_section(config: Mapping[str, Any]) -> str:
    """The resolved configuration as HTML tables, with the docstring of each setting that this version knows."""
    defaults = {key: (_plain_json(default), about) for key, _kind, default, about in settings_table()}
    changed: list[list[str]] = []
    same: list[list[str]] = []
    for key, value in _flatten(config):
        default, about = defaults.get(key, (None, ""))
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        row = [f"<code>{text(key)}</code>", f"<code>{text(written)}</code>", _docstring(about)]
        (same if key in defaults and value == default else changed).append(row)
    head = ["setting", "value", "meaning"]
    shown = table("Different from the defaults", head, changed, "settings")
    rest = table("At their defaults", head, same, "settings")
    return (
        '<section id="settings"><h2>Settings</h2><p class="lead">The resolved configuration, as in config.json.</p>'
        f"{folded(f'{len(changed)} settings differ from the defaults', shown)}"
        f"{folded(f'{len(same)} settings at their defaults', rest)}</section>"
    )


def setting(config: Mapping[str, Any], dotted: str) -> Any:
    """One setting by its dotted key, or ``None``."""
    return settings_of(config).get(dotted)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by their dotted keys."""
    return dict(_flatten(config))


def _docstring(about: str) -> str:
    """A setting's docstring: its literals as code, and its links as plain text, for the page links to nothing."""
    return re.sub("``(.+?)``", r"<code>\1</code>", text(re.sub("https?://", "", about)))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _plain_json(value: Any) -> Any:
    """As the value looks after a round trip through config.json: tuples are lists there."""
    return json.loads(json.dumps(value, default=str))
