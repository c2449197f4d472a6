r"""ScienceQA: school science questions with a picture (paper Table 4).

Data: ``lmms-lab/ScienceQA`` (``ScienceQA-IMG``) or ``derek-thomas/ScienceQA``, split ``test``, as
``general/scienceqa/test.parquet`` or ``.jsonl`` with the columns ``image``, ``question``, ``choices``, ``answer`` (from
0) and ``hint``. Rows without a picture are left out, as VLMEvalKit does; 2,017 of 4,241 have one. That the paper's
number is of these is a guess.

The turn is ``Context:`` and the hint if there is one, the question and the options. Lecture and solution are never
shown. Breakdowns by ``subject`` and ``grade`` where the file has them.

Departure: the question is followed by the answer format of ``chat.policy``, not by one of the harnesses' own, which
ask for the option's letter: one without a box counts.
"""

from __future__ import annotations

from pathlib import Path

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import LETTERS, Entry, listed, read_entries
from spark_rl.evals.score.scorers import by, rule, unboxed
from spark_rl.problem import Problem


def load(path: Path) -> list[Item]:
    """One item for each row with a picture."""
    items = [_item(entry) for entry in read_entries(path, "id", "question_id") if entry.images("image")]
    if not items:
        raise DataError(f"{path}: no row has an image; use a file of ScienceQA with its images")
    return items


def _item(entry: Entry) -> Item:
    choices = tuple(choice.strip() for choice in entry.texts("choices"))
    answer = entry.get("answer")
    if not isinstance(answer, int) or not 0 <= answer < len(choices) <= len(LETTERS):
        raise entry.wrong(f"answer {answer!r} is no number of one of the {len(choices)} choices, counted from 0")
    hint = entry.optional("hint")
    lines = [f"Context: {hint}"] if hint else []
    problem = Problem(
        id=entry.id, question="\n".join((*lines, entry.text("question"), listed(choices))), answer=LETTERS[answer],
        kind="choice", images=entry.image(), choices=choices,
    )  # fmt: skip
    return Item(problem, {key: entry.optional(key) or None for key in ("subject", "grade")})


BENCHMARK = Benchmark(
    name="scienceqa",
    title="ScienceQA",
    group="general",
    source="https://github.com/lupantech/ScienceQA; https://huggingface.co/datasets/lmms-lab/ScienceQA",
    licence="CC BY-NC-SA 4.0",
    files=("general/scienceqa/test.parquet", "general/scienceqa/test.jsonl"),
    load=load,
    protocols={"rule": Protocol(unboxed(rule), by("subject", "grade"))},
    published=2017,
    unboxed=True,
)
