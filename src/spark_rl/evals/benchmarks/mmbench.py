"""MMBench, by circular evaluation: right only if right however the options are rotated (paper Table 4).

Data: ``lmms-lab/MMBench``, configuration ``en``, split ``dev``, as ``general/mmbench/dev.parquet`` or ``.jsonl`` with
the columns ``index``, ``question``, ``hint``, ``A`` to ``D``, ``answer``, ``category``, ``L2-category`` and ``image``.
The answers of ``test`` are not published. Which split and version the paper used is not known.

One item for each pass: pass k of question i is the row with the index i + 1,000,000 k. Where the file has only the rows
of the first passes, the others are made here, one option further round each.

The headline is the share of questions that are right in every pass; ``category/...`` and ``l2_category/...`` are the
same for their questions, ``vanilla`` is the share right in the first pass.

Departure: the question is followed by the answer format of ``chat.policy``, not by one of the harnesses' own, which
ask for the option's letter: one without a box counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import LETTERS, Entry, listed, read_entries
from spark_rl.evals.score.scorers import by, rule, unboxed
from spark_rl.evals.score.units import mean, units
from spark_rl.problem import Problem

PASS = 1_000_000


def load(path: Path) -> list[Item]:
    """One item for each pass of each question."""
    entries = [(entry, _index(entry)) for entry in read_entries(path, "index")]
    rotated = any(index >= PASS for _, index in entries)
    return [item for entry, index in entries for item in _items(entry, index, rotated=rotated)]


def circular(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """One grade for each question, 1 if every pass is right."""
    questions = units(items, grades, _question)
    whole = [(unit[0][0], Graded(float(all(grade.score >= 1.0 for _, grade in unit)))) for unit in questions]
    first = [grade.score for item, grade in zip(items, grades, strict=True) if item.meta["pass"] == 0]
    return {
        **by("category", "l2_category")([item for item, _ in whole], [grade for _, grade in whole]),
        **({"vanilla": mean(first)} if first else {}),
    }


def _items(entry: Entry, index: int, *, rotated: bool) -> Iterator[Item]:
    if not entry.optional("answer"):
        raise entry.wrong("no answer; only the dev split has them")
    options = entry.options("A", "B", "C", "D")
    right = LETTERS.index(entry.letter("answer", options))
    hint = entry.optional("hint")
    lines = [hint] if hint else []
    meta = {
        "question": str(index % PASS),
        "category": entry.optional("category") or None,
        "l2_category": entry.optional("L2-category", "l2-category", "l2_category") or None,
    }
    for turn in range(1 if rotated else len(options)):
        choices = (*options[turn:], *options[:turn])
        place = index // PASS if rotated else turn
        question = "\n".join((*lines, entry.text("question"), "There are several options:", listed(choices)))
        problem = Problem(
            id=str(index % PASS + PASS * place), question=question, answer=LETTERS[(right - turn) % len(options)],
            kind="choice", images=entry.image(), choices=choices,
        )  # fmt: skip
        yield Item(problem, {**meta, "pass": place})


def _index(entry: Entry) -> int:
    index = entry.text("index")
    if not index.isdecimal() or len(index) > 18:
        raise entry.wrong(f"the index is {index[:20]!r}, no whole number")
    if entry.id != index:
        raise entry.wrong(f"the index {index} is taken by an earlier row")
    return int(index)


def _question(item: Item) -> str:
    return str(item.meta["question"])


BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench",
    group="general",
    source="https://github.com/open-compass/MMBench; https://huggingface.co/datasets/lmms-lab/MMBench",
    licence="Apache-2.0",
    files=("general/mmbench/dev.parquet", "general/mmbench/dev.jsonl"),
    load=load,
    protocols={"rule": Protocol(unboxed(rule), circular, headline_is_mean=False, unit=_question)},
    published=4329,
    unboxed=True,
)
