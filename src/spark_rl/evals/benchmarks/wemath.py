r"""We-Math (We-Math/We-Math, ``testmini``, 1,740 questions in 525 composites; specification Sec. 2.3).

Columns: ``ID`` (the composite), ``key`` (``2steps_1``, ``2steps_2``, ``2steps_multi``, ``3steps_1``, ...),
``question``, ``option`` (all options in one string, never split here), ``answer`` (a letter), ``knowledge concept``,
``image_path``, on the hub ``image``. The question is followed by the options on a line of their own.

reference the authors' comparison. Headline: accuracy over questions, as in the paper
rule      the letter. Headline: accuracy over questions
official  the letter as We-Math's own script extracts it: the first character behind the last ``Answer``, of the whole
          response without one. Headline: We-Math's own *strict* score over composites. Departure: a box, for which its
          prompt does not ask and ours does, is read where no letter stands behind an ``Answer``

All of them come with ``step/S1`` (the parts), ``step/S2`` and ``step/S3`` (the whole of two and three steps) and the
four classes of composites, strict and loose: insufficient knowledge (IK), inadequate generalisation (IG), complete
mastery (CM) and rote memorisation (RM). Score = (CM + IG / 2) / composites; ``RM`` is RM / (CM + RM). Composites that
``--limit`` cut are left out of these. Accuracies per domain need the authors' knowledge tree and are not computed.

We-Math's own prompt wants a template without a box, so letters without one count under ``rule``.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from spark_rl.data.values import RowError
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import read_items, vision_item
from spark_rl.evals.score.scorers import LETTERS, by, read_letter, reference, rule, unboxed
from spark_rl.evals.score.units import each, units
from spark_rl.verify import extract_boxed

Mode = Literal["strict", "loose"]

_KEY = re.compile(r"([23])steps_([123]|multi)")
_OPTION = re.compile(r"(?<![A-Za-z])([A-H])\s*[.．、]")
_USUAL = "ABCDEFGH"


def load(path: Path) -> list[Item]:
    """The items of ``testmini.json`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, ("ID", "question", "option", "answer", "key"), _item)


def _item(entry: Entry) -> Item:
    key = _KEY.fullmatch(entry.text("key"))
    if key is None or (key[1], key[2]) == ("2", "3"):
        raise RowError(f"the key {entry.text('key')[:40]!r} is none of 2steps_1, ..., 3steps_multi")
    option, answer, composite = entry.text("option"), entry.letter("answer", _USUAL), entry.text("ID")
    named = [letter for letter in _OPTION.findall(option) if letter in _USUAL]
    last = max([answer, *named])
    meta = {
        "composite": composite,
        "steps": int(key[1]),
        "part": key[2],
        "step": f"S{key[1]}" if key[2] == "multi" else "S1",
        "concept": entry.optional("knowledge concept"),
        LETTERS: string.ascii_uppercase[: string.ascii_uppercase.index(last) + 1],
    }
    image = next((name for name in ("image", "image_path") if entry.get(name)), "image_path")
    question = f"{entry.text('question')}\n{option}"
    return vision_item(
        "wemath", f"{composite}/{key[2]}", question, answer, entry.image(image), meta, kind="choice"
    )  # fmt: skip


def official(item: Item, response: str) -> Graded:
    """The first character behind the last ``Answer``, else the letter of the box."""
    found = extract(response)
    if found is None:
        return Graded(0.0, None, "no_answer")
    right = found == item.problem.answer
    return Graded(float(right), found, "correct" if right else "wrong")


def extract(response: str) -> str | None:
    """``<Answer>: <<B>>`` is ``B``, and ``Answer: Both`` too; ``None`` without one of the letters A to H."""
    _, named, behind = response.rpartition("Answer")
    behind = re.sub("[<>:.]", "", behind.strip()).strip()
    letter = behind[0] if behind[:1] and behind[0] in _USUAL else None
    if extract_boxed(response) is None or (named and letter is not None):
        return letter
    return read_letter(response, _USUAL)


def four_classes(items: Sequence[Item], grades: Sequence[Graded], mode: Mode) -> dict[str, float]:
    """``score``, ``IK``, ``IG``, ``CM`` and ``RM`` of the composites that are all there; empty if none is."""
    classes: Counter[str] = Counter()
    for unit in units(items, grades, _composite):
        parts = [grade.score >= 1 for item, grade in unit if item.meta["part"] != "multi"]
        whole = [grade.score >= 1 for item, grade in unit if item.meta["part"] == "multi"]
        if len(whole) == 1 and len(parts) == unit[0][0].meta["steps"]:
            classes[_class(parts, whole[0], mode)] += 1
    total = classes.total()
    if not total:
        return {}
    shares = {name: classes[name] / total for name in ("IK", "IG", "CM")}
    solved = classes["CM"] + classes["RM"]
    return {
        "score": shares["CM"] + shares["IG"] / 2, **shares, "RM": classes["RM"] / solved if solved else 0.0
    }  # fmt: skip


def _class(parts: Sequence[bool], whole: bool, mode: Mode) -> str:
    if not whole:
        return "IG" if all(parts) else "IK"
    mastered = all(parts) if mode == "strict" else any(parts)
    return "CM" if mastered else "RM"


def _accuracy(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    found = dict(by("step")(items, grades))
    for mode in ("strict", "loose"):
        found |= {f"{mode}/{name}": value for name, value in four_classes(items, grades, mode).items()}
    return found


def _strict(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    found = dict(_accuracy(items, grades))
    accuracy = found.pop("score", 0.0)
    return {"score": found["strict/score"], "accuracy": accuracy, **found} if "strict/score" in found else {}


def _composite(item: Item) -> str:
    return str(item.meta["composite"])


BENCHMARK = Benchmark(
    name="wemath",
    title="WeMath",
    group="math-vlm",
    source="https://huggingface.co/datasets/We-Math/We-Math, https://github.com/We-Math/We-Math",
    licence="CC BY-NC 4.0",
    files=("vlm/wemath/testmini.json", "vlm/wemath/testmini.jsonl", "vlm/wemath/testmini.parquet"),
    load=load,
    protocols={
        "reference": Protocol(reference, _accuracy, unit=_composite),
        "rule": Protocol(unboxed(rule), _accuracy, unit=_composite),
        "official": Protocol(each(official), _strict, headline_is_mean=False, unit=_composite),
    },
    published=1740,
    unboxed=True,
)
