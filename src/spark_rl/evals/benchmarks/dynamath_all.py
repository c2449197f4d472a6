"""DynaMath in all its variants: 501 seed questions ten times (specification Sec. 2.5).

Rows and scoring are those of :mod:`.dynamath`; ids are ``SEED/VARIANT``. The score is the mean over all rows;
``worst_case`` is the share of seeds that are right in every variant at hand, ``robustness`` its ratio to the score.
Seeds are resampled for the interval. The paper's column is ``dynamath``, one variant; no group asks this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Graded, Item, Protocol
from spark_rl.evals.benchmarks import dynamath
from spark_rl.evals.score.scorers import by
from spark_rl.evals.score.units import units

VARIANTS = range(1, 11)


def load(path: Path) -> list[Item]:
    """The items of every variant in the folder, seed by seed, so that ``--limit`` keeps seeds together.

    Raises:
        DataError: there is none, one is unusable, or they hold different seeds.
    """
    seeds: dict[str, list[Item]] = {}
    for variant in VARIANTS:
        names = (name.replace("1", str(variant), 1) for name in dynamath.FIRST_FILES)
        file = next((path / name for name in names if (path / name).is_file()), None)
        if file is None:
            continue
        found = dynamath.read_variant(file, "dynamath-all", variant)
        odd = {_seed(item) for item in found} ^ seeds.keys()
        if seeds and odd:
            raise DataError(f"{file}: seed {min(odd)} is not in every variant, and the worst case needs all of a seed")
        for item in found:
            seeds.setdefault(_seed(item), []).append(item)
    if not seeds:
        raise DataError(f"{path}: no variant of DynaMath; there should be {', '.join(dynamath.FIRST_FILES[:2])}, ...")
    return [item for variants in seeds.values() for item in variants]


def worst_case(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """``worst_case``, the share of seeds that are right in every variant, and ``robustness``, its ratio to the mean.

    A seed that ``--limit`` cut is left out.
    """
    seeds = units(items, grades, _seed)
    if not seeds:
        return {}
    most = max(map(len, seeds))
    whole = [seed for seed in seeds if len(seed) == most]
    worst = sum(all(grade.score >= 1 for _, grade in seed) for seed in whole) / len(whole)
    mean = sum(grade.score for grade in grades) / len(grades)
    return {"worst_case": worst, "robustness": worst / mean if mean else 0.0}


def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The mean, means by subject, level, type and variant, and the worst case."""
    groups = by("subject", "level", "answer_type", "variant")
    return {**groups(items, grades), **worst_case(items, grades)}


def _seed(item: Item) -> str:
    return str(item.meta["seed"])


BENCHMARK = replace(
    dynamath.BENCHMARK,
    name="dynamath-all",
    title="DynaMath (all variants)",
    files=("vlm/dynamath",),
    load=load,
    protocols={
        name: Protocol(protocol.score, add_up, headline_is_mean=False, unit=_seed)
        for name, protocol in dynamath.BENCHMARK.protocols.items()
    },
    published=5010,
)
