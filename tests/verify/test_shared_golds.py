"""Real gold answers against themselves and against their neighbours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_rl.config import VerifyConfig
from spark_rl.verify import Verifier
from spark_rl.verify.pool import Item

DATA = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[2].parent / "shared" / "data")) / "llm"
EQUAL_NEIGHBOURS = {("5", "x=5")}
"""Consecutive MATH-500 answers that differ as strings and are equal all the same."""

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set SPARK_RL_DATA_ROOT"),
]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=2, timeout=20.0)) as shared:
        yield shared


def answers(name: str) -> list[str]:
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return [str(row["answer"]).rpartition("####")[2].strip() for row in rows]


def rewrapped(answer: str) -> str:
    """The same answer in another model's spelling, so that it is not the same string."""
    answer = re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", answer)
    if r"\left" not in answer:
        answer = answer.replace("(", r"\left(").replace(")", r"\right)")
    answer = re.sub(r"(?<![A-Za-z{\\])([+-]) ?", r" \1 ", answer)
    return rf"${answer}\,$."


@pytest.mark.parametrize("name", ["math500.jsonl", "gsm8k_test.jsonl", "aime24.jsonl", "aime25.jsonl", "amc23.jsonl"])
def test_every_gold_equals_itself(verifier: Verifier, name: str) -> None:
    golds = answers(name)
    items: list[Item] = [(f"\\boxed{{{gold}}}", gold, "math", ()) for gold in golds]
    respelled: list[Item] = [(f"\\boxed{{{rewrapped(gold)}}}", gold, "math", ()) for gold in golds]
    missed = [
        (item[1], item[0])
        for item, verdict in zip(items + respelled, verifier.verify_many(items + respelled), strict=True)
        if verdict.status != "correct"
    ]

    assert missed == []


def test_a_gold_does_not_equal_the_next_one(verifier: Verifier) -> None:
    golds = answers("math500.jsonl")
    pairs = [(gold, other) for gold, other in zip(golds, golds[1:] + golds[:1], strict=True) if gold != other]
    items: list[Item] = [(f"\\boxed{{{other}}}", gold, "math", ()) for gold, other in pairs]
    verdicts = verifier.verify_many(items)
    equal = {pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.status == "correct"}

    assert len(pairs) > 480
    assert equal == EQUAL_NEIGHBOURS
    assert {verdict.status for verdict in verdicts} <= {"correct", "wrong"}
