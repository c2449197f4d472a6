"""RealWorldQA: what a photograph, often from a car, shows (paper Table 4).

Data: ``xai-org/RealworldQA`` (or ``lmms-lab/RealWorldQA``), split ``test``, as ``general/realworldqa/test.parquet`` or
``.jsonl`` with the columns ``image``, ``question`` and ``answer``. The question holds its options and ends in an
instruction on how to answer, which is taken off, because ``chat.policy`` brings one.

Gold letters are scored as multiple choice, with the option texts where the question lists them on lines of their own;
words and numbers are compared in lower case, without a period, number words as digits. As its own
instruction asks for no box, answers without one count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import LETTERS, Entry, read_entries
from spark_rl.evals.score.scorers import by, rule, unboxed
from spark_rl.evals.score.short_answer import grade_short
from spark_rl.problem import Problem
from spark_rl.verify import Verifier

_INSTRUCTION = re.compile(r"Please answer directly with [^\n]{1,200}$")
_OPTION = re.compile(r"^\(?([A-H])[.)] *(\S.*)$", re.MULTILINE)


def load(path: Path) -> list[Item]:
    """One item for each row of the file."""
    return [_item(entry) for entry in read_entries(path, "id")]


def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
    """Letters by the shared rule, everything else as a short answer."""
    chosen = [(item, text) for item, text in zip(items, responses, strict=True) if item.problem.kind == "choice"]
    letters = iter(rule([item for item, _ in chosen], [text for _, text in chosen], verifier))
    return [
        next(letters) if item.problem.kind == "choice" else grade_short(text, [item.problem.answer])
        for item, text in zip(items, responses, strict=True)
    ]


def _item(entry: Entry) -> Item:
    question = _INSTRUCTION.sub("", entry.text("question")).strip()
    answer = entry.text("answer")
    if re.fullmatch(r"[A-H]\.?", answer) is None:
        problem = Problem(id=entry.id, question=question, answer=answer, kind="exact", images=entry.image())
        return Item(problem, {"type": "short"})
    choices = _options(question)
    answer = answer[0]
    if answer not in LETTERS[: len(choices)]:
        choices = ()
    problem = Problem(
        id=entry.id, question=question, answer=answer, kind="choice", images=entry.image(), choices=choices
    )
    return Item(problem, {"type": "choice"})


def _options(question: str) -> tuple[str, ...]:
    """Option texts on lines that begin with A, B, C and so on; empty if there are none."""
    found = _OPTION.findall(question)
    return tuple(text.strip() for _, text in found) if _names(found) == LETTERS[: len(found)] else ()


def _names(found: Sequence[tuple[str, str]]) -> str:
    return "".join(letter for letter, _ in found)


BENCHMARK = Benchmark(
    name="realworldqa",
    title="RealWorldQA",
    group="general",
    source="https://huggingface.co/datasets/xai-org/RealworldQA",
    licence="CC BY-ND 4.0",
    files=("general/realworldqa/test.parquet", "general/realworldqa/test.jsonl"),
    load=load,
    protocols={"rule": Protocol(unboxed(score), by("type"))},
    published=765,
    unboxed=True,
)
