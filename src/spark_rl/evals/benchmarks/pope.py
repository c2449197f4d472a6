"""POPE: is there such an object in the picture, yes or no (paper Table 4).

Data, the first that is there:

- ``vlm/pope/coco_pope_random.json`` and its siblings ``popular`` and ``adversarial``, as published: ``question_id``,
  ``image``, ``text``, ``label``; the pictures of COCO val2014 beside them, or in ``image`` or ``images``;
- ``general/pope/test.parquet`` or ``.jsonl`` as on the hub (``lmms-lab/POPE``): ``question``, ``answer``, ``image``,
  and ``category``, which names the split.

The headline is F1 with "yes" as the positive class, pooled over the splits, which VLMEvalKit calls "Overall"; that the
paper means it is a guess. Beside it stand accuracy, precision, recall and ``yes_ratio`` (the share of predicted "yes"),
pooled and for each split (``random/f1``), and ``mean_f1`` over the splits.

``official`` repeats the published script: of the first sentence, "No", "no" or "not" among the words mean no, anything
else yes. ``rule`` reads the box, else yes or no among the words; what says neither is wrong, and no "yes".

Departure: the question is followed by the answer format of ``chat.policy``, not by one of the harnesses' own, which
ask for the word: one without a box counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.evals.score.scorers import rule, unboxed
from spark_rl.evals.score.units import each, grade_as
from spark_rl.problem import Problem

SPLITS = ("random", "popular", "adversarial")
_STEM = "coco_pope_"


def load(path: Path) -> list[Item]:
    """The rows of one file, or of all three splits that are beside a file of the published layout."""
    if not path.stem.startswith(_STEM):
        return [_item(entry, entry.optional("category").casefold()) for entry in read_entries(path, "id")]
    found = ((split, path.with_name(f"{_STEM}{split}{path.suffix}")) for split in SPLITS)
    return [
        _item(entry, split)
        for split, file in found
        if file.exists()
        for entry in read_entries(file, "question_id", prefix=f"{split}-")
    ]


def read_first_sentence(text: str) -> str:
    """Yes or No as the published script reads it."""
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "No" if {"No", "not", "no"} & set(words) else "Yes"


def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """F1 and its kin, pooled and by split."""
    pooled = confusion(items, grades)
    if not pooled:
        return {}
    splits: dict[str, Mapping[str, float]] = {}
    for split in dict.fromkeys(item.meta["split"] for item in items):
        chosen = [index for index, item in enumerate(items) if item.meta["split"] == split]
        if split:
            splits[split] = confusion([items[i] for i in chosen], [grades[i] for i in chosen])
    each_split = {f"{split}/{name}": value for split, found in splits.items() for name, value in found.items()}
    if splits:
        each_split["mean_f1"] = sum(found["f1"] for found in splits.values()) / len(splits)
    return {"score": pooled["f1"], **pooled, **each_split}


def confusion(items: Sequence[Item], grades: Sequence[Graded]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of "yes"; 0 where a denominator is."""
    if not items:
        return {}
    golds = [item.problem.answer == "Yes" for item in items]
    # a wrong answer says the opposite of the gold; one that can't be read says nothing
    said = [grade.status == ("correct" if gold else "wrong") for gold, grade in zip(golds, grades, strict=True)]
    hits = sum(gold and yes for gold, yes in zip(golds, said, strict=True))
    precision, recall = _share(hits, sum(said)), _share(hits, sum(golds))
    return {
        "accuracy": _share(sum(grade.status == "correct" for grade in grades), len(grades)),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_ratio": _share(sum(said), len(said)),
    }


def _item(entry: Entry, split: str) -> Item:
    answer = entry.text("label", "answer").capitalize()
    if answer not in {"Yes", "No"}:
        raise entry.wrong(f"the answer is {answer[:20]!r}, neither yes nor no")
    question = entry.text("text", "question")
    problem = Problem(id=entry.id, question=question, answer=answer, kind="verdict", images=entry.image())
    return Item(problem, {"split": split})


def _official(item: Item, response: str) -> Graded:
    return grade_as(read_first_sentence(response), item.problem.answer)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    group="general",
    source="https://github.com/RUCAIBox/POPE; https://huggingface.co/datasets/lmms-lab/POPE",
    licence="MIT; images of COCO",
    files=(
        *(f"vlm/pope/{_STEM}{split}.json" for split in SPLITS),
        "general/pope/test.parquet",
        "general/pope/test.jsonl",
    ),
    load=load,
    protocols={
        "official": Protocol(each(_official), add_up, headline_is_mean=False),
        "rule": Protocol(unboxed(rule), add_up, headline_is_mean=False),
    },
    published=9000,
    unboxed=True,
)
