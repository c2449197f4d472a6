r"""K12, the 500 fill-in questions of the first MM-Eureka release (``eval/k12/k12.json``; specification Sec. 2.7).

Columns: ``id``, ``question``, ``answer``, ``image_path`` (on the hub ``image``). Not the MMK12 of the paper's tables,
which is :mod:`.mmk12`. Golds are dirty: several answers on lines of their own, remarks in brackets.

reference the authors' comparison with the gold as it is written
rule      the shared rule; answers on lines of their own become a list, and what ``(or fill in ...)`` and
          ``(not unique)`` say is left out

The set's own scorer asks GPT-4o, so there is no third protocol.
"""

from __future__ import annotations

import re
from pathlib import Path

from spark_rl.data.values import images_of
from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import RAW_GOLD, as_written, read_items, vision_item
from spark_rl.evals.score.scorers import reference, rule

_REMARK = re.compile(r"\s*\((?:or fill in|not unique|answers? (?:is|are) not unique)[^()]*\)\s*$")


def load(path: Path) -> list[Item]:
    """The items of ``k12.json`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, ("question", "answer"), _item)


def _item(entry: Entry) -> Item:
    raw = entry.text("answer")
    image = next((name for name in ("image", "image_path") if images_of(entry.get(name))), "image_path")
    return vision_item(
        "k12", entry.optional("id") or str(entry.number), entry.text("question"), cleaned(raw), entry.image(image),
        {RAW_GOLD: raw}, kind="math",
    )  # fmt: skip


def cleaned(gold: str) -> str:
    """``8\\n4`` is ``8, 4``; remarks are left out."""
    gold = _REMARK.sub("", gold.strip())
    return ", ".join(line.strip() for line in gold.split("\n") if line.strip())


BENCHMARK = Benchmark(
    name="k12",
    title="K12",
    group="math-vlm",
    source="https://github.com/ModalMinds/MM-EUREKA (eval/k12), https://huggingface.co/datasets/lmms-lab/k12",
    licence="not stated",
    files=("vlm/k12/k12.json", "vlm/k12/test.jsonl", "vlm/k12/test.parquet"),
    load=load,
    protocols={"reference": Protocol(as_written(reference)), "rule": Protocol(rule)},
    published=500,
)
