"""What the records of an exam add up to: one number a protocol, with its interval (Sec. 4.1; specification Sec. 7.5).

========================== ==========================================================================================
mean over items            Wilson's interval for as many trials as the items and samples are worth, which depends on how
                           those of one unit (:attr:`Protocol.unit`) stand and fall together
anything else              a seeded percentile bootstrap over those units: means of groups, F1; where every unit is
                           wrong, or every one right, Wilson's for that many units
========================== ==========================================================================================

With K samples an item (not in the paper; Chen et al. 2021, arXiv 2107.03374; Wang et al. 2022, arXiv 2203.11171):
``avg@K`` is the headline over all samples, ``pass@k`` the unbiased estimate of the share of items that k samples solve,
1 - C(K - c, k) / C(K, k) with c of K right, and ``maj@K`` the headline of the answer that most samples agree on, as the
protocol reads them: the earliest of equals.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spark_rl.evals.ask.exam import Exam
from spark_rl.evals.ask.records import REFUSED, SKIPPED, Record, item_of
from spark_rl.evals.benchmark import Graded, Item, Protocol
from spark_rl.evals.calibration import calibration, calibration_shares
from spark_rl.evals.judge_accuracy import judge_accuracy, judged
from spark_rl.evals.score.grading import MISSING, grade_of
from spark_rl.evals.score.positions import positions
from spark_rl.intervals import RESAMPLES, bootstrap, clustered, wilson
from spark_rl.problem import STATUSES

TTS = "+tts"
"""Ends the name of a protocol whose number has test-time scaling on."""
RESAMPLED_ITEMS = 1_000_000
"""Items that all draws of one bootstrap hold at most, so that a large benchmark takes seconds, not minutes."""
FEWEST = 200
"""Draws of a bootstrap at least."""


def results(exam: Exam, records: Sequence[Record]) -> dict[str, Any]:
    """What an exam's graded records add up to.

    ::

        {"reference": {"score": 0.40, "n": 60, "low": 0.29, "high": 0.53, "of": 3040, "tts": 0,
                       "breakdown": {"subject/algebra": 0.52, ...}},
         "rule": {...}, "rule+tts": {...},                                 final answers, where they were asked for
         "judge": {"recall": {"score": ...}, ...},                         own verdicts, where they were asked for
         "positions": {"verdict/A": {"score": ...}, ...},                  of the reward benchmarks
         "about": {"skipped": 0, "refused": 0, "missing": 0, "statuses": {"correct": 25, ...}, "images": 60,
                   "smallest": [84, 90], "largest": [1200, 800], "prompt_tokens": {"mean": 310.2, "max": 1544},
                   "tokens": 9120, "seconds": 84.1}}

    ``n`` counts items, of which the whole benchmark has ``of``; ``units``, where there is such a number, what they were
    drawn as for the interval. ``tts`` is the number of rounds. Scores are ``None`` where nothing was asked. A protocol
    that adds up groups leaves out groups with an item whose prompt was too long.
    """
    of_item = {record["id"]: record for record in records if record["source"] == exam.name}
    records = [of_item[item.problem.id] for item in exam.items if item.problem.id in of_item]
    asked = [record for record in records if record["status"] != SKIPPED]
    found: dict[str, Any] = {}
    for name, protocol in exam.protocols.items():
        kept = asked if protocol.headline_is_mean else _whole(protocol, records)
        graded = [[grade_of(answer, name) for answer in (record, *record["samples"])] for record in kept]
        size = {} if exam.benchmark is None else {"of": exam.benchmark.published}
        found[name] = total(protocol, [item_of(record) for record in kept], graded) | size | {"tts": 0}
        scaled = [record for record in kept if record["final"] is not None]
        if scaled:
            finals = [[grade_of(record["final"], name)] for record in scaled]
            on = {"tts": max(record["rounds"] for record in scaled)}
            found[name + TTS] = total(protocol, [item_of(record) for record in scaled], finals) | size | on
    unit = exam.protocols[exam.main].unit
    own = judged(asked, lambda record: unit(item_of(record)))
    if own:
        chances = calibration(own)
        found["judge"] = {
            **judge_accuracy(own, random.Random(exam.name)),
            **calibration_shares(own, random.Random(exam.name)),
            **({} if chances is None else {"calibration": asdict(chances)}),
        }
    if exam.benchmark is not None and exam.benchmark.group == "reward":
        first = [(item_of(record), grade_of(record, exam.main)) for record in asked]
        found["positions"] = positions([item for item, _ in first], [grade for _, grade in first])
    return {**found, "about": _about(records, asked)}


def total(protocol: Protocol, items: Sequence[Item], graded: Sequence[Sequence[Graded]]) -> dict[str, Any]:
    """One protocol's number over items, each with the grades of its K samples.

    ``score`` is ``None`` where the items have no headline, such as MathVerse's without any of its five main versions.
    """
    if not items:
        return {"score": None, "n": 0, "low": 0.0, "high": 1.0}
    columns = list(zip(*graded, strict=True))
    sums = [protocol.add_up(items, column) for column in columns]
    parts = {name: sum(one.get(name, 0.0) for one in sums) / len(sums) for name in sums[0]}
    units = _units(protocol, items)
    score = parts.pop("score", None)
    low, high = _interval(protocol, items, graded, units)
    if low == high == score and score in {0.0, 1.0}:
        low, high = wilson(score * len(units), len(units))
    return {
        "score": score,
        "n": len(items),
        "low": low,
        "high": high,
        **({"units": len(units)} if len(units) < len(items) else {}),
        **(_of_samples(protocol, items, graded) if len(columns) > 1 else {}),
        **({"breakdown": parts} if parts else {}),
    }


def _interval(
    protocol: Protocol, items: Sequence[Item], graded: Sequence[Sequence[Graded]], units: Sequence[Sequence[int]]
) -> tuple[float, float]:
    if protocol.headline_is_mean:
        scores = [[grade.score for i in unit for grade in graded[i]] for unit in units]
        return clustered([(sum(unit), len(unit)) for unit in scores])
    return bootstrap(
        units, _statistic(protocol, items, graded), random.Random(len(items)),
        max(FEWEST, min(RESAMPLES, RESAMPLED_ITEMS // len(items))),
    )  # fmt: skip


def _statistic(
    protocol: Protocol, items: Sequence[Item], graded: Sequence[Sequence[Graded]]
) -> Callable[[Sequence[Sequence[int]]], float | None]:
    """The headline of the units that one draw holds."""

    def added_up(drawn: Sequence[Sequence[int]]) -> float | None:
        places = [i for unit in drawn for i in unit]
        asked = [items[i] for i in places]
        scores = [
            protocol.add_up(asked, column).get("score") for column in zip(*(graded[i] for i in places), strict=True)
        ]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else None

    return added_up


def _of_samples(protocol: Protocol, items: Sequence[Item], graded: Sequence[Sequence[Graded]]) -> dict[str, Any]:
    count = len(graded[0])
    columns = zip(*graded, strict=True)
    scores = [score for column in columns if (score := protocol.add_up(items, column).get("score")) is not None]
    found: dict[str, Any] = {"samples": count, f"avg@{count}": sum(scores) / len(scores) if scores else None}
    if protocol.headline_is_mean:
        right = [sum(grade.score >= 1 for grade in grades) for grades in graded]
        for k in sorted({count, *(2**power for power in range(1, count.bit_length()) if 2**power < count)}):
            found[f"pass@{k}"] = sum(pass_at(k, count, c) for c in right) / len(right)
    found[f"maj@{count}"] = protocol.add_up(items, [majority(grades) for grades in graded]).get("score")
    return found


def pass_at(k: int, n: int, right: int) -> float:
    """The chance that k of n samples, drawn without putting back, hold a right one."""
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def majority(grades: Sequence[Graded]) -> Graded:
    """The grade of the answer that most samples agree on, the earliest of equals; samples without one don't vote."""
    votes = Counter(grade.extracted.strip() for grade in grades if grade.extracted is not None)
    if not votes:
        return MISSING
    ((winner, _),) = votes.most_common(1)
    return next(grade for grade in grades if grade.extracted is not None and grade.extracted.strip() == winner)


def _units(protocol: Protocol, items: Sequence[Item]) -> list[list[int]]:
    units: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        units.setdefault(protocol.unit(item), []).append(place)
    return list(units.values())


def _whole(protocol: Protocol, records: Sequence[Record]) -> list[Record]:
    """The records of units in which nothing was skipped."""
    broken = {protocol.unit(item_of(record)) for record in records if record["status"] == SKIPPED}
    return [record for record in records if protocol.unit(item_of(record)) not in broken]


def _about(records: Sequence[Record], asked: Sequence[Record]) -> dict[str, Any]:
    statuses = Counter(record["status"] for record in asked)
    sizes = sorted(
        (size for record in records for size in record["image_sizes"]), key=lambda size: (size[0] * size[1], size)
    )
    lengths = [record["prompt_tokens"] for record in records if record["prompt_tokens"] is not None]
    return {
        "skipped": len(records) - len(asked),
        "refused": statuses[REFUSED],
        "missing": sum(record["response"] is None and record["status"] != REFUSED for record in asked),
        "statuses": {status: statuses[status] for status in STATUSES},
        "images": sum(record["images"] for record in records),
        "smallest": sizes[0] if sizes else None,
        "largest": sizes[-1] if sizes else None,
        "prompt_tokens": {"mean": sum(lengths) / max(1, len(lengths)), "max": max(lengths, default=0)},
        "tokens": sum(_tokens(record) for record in asked),
        "seconds": sum(record["seconds"] for record in records),
    }


def _tokens(record: Mapping[str, Any]) -> int:
    """All tokens generated for a record."""
    if record["final"] is not None:
        return int(record["final"]["tokens"])
    return int(record["tokens"] + record["judge_tokens"] + sum(sample["tokens"] for sample in record["samples"]))
