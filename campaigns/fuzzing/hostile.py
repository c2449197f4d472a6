"""Hostile values of any type, and how valid ones are damaged."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import random
import struct
import zlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

SECRET = "canary-" + "c0ffee" * 4
"""Told in the environment and in files that nothing may read."""

NAMES = (
    "../../secret/secret.png", "/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd", "fifo", "loop",
    "folder", "link.png", "linked/secret.png", "..", ".", "~", "~root", "a" * 300, "a/" * 3000, "a\0b.png",
    "file:///etc/passwd", "file://../secret/secret.png", "http://127.0.0.1:9/x.png", "\\\\host\\share\\x.png",
    "good.png", "good.png/", "con", "-", "--run-dir", "%s%n", "{0.__class__}", "\ud800.png", "\u202egnp.exe",
    "data:", "data:image/png;base64,", "data:image/png;base64," + "A" * 5000, "data:text/html,<script>",
    "data:;base64,====", "$HOME", "`id`", ";id",
)  # fmt: skip
"""What may stand where a path is wanted."""
TEXTS = (
    "", " ", "\0", "\x1b[31m\x1b]0;owned\x07", "\x9b31m", "\ud800", "\udfff\ud800", "\u202e", "\u2028",
    "\ufeff", "\U000e0041", "\r", "\n" * 50, "\x08" * 20, "a" * 200_000, "<image>", "<image>" * 500,
    "<|im_end|>", "\ufdd0", "{question}", "{{", "{%", "[" * 3000, "{" * 3000, "(" * 5000, "\\boxed{",
    "\\frac{" * 400, "'" * 999, '"' * 999, "[{", '[{"role":"user"}]',
    '[{"role": "user", "content": [{"type": "image"}]}]', "['a', 'b'", "9" * 5000, "9^9^9^9^9", "(10!)!",
    "1e999999999", "A", "AB", "Yes", "#### 5", "#### ", "٣", "½", "nan", "-0", "= cmd|' /C calc'!A0",
    "\\x" * 200, "\\u12" * 50, "a) b) c)", "(A) x\n(B) y\n(C) z", "é" * 10_000, "e\u0301" * 3000, "𐍈" * 3000,
    "%" * 99,
)  # fmt: skip
"""What may stand where a text is wanted."""


def nested(depth: int, kind: str = "list") -> Any:
    """A value in a value, ``depth`` times."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def hostile(rng: random.Random) -> Any:
    """Any value."""
    which = rng.randrange(10)
    if which < 3:
        return rng.choice(TEXTS)
    if which < 5:
        return rng.choice(NAMES)
    return rng.choice(
        (
            None,
            True,
            False,
            0,
            -1,
            1,
            2**31,
            2**63,
            2**64,
            -(2**63) - 1,
            10**400,
            1e308,
            -1e308,
            5e-324,
            0.1,
            float("nan"),
            float("inf"),
            -float("inf"),
            [],
            {},
            [[]],
            [None],
            {"": None},
            nested(40),
            nested(900),
            nested(300, "dict"),
            [1] * 5000,
            {"bytes": None},
            {"bytes": "AAAA"},
            {"bytes": [1, 2, 300]},
            {"bytes": [[]], "path": "x"},
            {"path": "good.png"},
            {"url": "file:///etc/passwd"},
            {"role": "user"},
            {str(i): i for i in range(2000)},
            ["A", "B", ["C"]],
            {"text": ["x"], "label": ["A", "B"]},
            {"A": "x", "a": "y"},
            ["x"] * 30,
            "Zm9v" * 300,
        )
    )


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value of a tree may be replaced."""
    yield at
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        if len(at) < 6:
            yield from places(value, (*at, key))


def damaged(rng: random.Random, tree: Any, times: int | None = None) -> Any:
    """A copy of a tree with hostile values, names and gaps in it."""
    try:
        tree = deepcopy(tree)
    except RecursionError:  # damaged before
        return tree
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3)) if times is None else times):
        at = rng.choice(list(places(tree)))
        if not at:
            if rng.random() < 0.1:
                return hostile(rng)
            continue
        inside = tree
        for key in at[:-1]:
            inside = inside[key]
        how = rng.randrange(8)
        if how == 0 and isinstance(inside, dict):
            inside[str(rng.choice((*TEXTS, *NAMES)))] = inside.pop(at[-1])
        elif how == 1:
            del inside[at[-1]]
        elif how == 2 and isinstance(inside[at[-1]], str):
            text, cut = inside[at[-1]], rng.randint(0, len(inside[at[-1]]))
            inside[at[-1]] = text[:cut] + str(rng.choice(TEXTS)) + text[cut:]
        elif how == 3:
            inside[at[-1]] = [inside[at[-1]]] * rng.choice((1, 2, 30))
        else:
            inside[at[-1]] = hostile(rng)
    return tree


def mangled(rng: random.Random, data: bytes, times: int | None = None) -> bytes:
    """Bytes flipped, cut, spliced, repeated, in another encoding."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4)) if times is None else times):
        size = len(changed)
        at, to = sorted((rng.randint(0, size), rng.randint(0, size)))
        how = rng.randrange(11)
        if how == 0:
            del changed[at:]
        elif how == 1:
            del changed[at:to]
        elif how == 2:
            changed[at:at] = changed[at : min(to, at + 2000)] * rng.choice((1, 3, 50))
        elif how == 3:
            changed[at:at] = rng.choice(
                (
                    b"\0",
                    b"\xff" * 8,
                    b"\x1b[31m",
                    b"\xef\xbb\xbf",
                    b"\xed\xa0\x80",
                    b"\r",
                    b"\n\n",
                    b'"',
                    b"[" * 5000,
                    b"\x00" * 4096,
                    b"9" * 5000,
                )
            )
        elif how == 4 and rng.random() < 0.3:
            with contextlib.suppress(UnicodeError):
                changed = bytearray(
                    bytes(changed).decode("utf-8").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
                )
        elif how == 5 and size > 4:
            place = rng.randrange(size - 3)
            changed[place : place + 4] = struct.pack(
                rng.choice("<>") + "I", rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
            )
        elif how == 6 and rng.random() < 0.2:
            changed = bytearray(rng.choice((gzip.compress, bz2.compress, zlib.compress))(bytes(changed)))
        elif size:
            for _ in range(rng.choice((1, 1, 8))):
                changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(changed[:3_000_000])


def dumped(tree: Any) -> str:
    """JSON, of lone surrogates and NaN too; empty where it is nested too deeply to be written."""
    try:
        return json.dumps(tree)
    except (RecursionError, ValueError):
        return "[" * 2000
