r"""Lists and mappings that a data file holds as text: JSON, or Python's own spelling of it, as CSV files have them.

``"['a', 'b']"`` and ``"{'label': ['A', 'B'], 'text': ['x', 'y']}"`` are read by a grammar of strings, numbers, lists
and mappings: nothing is evaluated. Of Python's escapes ``\n``, ``\t``, ``\\``, quotes, ``\x41`` and ``\u0041`` are
read; any other backslash stays, so that ``'\frac12'`` is what was meant.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 4
"""Options are a list of mappings of texts at most."""

_TOKEN = re.compile(
    r"\s*+(?:(?P<string>'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\")|(?P<mark>[\[\]{}(),:])"
    r"|(?P<number>-?\d++(?:\.\d++)?)|(?P<word>None|null|True|true|False|false))",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|([nt\\'\"]))")
_ESCAPED = {"n": "\n", "t": "\t"}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_WORDS = {"none": None, "null": None, "true": True, "false": False}


def read_literal(text: str) -> Any:
    """The list or mapping that ``text`` spells, or ``None`` if it spells none."""
    text = text.strip()
    if text[:1] not in _CLOSING:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _Reader(text).whole()
    return value if isinstance(value, list | dict) else None


class _UnreadableError(Exception):
    """Not of the grammar."""


class _Reader:
    """Reads one value; ``at`` is where the next token starts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> Any:
        try:
            value = self._value(MAX_DEPTH)
        except _UnreadableError:
            return None
        return value if self.at == len(self.text) else None

    def _next(self) -> re.Match[str]:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            raise _UnreadableError
        self.at = found.end()
        return found

    def _value(self, depth: int) -> Any:
        token = self._next()
        if token["string"]:
            return _ESCAPE.sub(_unescaped, token["string"][1:-1])
        if token["number"]:
            return json.loads(token["number"]) if len(token["number"]) < 300 else token["number"]
        if token["word"]:
            return _WORDS[token["word"].lower()]
        if token["mark"] not in _CLOSING or not depth:
            raise _UnreadableError
        return self._members(token["mark"], depth - 1)

    def _members(self, opening: str, depth: int) -> Any:
        members: list[tuple[Any, Any]] = []
        closing = _CLOSING[opening]
        while True:
            start = self.at
            if self._next()["mark"] == closing:
                break
            self.at = start
            key = self._value(depth)
            if opening == "{":
                if self._next()["mark"] != ":" or not isinstance(key, str | int):
                    raise _UnreadableError
                members.append((key, self._value(depth)))
            else:
                members.append((key, None))
            mark = self._next()["mark"]
            if mark == closing:
                break
            if mark != ",":
                raise _UnreadableError
        return dict(members) if opening == "{" else [value for value, _ in members]


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPED.get(found[3], found[3])
