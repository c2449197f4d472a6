"""The families with pictures: what a picture shows, read back from its pixels alone, makes question and answer true."""

from __future__ import annotations

import io
import random
import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.data.procedural import procedural_problems
from spark_rl.data.tasks import tiles
from spark_rl.data.tasks.chains import split_of
from spark_rl.problem import Problem

FAMILIES = ("tiles", "tiles-sum")


NAMED = {"r": (230, 80, 80), "g": (90, 200, 110), "b": (90, 140, 240), "o": (245, 175, 60), "p": (190, 110, 225)}
SEGMENTS = {"abdeg": 2, "abcdg": 3, "bcfg": 4, "acdfg": 5, "acdefg": 6, "abc": 7, "abcdefg": 8, "abcdfg": 9}
"""The usual letters of seven segments: a top, then clockwise, g the middle."""
PROBES = {"a": (1, 4), "b": (5, 8), "c": (14, 8), "d": (18, 4), "e": (14, 1), "f": (5, 1), "g": (10, 4)}
"""Segment -> (row, column) within a digit of 20 x 10."""


def read_row(picture: NDArray[np.uint8]) -> dict[str, int]:
    """(28, 28 n, 3) levels -> letter of each tile's colour -> its number."""
    return dict(read_tile(picture[:, x : x + 28].astype(int)) for x in range(0, picture.shape[1], 28))


def read_tile(tile: NDArray[np.int_]) -> tuple[str, int]:
    ground = tile[1, 1]
    colour = min(NAMED, key=lambda name: float(np.abs(ground - NAMED[name]).sum()))
    blobs = blobs_of(tile.sum(-1) < 100)
    if all(len(blob) == 16 for blob in blobs):
        return colour, len(blobs)
    if len(blobs) == 11:
        return colour, max(map(len, blobs)) // 18
    (digit,) = blobs
    top, left = min(y for y, _ in digit), min(x for _, x in digit)
    if max(x for _, x in digit) - left < 4:
        return colour, 1
    lit = "".join(name for name, (y, x) in PROBES.items() if (top + y, left + x) in digit)
    return colour, SEGMENTS[lit]


def blobs_of(ink: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Connected patches of ink, by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(ink)}
    found = []
    while left:
        edge = [left.pop()]
        blob = set(edge)
        while edge:
            y, x = edge.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    blob.add(near)
                    edge.append(near)
        found.append(blob)
    return found


@cache
def problems(family: str, split: str) -> tuple[Problem, ...]:
    return procedural_problems(family, split)  # type: ignore[arg-type]


def numbers_of(problem: Problem) -> dict[str, int]:
    """Letter -> number, read from the problem's picture."""
    return read_row(np.asarray(Image.open(io.BytesIO(problem.images[0]))))


def filled(problem: Problem) -> tuple[list[int], str, int]:
    """(the chain's numbers, its operators, its target), the picture read and the answer put in."""
    left, right = problem.question.split("=")
    seen = numbers_of(problem)
    named = re.findall(r"[a-z_]", left)
    numbers = [int(problem.answer) if letter == "_" else seen[letter] for letter in named]
    return numbers, "".join(re.findall(r"[-+*]", left)), int(problem.answer if right == "_" else right)


def value_of(numbers: list[int], operators: str) -> int | None:
    value = numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        value = {"+": value + number, "-": value - number, "*": value * number}[operator]
        if not 0 <= value <= 99:
            return None
    return value


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_answer_makes_the_question_true_of_the_picture(family: str, split: str) -> None:
    for problem in problems(family, split)[:120]:
        numbers, operators, target = filled(problem)
        assert value_of(numbers, operators) == target, problem.question


def test_no_other_answer_would_do() -> None:
    for problem in problems("tiles", "heldout")[:100]:
        left, target = problem.question.split("=")
        seen, named = numbers_of(problem), re.findall(r"[a-z_]", left)
        operators = "".join(re.findall(r"[-+*]", left))
        found = [n for n in range(1, 10) if value_of([seen.get(x, n) for x in named], operators) == int(target)]
        assert found == [int(problem.answer)], problem.question


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_chain_belongs_to_its_split(family: str, split: str) -> None:
    for problem in problems(family, split)[:120]:
        assert split_of(filled(problem)[0]) == split, problem.question


@pytest.mark.parametrize("family", FAMILIES)
def test_no_picture_of_training_is_held_out(family: str) -> None:
    pictures = {problem.images for name in FAMILIES for problem in problems(name, "train")}
    assert not pictures & {problem.images for problem in problems(family, "heldout")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_problem_of_each_family(family: str) -> None:
    first, second = (load_problems(f"procedural:{family}", DataConfig(limit=3)) for _ in range(2))
    assert first == second == problems(family, "train")[:3], "the same pictures every time, a limit gives a prefix"
    problem = first[0]
    assert (problem.id, problem.kind, problem.source) == (f"{family}-train-0", "exact", family)
    assert "_" in problem.question
    image = Image.open(io.BytesIO(problem.images[0]))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (140, 28))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_running_result_is_too_large(family: str) -> None:
    for problem in problems(family, "train")[:120]:
        numbers, operators, _ = filled(problem)
        for end in range(1, len(numbers) + 1):
            value = value_of(numbers[:end], operators[: end - 1])
            assert value is not None
            assert 1 <= value <= 40, problem.question


def test_there_is_enough_to_train_on_and_to_measure() -> None:
    assert len(problems("tiles", "train")) > 1500
    assert len(problems("tiles", "heldout")) > 400


@given(st.sampled_from(sorted(tiles.COLOURS)), st.integers(1, 9), st.integers(0, 10_000))
def test_every_tile_shows_its_number_and_keeps_within_its_border(colour: str, value: int, seed: int) -> None:
    tile = tiles.draw_tile(colour, value, random.Random(seed))
    picture = np.asarray(tiles.paint_tile(tile))
    assert picture.shape == (28, 28, 3)
    border = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
    assert (border == 245).all()
    assert read_row(picture) == {colour: value}


def test_all_styles_and_all_colours_are_shown() -> None:
    rng = random.Random(0)
    rows = [tiles.draw_row({"r": 7}, rng) for _ in range(300)]
    assert all({tile.colour for tile in row} == set("rgbop") for row in rows)
    assert all(tile.value == 7 for row in rows for tile in row if tile.colour == "r")
    assert {row[0].colour for row in rows} == set("rgbop"), "the order of colours is shuffled"
    styles = [tile.style for row in rows for tile in row]
    assert all(0.28 < styles.count(style) / len(styles) < 0.39 for style in tiles.STYLES)
