"""Word problems of one and two steps, made from our own templates: what a model of 135 M parameters sometimes solves.

    python examples/smollm2/problems.py smol/data

It writes four files of rows with a question, an answer and a working. They are no public benchmark and stand for none.

=============== ========================== ==========================================================
file            stories                    numbers
=============== ========================== ==========================================================
warm.jsonl      those of ``STORIES``       a fifth of all; for the warm-up alone
train.jsonl     those of ``STORIES``       three fifths
heldout.jsonl   those of ``STORIES``       a fifth that is in neither of the above
transfer.jsonl  those of ``OTHER_STORIES`` the same fifth: neither story nor numbers were trained on
=============== ========================== ==========================================================

A hash of its numbers puts a problem into its split, so no two splits share them, in whatever order or story.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("Ana", "Ben", "Carla", "Dan", "Emma", "Finn", "Grace", "Hugo", "Ivy", "Jack", "Kate", "Leo", "Mia", "Noah")
THINGS = ("apples", "books", "cards", "coins", "cookies", "marbles", "pencils", "shells", "stamps", "stickers")
SPLITS = ("warm", "train", "train", "train", "heldout")
SIZES = {"warm": 1000, "train": 2000, "heldout": 200, "transfer": 200}
MOST = 400
"""No result on the way is larger, and none is below 1."""


@dataclass(frozen=True, slots=True)
class Story:
    """A template and how it is solved: ``Story("{a} and {b} more?", "a+b", a=MANY, b=MANY)``.

    ``steps`` are separated by spaces; ``x`` is the result of the step before.
    """

    text: str
    steps: str
    ranges: tuple[range, ...]


FEW, MANY = range(2, 10), range(11, 60)
STORIES = (
    Story("{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?", "a+b", (MANY, MANY)),
    Story("{name} had {a} {things} and gave {b} of them away. How many {things} are left?", "a-b", (MANY, MANY)),
    Story("There are {a} boxes with {b} {things} in each. How many {things} are there in all?", "a*b", (FEW, MANY)),
    Story("{name} has {a} {things}. {other} has {b} {things} more than {name}. How many {things} does {other} have?",
          "a+b", (MANY, MANY)),
    Story("{name} needs {a} {things} and has {b}. How many {things} are missing?", "a-b", (MANY, MANY)),
    Story("{name} has {a} {things}, finds {b} more and then loses {c}. How many {things} does {name} have now?",
          "a+b x-c", (MANY, MANY, MANY)),
    Story("A shop has {a} {things}. It sells {b} in the morning and {c} in the afternoon. How many {things} are left?",
          "a-b x-c", (MANY, MANY, MANY)),
    Story("{name} has {a} {things} and gets {b} bags with {c} {things} in each. How many {things} does {name} have "
          "now?", "b*c x+a", (MANY, FEW, FEW)),
    Story("{name} fills {a} bags with {b} {things} each and has {c} {things} left over. How many {things} are there in "
          "all?", "a*b x+c", (FEW, FEW, MANY)),
    Story("{name} has {a} {things} and {other} has {b} {things} more than {name}. How many {things} do they have "
          "together?", "a+b x+a", (MANY, MANY)),
)  # fmt: skip
OTHER_STORIES = (
    Story("A bus has {a} people on it and {b} more get on. How many people are on the bus now?", "a+b", (MANY, MANY)),
    Story("A tank had {a} litres of water and {b} litres flowed out. How many litres are left?", "a-b", (MANY, MANY)),
    Story("There are {a} rows with {b} seats in each. How many seats are there in all?", "a*b", (FEW, MANY)),
    Story("{name} is {a} years old. {other} is {b} years older than {name}. How old is {other}?", "a+b", (MANY, MANY)),
    Story("A train has {a} people on it, takes on {b} more and then lets off {c}. How many people are on the train "
          "now?", "a+b x-c", (MANY, MANY, MANY)),
    Story("A farmer has {a} eggs. He sells {b} on Monday and {c} on Tuesday. How many eggs are left?", "a-b x-c",
          (MANY, MANY, MANY)),
    Story("A hall has {a} rows with {b} seats each and {c} seats at the back. How many seats are there in all?",
          "a*b x+c", (FEW, FEW, MANY)),
)  # fmt: skip


def split_of(numbers: tuple[int, ...]) -> str:
    """The split that owns these numbers, in whatever order."""
    digest = hashlib.sha256(repr(sorted(numbers)).encode()).digest()
    return SPLITS[digest[0] % len(SPLITS)]


def work(steps: str, numbers: tuple[int, ...]) -> tuple[str, int] | None:
    """(``3*4=12, 12+7=19``, 19); ``None`` where a result leaves 1 to :data:`MOST`."""
    known = dict(zip("abc", numbers, strict=False))
    written = []
    for left, sign, right in steps.split():
        first, second = known[left], known[right]
        known["x"] = first + second if sign == "+" else first - second if sign == "-" else first * second
        if not 1 <= known["x"] <= MOST:
            return None
        written.append(f"{first}{sign}{second}={known['x']}")
    return ", ".join(written), known["x"]


def problems(stories: tuple[Story, ...], split: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows without end, each question once."""
    rng = random.Random(f"{split}:{seed}")
    seen: set[str] = set()
    while True:
        story = rng.choice(stories)
        numbers = tuple(rng.choice(choices) for choices in story.ranges)
        solved = work(story.steps, numbers)
        if solved is None or split_of(numbers) != split:
            continue
        name, other = rng.sample(NAMES, 2)
        values = dict(zip("abc", numbers, strict=False))
        question = story.text.format(name=name, other=other, things=rng.choice(THINGS), **values)
        if question not in seen:
            seen.add(question)
            yield {"question": question, "answer": str(solved[1]), "working": solved[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        transfer = name == "transfer"
        rows = problems(OTHER_STORIES if transfer else STORIES, "heldout" if transfer else name, seed=int(transfer))
        with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for _, row in zip(range(size), rows, strict=False):
                file.write(json.dumps(row) + "\n")
        print(f"wrote {out / name}.jsonl: {size} problems")


if __name__ == "__main__":
    main()
