"""The example of a real small model: its problems, its recipe, and that its warm-up teaches no judging."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from spark_rl.config import load_config
from spark_rl.plugins import load_object
from spark_rl.recycle import load_templates

FOLDER = Path(__file__).parents[1] / "examples" / "smollm2"


def part(file: str, name: str) -> Any:
    return load_object(f"{FOLDER / file}:{name}", "the example")


def rows(stories: str, split: str, count: int = 300) -> list[dict[str, str]]:
    return list(islice(part("problems.py", "problems")(part("problems.py", stories), split), count))


def test_workings_end_in_the_answer_and_are_true() -> None:
    for row in [*rows("STORIES", "train"), *rows("OTHER_STORIES", "heldout")]:
        for step in row["working"].split(", "):
            left, sign, right, result = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", step).groups()  # type: ignore[union-attr]
            a, b = int(left), int(right)
            assert int(result) == {"+": a + b, "-": a - b, "*": a * b}[sign]
        assert row["working"].endswith(f"={row['answer']}")


def test_splits_share_no_numbers() -> None:
    numbers = {
        split: {tuple(sorted(map(int, re.findall(r"\d+", row["question"])))) for row in rows("STORIES", split)}
        for split in ("warm", "train", "heldout")
    }
    other = {tuple(sorted(map(int, re.findall(r"\d+", r["question"])))) for r in rows("OTHER_STORIES", "heldout")}
    assert not numbers["warm"] & numbers["train"]
    assert not (numbers["heldout"] | other) & (numbers["warm"] | numbers["train"])


@pytest.mark.parametrize(("task", "label"), [("pointwise", "Yes"), ("pairwise", "A")])
def test_demonstrated_verdicts_say_nothing_of_what_is_shown(task: str, label: str) -> None:
    demonstration = part("warm_up.py", "demonstration")
    templates, rng = load_templates(str(FOLDER / "templates.yaml")), random.Random(0)
    counts: Counter[tuple[bool, bool]] = Counter()
    for row in rows("STORIES", "warm") * 10:
        asked, response = demonstration(row, task, templates, rng)
        shown = asked.prompt.removeprefix(row["question"]).splitlines()[1]  # the proposed answer, or A
        right = re.findall(r"\d+", shown)[-1] == row["answer"]
        counts[right, response.endswith(rf"\boxed{{{label}}}")] += 1
    for right in (True, False):
        said = counts[right, True] / (counts[right, True] + counts[right, False])
        assert 0.45 < said < 0.55


def test_the_recipe_is_one() -> None:
    config = load_config(FOLDER / "smollm2.yaml")
    assert config.recycle.templates == "examples/smollm2/templates.yaml"
