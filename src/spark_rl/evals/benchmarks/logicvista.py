r"""LogicVista (lscpku/LogicVista, ``test``, 448 questions with one image each; specification Sec. 2.6).

JSON keyed by id with ``imagename``, ``question``, ``answer``, ``skill``, or the hub's Parquet with ``id`` and
``image``. Options stand in the question or in the image, with letters up to I. Golds are a letter, a few times several
(``B, D``), once a digit, and once nothing at all (``v1_382``, no question either): that one is asked, is always wrong
and stays in the 448; ``with_gold`` is the score over the others.

reference the authors' comparison
rule      the letters, in a box or, as the questions ask for none, said to be the answer; all must match, as the
          official scorer has it, for which GPT-4 extracts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol, Scorer
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import read_items, vision_item
from spark_rl.evals.score.scorers import LETTERS, by, reference, rule, unboxed
from spark_rl.verify import Verifier
from spark_rl.verify.letters import read_letters

_LETTERS = "ABCDEFGHI"


def load(path: Path) -> list[Item]:
    """The items of ``dataset.json`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, ("question", "answer", "skill"), _item)


def _item(entry: Entry) -> Item:
    answer, skill = entry.optional("answer"), entry.get("skill")
    meta = {
        "skill": list(skill) if isinstance(skill, list | tuple) else entry.optional("skill"),
        "gold": "with" if answer else "without",
        LETTERS: _LETTERS,
    }
    image = next((name for name in ("image", "imagename") if entry.get(name)), "imagename")
    return vision_item(
        "logicvista", entry.optional("id") or str(entry.number), entry.optional("question"), answer,
        entry.image(image), meta, kind="choice" if read_letters(answer) else "math",
    )  # fmt: skip


def golds_only(scorer: Scorer) -> Scorer:
    """The scorer, with every item that has no gold wrong."""

    def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
        asked = [pair for pair in zip(items, responses, strict=True) if pair[0].problem.answer]
        grades = iter(scorer([item for item, _ in asked], [response for _, response in asked], verifier))
        return [next(grades) if item.problem.answer else Graded(0.0) for item in items]

    return score


def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The mean, also over the rows with a gold, and by skill."""
    pairs = [pair for pair in zip(items, grades, strict=True) if pair[0].problem.answer]
    found = dict(by("skill")(items, grades))
    if pairs:
        found["with_gold"] = sum(grade.score for _, grade in pairs) / len(pairs)
    return found


BENCHMARK = Benchmark(
    name="logicvista",
    title="LogicVista",
    group="math-vlm",
    source="https://huggingface.co/datasets/lscpku/LogicVista, https://github.com/Yijia-Xiao/LogicVista",
    licence="Apache-2.0; single images differ",
    files=("vlm/logicvista/dataset.json", "vlm/logicvista/test.jsonl", "vlm/logicvista/test.parquet"),
    load=load,
    protocols={
        "reference": Protocol(golds_only(reference), add_up),
        "rule": Protocol(unboxed(rule), add_up),
    },
    published=448,
    unboxed=True,
)
