"""MMLU-STEM: four-option questions of 18 subjects (paper Table 2; specification Sec. 3).

Rows: ``question``, ``choices`` (four), ``answer`` as an index from 0 or a letter, ``type`` or ``subject``. Items are
named by their row, from 1. The question is written as Qwen2.5-Math does, ``Answer Choices: (A) ... (B) ...``; the score
is the mean over all questions, so large subjects weigh more.

Departure: Qwen2.5-Math takes the last letter that stands alone anywhere in the response for the answer, the article
"a" included; ``rule`` reads the box first and is careful with "A". The 18 subjects are those of Qwen2.5-Math's file;
lm-evaluation-harness adds anatomy. Which of them the paper used is not said.
"""

from __future__ import annotations

from pathlib import Path

from spark_rl.data.published import small_number
from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import LETTERS, Entry, read_entries
from spark_rl.evals.score.scorers import by, reference, rule
from spark_rl.problem import Problem


def load(path: Path) -> list[Item]:
    """One item for each row of the file."""
    return [_item(entry) for entry in read_entries(path)]


def _item(entry: Entry) -> Item:
    choices = tuple(text.strip() for text in entry.texts("choices"))
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    problem = Problem(
        id=str(entry.number),
        question=f"{entry.text('question')}\nAnswer Choices: {options}",
        answer=_gold(entry, choices),
        kind="choice",
        choices=choices,
        source="mmlu_stem",
    )
    return Item(problem, {"subject": entry.optional("type", "subject") or None})


def _gold(entry: Entry, choices: tuple[str, ...]) -> str:
    index = small_number(entry.text("answer"))
    if index is not None and index < len(choices):
        return LETTERS[index]
    return entry.letter("answer", choices)


_ADD_UP = by("subject")

BENCHMARK = Benchmark(
    name="mmlu_stem",
    title="MMLU-STEM",
    group="math-llm",
    source="https://huggingface.co/datasets/cais/mmlu",
    licence="MIT",
    files=("llm/mmlu_stem.jsonl", "llm/mmlu_stem.parquet"),
    load=load,
    protocols={"reference": Protocol(reference, _ADD_UP), "rule": Protocol(rule, _ADD_UP)},
    published=3018,
)
