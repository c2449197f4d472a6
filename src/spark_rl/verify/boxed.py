r"""The final answer of a response: the content of its last balanced ``\boxed{...}`` (paper Sec. 3.1, step 2).

Departures from the authors' release, which takes the first box in evaluation and everything from the first box to the
last brace in training: always the last balanced box, for training, evaluation and recycling alike. Of nested boxes the
outermost counts. Only ``\boxed`` is a box; ``\box`` and ``\fbox`` are not.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"(?P<slashes>\\++)(?P<box>boxed\s*+\{)?|[{}]")


def last_box_span(text: str) -> tuple[int, int] | None:
    r"""Where the last balanced box stands: (index of ``\boxed``, index just after its closing brace).

    Escaped braces ``\{`` and ``\}`` do not count. A later box that never closes does not hide an earlier one. Linear in
    the length of ``text``, whatever it holds.
    """
    found = _find(text)
    return None if found is None else (found[0], found[2])


def extract_boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\boxed{...}``, exactly as written, or ``None`` without one.

    ``extract_boxed(r"so \boxed{\frac{1}{2}}")`` is ``r"\frac{1}{2}"``.
    """
    found = _find(text)
    return None if found is None else text[found[1] : found[2] - 1]


def _find(text: str) -> tuple[int, int, int] | None:
    """(start of the command, start of the content, end after the brace)."""
    first = text.find("\\boxed")
    if first < 0:
        return None
    last: tuple[int, int, int] | None = None
    open_groups: list[tuple[int, int] | None] = []  # a box's two starts, or None for a plain group
    escaped = -1
    for token in _TOKEN.finditer(text, first):
        start = token.start()
        if token["box"]:
            open_groups.append((token.end("slashes") - 1, token.end()))
        elif token["slashes"]:
            if len(token["slashes"]) % 2:
                escaped = token.end()
        elif start == escaped:
            continue
        elif text[start] == "{":
            open_groups.append(None)
        elif open_groups:
            box = open_groups.pop()
            if box is not None:
                last = (*box, token.end())
    return last
