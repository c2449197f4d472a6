r"""The final answer of a response: the content of its last balanced ``\boxed{...}`` (paper Sec. 3.1, step 2).

Departures from the authors' release, which takes the first box in evaluation and everything from the first box to the
last brace in training: always the last balanced box, for training, evaluation and recycling alike. Of nested boxes the
outermost counts. Only ``\boxed`` is a box; ``\box`` and ``\fbox`` are not.

What a model thinks between tags (``<think>...</think>``) is not its answer: :func:`answer_part` is what is left, for
the verifier, the judges, the recyclers and the evaluations' ``rule`` alike. :func:`extract_boxed` itself knows no tags;
it reads gold solutions too.
"""

from __future__ import annotations

import re
from functools import lru_cache

from spark_rl.config import THINKING, Thinking

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


def answer_part(response: str, thinking: Thinking = THINKING) -> str:
    """``response`` without what stands between thinking tags, the pieces left joined by line breaks.

    ``<think>or \\boxed{3}?</think> It is \\boxed{4}.`` is `` It is \\boxed{4}.``; a thought that never closes reaches
    to the end. See :func:`thoughts` for what counts as one. Linear in the length of ``response``.
    """
    kept, done = [], 0
    for start, end in thoughts(response, thinking):
        kept.append(response[done:start])
        done = end
    kept.append(response[done:])
    return "\n".join(piece for piece in kept if piece) if done else response


def thoughts(response: str, thinking: Thinking = THINKING) -> list[tuple[int, int]]:
    """Where the thoughts of a response stand, tags included: (start, end), in order and apart.

    A thought ends at the first closing tag of its own pair: tags of other pairs inside it, and its own opening tag once
    more, are words of the thought. A closing tag without an opening one ends a thought that began in the prompt, or
    earlier: all before it was thinking. An opening tag that is never closed begins a thought that was cut.
    """
    if not thinking:
        return []
    closing = {opening.lower(): end.lower() for opening, end in thinking}
    found: list[tuple[int, int]] = []
    start, awaited = 0, ""
    for token in tags(thinking).finditer(response):
        tag = token[0].lower()
        if awaited:
            if tag == awaited:
                found.append((start, token.end()))
                awaited = ""
        elif tag in closing:
            start, awaited = token.start(), closing[tag]
        else:
            found = [(0, token.end())]
    return [*found, (start, len(response))] if awaited else found


@lru_cache(maxsize=16)
def tags(thinking: Thinking) -> re.Pattern[str]:
    """Matches every opening and closing tag, in any case of its ASCII letters."""
    longest_first = sorted({tag for pair in thinking for tag in pair}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE | re.ASCII)


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
