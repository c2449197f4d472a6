r"""Families ``tiles`` and ``tiles-sum``: the same arithmetic, with the numbers to be read from a picture.

A picture is a row of five tiles, one in each colour of :data:`COLOURS`, shuffled. Every tile shows a number 1..9 as a
seven-segment digit, as dots to count, or as a gauge filled to a length. The question names tiles by the letter of their
colour: ``r*_-b=17`` hides a number that makes the chain true (family ``tiles``), ``r*g-b=_`` asks for the chain's value
(``tiles-sum``). Tiles that the question does not name are distractors.

The chains are those of :mod:`spark_rl.data.tasks.missing` whose results stay within 1..40, which a small model learns
to compute several times sooner than 0..99; split by the same hash of their ordered numbers, the hidden
number included; so a held-out chain appears in no warm start and in no training problem, whatever its picture.
A picture is a function of its tiles alone, and its tiles of the random generator they were drawn with.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from spark_rl.data.tasks import missing
from spark_rl.data.tasks.chains import DIGITS, Split, evaluate

NAME = "tiles"
SUM_NAME = "tiles-sum"

Style = Literal["digit", "dots", "gauge"]
STYLES: tuple[Style, ...] = ("digit", "dots", "gauge")

SIDE = 28
"""Pixels of a tile's side: one image token of Qwen2.5-VL (patches of 14, merged two by two)."""
HIGH = 40
"""No running result of a chain is larger."""
JITTER = 2
"""How far a number is moved from the middle of its tile, at most, in pixels."""
SHADE = 8
"""How much lighter or darker than its colour a tile is, at most, in levels of 255."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "r": (230, 80, 80),
    "g": (90, 200, 110),
    "b": (90, 140, 240),
    "o": (245, 175, 60),
    "p": (190, 110, 225),
}
"""Letter -> RGB: red, green, blue, orange, purple."""
INK = (15, 15, 15)
BORDER = (245, 245, 245)

_SEGMENTS = {
    "top": (9, 4, 18, 6),
    "upper left": (9, 4, 11, 14),
    "upper right": (16, 4, 18, 14),
    "middle": (9, 13, 18, 15),
    "lower left": (9, 13, 11, 23),
    "lower right": (16, 13, 18, 23),
    "bottom": (9, 21, 18, 23),
}
"""Segment -> box (left, top, right, bottom), inclusive, in a tile of 28 x 28."""
_LIT = {
    1: ("upper right", "lower right"),
    2: ("top", "upper right", "middle", "lower left", "bottom"),
    3: ("top", "upper right", "middle", "lower right", "bottom"),
    4: ("upper left", "upper right", "middle", "lower right"),
    5: ("top", "upper left", "middle", "lower right", "bottom"),
    6: ("top", "upper left", "middle", "lower left", "lower right", "bottom"),
    7: ("top", "upper right", "lower right"),
    8: tuple(_SEGMENTS),
    9: ("top", "upper left", "upper right", "middle", "lower right", "bottom"),
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, with everything its picture depends on."""

    colour: str
    value: int
    style: Style
    shift: tuple[int, int]
    """(right, down) in pixels, each in -2..2."""
    shade: int
    """Added to each channel of the colour, -8..8."""
    cells: tuple[int, ...] = ()
    """Style ``dots``: which cells 0..8 of the 3 x 3 grid hold a dot."""


def draw_tile(colour: str, value: int, rng: random.Random) -> Tile:
    """A tile of a colour and a value, in a random style."""
    style = rng.choice(STYLES)
    shift = rng.randint(-JITTER, JITTER), rng.randint(-JITTER, JITTER)
    return Tile(colour, value, style, shift, rng.randint(-SHADE, SHADE), tuple(sorted(rng.sample(range(9), value))))


def draw_row(shown: dict[str, int], rng: random.Random) -> tuple[Tile, ...]:
    """Five tiles in shuffled order of colours: those of ``shown`` (letter -> number), the rest with random numbers."""
    colours = rng.sample(sorted(COLOURS), len(COLOURS))
    return tuple(draw_tile(colour, shown.get(colour) or rng.choice(DIGITS), rng) for colour in colours)


def paint_tile(tile: Tile) -> Image.Image:
    """The picture of one tile: RGB, 28 x 28 pixels."""
    image = Image.new("RGB", (SIDE, SIDE), BORDER)
    pen = ImageDraw.Draw(image)
    red, green, blue = COLOURS[tile.colour]
    ground = (red + tile.shade, green + tile.shade, blue + tile.shade)
    pen.rectangle((1, 1, SIDE - 2, SIDE - 2), fill=ground)
    right, down = tile.shift
    if tile.style == "digit":
        boxes = [_SEGMENTS[name] for name in _LIT[tile.value]]
    elif tile.style == "dots":
        corners = [(5 + 7 * (cell % 3), 5 + 7 * (cell // 3)) for cell in tile.cells]
        boxes = [(left, top, left + 3, top + 3) for left, top in corners]
    else:
        marks = [(5 + 2 * i, 19, 5 + 2 * i, 21) for i in range(10)]
        boxes = [(5, 9, 4 + 2 * tile.value, 17), *marks]
    for left, top, far, low in boxes:
        pen.rectangle((left + right, top + down, far + right, low + down), fill=INK)
    return image


def paint_row(tiles: Sequence[Tile]) -> Image.Image:
    """The picture of a row of tiles, left to right: RGB, 28 pixels high."""
    image = Image.new("RGB", (SIDE * len(tiles), SIDE))
    for i, tile in enumerate(tiles):
        image.paste(paint_tile(tile), (SIDE * i, 0))
    return image


def png(tiles: Sequence[Tile]) -> bytes:
    """The picture of a row as a PNG file."""
    file = io.BytesIO()
    paint_row(tiles).save(file, format="PNG")
    return file.getvalue()


def name_numbers(numbers: Sequence[int], hidden: int | None, rng: random.Random) -> dict[str, int]:
    """A random colour for every number but the hidden one: letter -> number, in the order of the chain."""
    seen = [number for i, number in enumerate(numbers) if i != hidden]
    return dict(zip(rng.sample(sorted(COLOURS), len(seen)), seen, strict=True))


def question(named: dict[str, int], operators: Sequence[str], target: int, hidden: int | None) -> str:
    """``r*_-b=17``, or ``r*g-b=_`` if no number is hidden: then the target is what is asked."""
    letters = list(named)
    if hidden is not None:
        letters.insert(hidden, "_")
    chain = letters[0] + "".join(o + letter for o, letter in zip(operators, letters[1:], strict=True))
    return f"{chain}={'_' if hidden is None else target}"


def read(named: dict[str, int]) -> str:
    """``r7b4;``: what was read from the picture, as the base writes it before it computes."""
    return "".join(f"{letter}{number}" for letter, number in named.items()) + ";"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture that is yet to be drawn: most problems of a family are never asked for."""

    question: str
    answer: str
    named: dict[str, int]
    seed: str

    def picture(self) -> bytes:
        """The picture, as a PNG file."""
        return png(draw_row(self.named, random.Random(self.seed)))


def chains(split: Split, sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[str, ...], int, int]]:
    """(numbers, operators, target, hidden position) of the chains of a split, as :func:`missing.puzzles` gives them."""
    for numbers, operators, target, hidden in missing.puzzles(split, sizes):
        if evaluate(numbers, operators, HIGH) is not None:
            yield numbers, operators, target, hidden


def problems(split: Split, sizes: Sequence[int] = (3, 4)) -> Iterator[Asked]:
    """Family ``tiles``: a question for every chain of a split and its hidden number."""
    for i, (numbers, operators, target, hidden) in enumerate(chains(split, sizes)):
        seed = f"{NAME}:{split}:{i}"
        named = name_numbers(numbers, hidden, random.Random(f"{seed}:colours"))
        yield Asked(question(named, operators, target, hidden), str(numbers[hidden]), named, seed)


def sum_problems(split: Split, sizes: Sequence[int] = (3, 4)) -> Iterator[Asked]:
    """Family ``tiles-sum``: the value of every chain of a split, one tile for each of its numbers."""
    for i, (numbers, operators, target, _) in enumerate(chains(split, sizes)):
        seed = f"{SUM_NAME}:{split}:{i}"
        named = name_numbers(numbers, None, random.Random(f"{seed}:colours"))
        yield Asked(question(named, operators, target, None), str(target), named, seed)
