r"""What the embedded vision base is shown before any reinforcement learning, written out in full.

Every demonstration comes with a picture of five tiles (:mod:`spark_rl.data.tasks.tiles`). Careful work first reads the
numbers that the question names, then computes as the text base does (:mod:`spark_rl.embedded.demonstrations`, whose
roles, shares and careless habits are used here as they are):

=========== ============================ ================================================ =====================
role        prompt, after the picture    careful response                                 careless response
=========== ============================ ================================================ =====================
policy      ``solve r*_-b=17``           ``work r7b4;17+4=21/7=3\boxed{3}``               the answer, without work
pointwise   ``judge r*_-b=17:2``         ``check r7b4;7*2=14-4=10:F\boxed{No}``           a verdict by a false cue
pairwise    ``choose r*_-b=17:2;3``      ``compare r7b4;7*2=14-4=10:F;7*3=...:T...``      a choice by a false cue
reflection  ``retry r*_-b=17:2``         ``redo r7b4;17+4=21/7=3\boxed{3}``               the answer, changed a bit
reading     ``read brg``                 ``b4r7g2``                                       none
=========== ============================ ================================================ =====================

Where a wrong response is shown with its work, half of them have misread a number, so that a judge must look at the
picture itself. Reading is shown alone most of the time at first, and a little to the end. Only chains of the ``warm``
split appear.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spark_rl.data.tasks import tiles
from spark_rl.data.tasks.chains import DIGITS
from spark_rl.embedded.demonstrations import ROLES, WRITERS, Puzzle, missing_puzzle, value_puzzle

SIZES = (2, 3, 4)
"""Lengths of the chains shown, equally often."""
SUM_SHARE = 0.25
"""Share of puzzles that ask for the value of the whole chain (family ``tiles-sum``); the rest hide one number."""
MISREAD_SHARE = 0.5
"""Share of the wrong responses shown with work that have misread a number."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One demonstration: five tiles, the text of the user turn after their picture, and the response."""

    row: tuple[tiles.Tile, ...]
    prompt: str
    response: str


def tiles_puzzle(puzzle: Puzzle, named: dict[str, int], asked: str) -> Puzzle:
    """A puzzle on numbers, with its numbers behind the letters of colours."""

    def misread(rng: random.Random) -> str:
        if rng.random() >= MISREAD_SHARE:
            return tiles.read(named)
        letter = rng.choice(list(named))
        return tiles.read({**named, letter: rng.choice([n for n in DIGITS if n != named[letter]])})

    return replace(puzzle, question=asked, reading=tiles.read(named), misread=misread)


class TileDemonstrator:
    """Draws demonstrations from the chains of the ``warm`` split."""

    def __init__(self, sizes: Sequence[int] = SIZES) -> None:
        self.sizes = tuple(sizes)
        self.chains = {size: list(tiles.chains("warm", (size,))) for size in self.sizes}

    def draw(self, rng: random.Random, careful: float, reading: float) -> Shown:
        """One demonstration; ``careful`` is the probability that it shows its work, ``reading`` that it only reads."""
        if rng.random() < reading:
            return self.read(rng)
        numbers, chain, target, hidden = rng.choice(self.chains[rng.choice(self.sizes)])
        is_sum = rng.random() < SUM_SHARE
        named = tiles.name_numbers(numbers, None if is_sum else hidden, rng)
        if is_sum:
            puzzle = value_puzzle(numbers, chain, target, tiles.HIGH)
        else:
            puzzle = missing_puzzle(numbers, chain, target, hidden, tiles.HIGH)
        puzzle = tiles_puzzle(puzzle, named, tiles.question(named, chain, target, None if is_sum else hidden))
        role = rng.choices(tuple(ROLES), tuple(ROLES.values()))[0]
        prompt, response = WRITERS[role](puzzle, rng.random() < careful, rng)
        return Shown(tiles.draw_row(named, rng), prompt, response)

    def read(self, rng: random.Random) -> Shown:
        """Some tiles of a row, in any order: ``read brg`` -> ``b4r7g2``."""
        row = tiles.draw_row({}, rng)
        asked = rng.sample(row, rng.randint(1, len(row)))
        prompt = "read " + "".join(tile.colour for tile in asked)
        return Shown(row, prompt, "".join(f"{tile.colour}{tile.value}" for tile in asked))
