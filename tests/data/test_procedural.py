"""Procedural problems: ids, order, limits, splits by role."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from spark_rl.config import DataConfig
from spark_rl.data import check_disjoint, load_problems
from spark_rl.errors import DataError

FAMILIES = ("operators", "missing")


def test_a_problem_of_each_family() -> None:
    for family, pattern in (("operators", "?"), ("missing", "_")):
        for role, split in (("train", "train"), ("heldout", "heldout"), ("transfer", "heldout")):
            problem = load_problems(f"procedural:{family}", DataConfig(), role)[0]  # type: ignore[arg-type]
            assert problem.id == f"{family}-{split}-0"
            assert (problem.kind, problem.task, problem.source, problem.prompt) == ("exact", "policy", family, None)
            assert pattern in problem.question


def test_operators_answers_solve_their_questions() -> None:
    for problem in load_problems("procedural:operators", DataConfig(limit=500)):
        shown, _, target = problem.question.partition("=")
        first, *numbers = map(int, shown.split("?"))
        for operator, number in zip(problem.answer, numbers, strict=True):
            first = {"+": first + number, "-": first - number, "*": first * number}[operator]
        assert first == int(target)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_and_held_out_problems_share_nothing(family: str) -> None:
    train = [p for name in FAMILIES for p in load_problems(f"procedural:{name}", DataConfig())]
    heldout = load_problems(f"procedural:{family}", DataConfig(), "heldout")
    assert check_disjoint(train, heldout) == 0
    assert not {p.id for p in train} & {p.id for p in heldout}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_is_shuffled_and_the_same_every_time(family: str) -> None:
    problems = load_problems(f"procedural:{family}", DataConfig())
    assert problems == load_problems(f"procedural:{family}", DataConfig())
    sizes = {len(re.findall(r"[?_]|[1-9](?=[-+*?=])", p.question.partition("=")[0] + "=")) for p in problems[:100]}
    assert len(sizes) > 1, "puzzles of three and of four numbers are mixed from the start"
    assert len({p.id for p in problems}) == len(problems)


def test_limit_cuts_training_only_and_gives_a_prefix() -> None:
    all_of_it = load_problems("procedural:operators", DataConfig())
    assert load_problems("procedural:operators", DataConfig(limit=5)) == all_of_it[:5]
    assert len(load_problems("procedural:operators", DataConfig(limit=5), "heldout")) > 5000


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no procedural family 'operator'; did you mean procedural:operators\?"):
        load_problems("procedural:operator", DataConfig())
    with pytest.raises(DataError, match="known: operators, missing"):
        load_problems("procedural:", DataConfig())


def test_procedural_data_needs_neither_torch_nor_datasets() -> None:
    code = (
        "import sys; from spark_rl.data import load_problems; from spark_rl.config import DataConfig\n"
        "load_problems('procedural:missing', DataConfig(limit=3))\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'transformers', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
