r"""MMK12 (FanqingM/MMK12, ``test``, 2,000 questions with one image each; specification Sec. 2.7).

Columns: ``id``, ``question``, ``answer``, ``subject``, ``image``. 500 questions each of mathematics, physics, chemistry
and biology, all multiple choice: options stand in the question on lines of their own (``A. 12``, ``A、12``), golds are
letters. Not to be confused with the 500 fill-in questions of :mod:`.k12`.

reference the authors' comparison
rule      the letter, or the text of its option

The set's own scorer asks GPT-4o, so there is no third protocol. ``subject_mean`` is the mean of the subjects' means.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_rl.data.values import images_of
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import inline_choices, read_items, spaced, vision_item
from spark_rl.evals.score.scorers import by, mean_of_means, reference, rule
from spark_rl.verify.letters import read_letters


def load(path: Path) -> list[Item]:
    """The items of ``test.parquet``, ``.jsonl`` or ``.json``. Raises ``DataError``."""
    return read_items(path, ("question", "answer", "subject"), _item)


def _item(entry: Entry) -> Item:
    question, answer = entry.text("question"), entry.text("answer")
    letters = read_letters(answer)
    choices = inline_choices(question)
    if letters is None or not letters <= set(string.ascii_uppercase[: len(choices)]):
        choices = ()
    image = next((name for name in ("image", "images", "image_path") if images_of(entry.get(name))), "image")
    return vision_item(
        "mmk12", entry.optional("id") or str(entry.number), question, answer, entry.image(image),
        {"subject": spaced(entry.text("subject"))}, kind="choice" if letters else "math", choices=choices,
    )  # fmt: skip


def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The mean, the mean by subject, and the mean of those."""
    subjects = mean_of_means("subject")(items, grades)
    return {**by("subject")(items, grades), **({"subject_mean": subjects["score"]} if subjects else {})}


BENCHMARK = Benchmark(
    name="mmk12",
    title="MMK12",
    group="math-vlm",
    source="https://huggingface.co/datasets/FanqingM/MMK12, https://github.com/ModalMinds/MM-EUREKA",
    licence="Apache-2.0 according to a third party",
    files=("vlm/mmk12/test.parquet", "vlm/mmk12/test.jsonl", "vlm/mmk12/test.json"),
    load=load,
    protocols={"reference": Protocol(reference, add_up), "rule": Protocol(rule, add_up)},
    published=2000,
)
