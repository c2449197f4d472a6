r"""DynaMath (DynaMath/DynaMath_Sample: 501 seed questions in ten variants; specification Sec. 2.5).

The first variant only, which fits the paper's numbers; :mod:`.dynamath_all` has all that are at hand, and the worst
case. Rows: ``question``, ``answer`` (on the hub ``ground_truth``), ``image`` or ``decoded_image``,
``answer_type``, ``subject``, ``level`` (on the hub ``knowledge_level``); the id is the key in JSON, the column ``id``
elsewhere, the same in all variants. Options stand in the question, and the gold is their letter. The official
instruction, which asks for JSON, is not used.

reference the authors' comparison, without tolerance
rule      letters; numbers within 0.001, in coordinates each of them; texts without regard to case, also as words of a
          longer answer that offers no second one
official  the authors' script: ``short answer`` of the JSON that its prompt asks for, else the last line without
          its last character; its first word within 0.001 of a number, ``3π`` read; the gold letter alone or among the
          first three characters; the gold text anywhere in the answer. Departure: a box, for which its prompt does not
          ask and ours does, is read where no ``short answer`` is named, and LaTeX numbers in it

The official prompt asks for JSON, not for a box, so letters without one count under ``rule``.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import read_items, spaced, vision_item
from spark_rl.evals.score.scorers import by, reference, unboxed, value_of, within
from spark_rl.evals.score.units import each
from spark_rl.verify import extract_boxed
from spark_rl.verify.letters import read_letters

TOLERANCE = 0.001
FIRST_FILES = ("trial1/dataset.json", "sample_variant1.parquet", "sample_variant1.jsonl", "sample_variant1.json")
"""The first variant, as GitHub and the hub name it."""

_ROUNDING = 1e-9
"""1.001 - 1 is a little more or less than 0.001 in binary."""
_SECOND = re.compile(r",|;|\b(?:or|and|not)\b", re.IGNORECASE)


def load(path: Path) -> list[Item]:
    """The items of one variant. Raises ``DataError``."""
    return read_variant(path, "dynamath")


def read_variant(file: Path, source: str, variant: int | None = None) -> list[Item]:
    """The items of one variant; ids end in its number if there is one. Raises ``DataError``."""
    columns = ("question", "answer_type", "subject", "image")
    return read_items(file, columns, lambda entry: _item(entry, source, variant))


def _item(entry: Entry, source: str, variant: int | None = None) -> Item:
    seed = entry.optional("id") or str(entry.number)
    answer = entry.text("ground_truth", "answer")
    kind = answer_type(entry.text("answer_type"))
    lettered = kind == "multiple choice" and read_letters(answer) is not None
    meta = {
        "seed": seed,
        "answer_type": kind,
        "subject": spaced(entry.optional("subject")),
        "level": spaced(entry.optional("level", "knowledge_level")),
        "variant": variant,
    }
    image = entry.image("decoded_image") if entry.get("decoded_image") else entry.image()
    return vision_item(
        source, seed if variant is None else f"{seed}/{variant}", entry.text("question"), answer, image, meta,
        kind="choice" if lettered else "math",
    )  # fmt: skip


def answer_type(stated: str) -> str:
    """``multiple choice``, ``float`` or ``text``; the seeds file also has ``single answer`` and ``int``."""
    return "float" if stated in {"single answer", "int"} else stated


def close(one: str, other: str) -> bool:
    """Whether both are numbers at most 0.001 apart."""
    left, right = value_of(one), value_of(other)
    return left is not None and right is not None and abs(left - right) <= TOLERANCE + _ROUNDING


def near_gold(item: Item, answer: str) -> bool:
    """Whether the answer is the gold by this benchmark's tolerance."""
    gold = item.problem.answer
    if item.meta["answer_type"] != "text":
        return close(answer, gold)
    plain = re.sub(r"\\(?:text|mathrm|left|right)(?![A-Za-z])|[{}$]", "", answer).strip().rstrip(".")
    coordinates = [text[1:-1].split(",") for text in (plain, gold) if text[:1] == "(" and text[-1:] == ")"]
    if len(coordinates) == 2 and len(coordinates[0]) == len(coordinates[1]) > 1:
        return all(map(close, *coordinates))
    if plain.casefold() == gold.casefold():
        return True
    beside = re.split(rf"(?<!\w){re.escape(gold.casefold())}(?!\w)", plain.casefold())
    return len(gold) > 1 and len(beside) == 2 and not any(map(_SECOND.search, beside))


def official(item: Item, response: str) -> Graded:
    """The set's own rules, without a model to shorten answers."""
    answer, gold = extract(response), item.problem.answer
    if not answer:
        return Graded(0.0, None, "no_answer")
    kind = item.meta["answer_type"]
    if kind == "float":
        right = _close_officially(answer, gold) or (_in_box(response) is not None and close(answer, gold))
    elif kind == "multiple choice":
        right = answer == gold if len(answer) == 1 else gold in answer[:3]
    else:
        right = gold in answer
    return Graded(float(right), answer, "correct" if right else "wrong")


def _close_officially(answer: str, gold: str) -> bool:
    """Whether the first word is a number as Python reads it, or one times π, at most 0.001 from the gold."""
    number, pi, _ = (answer if answer.isdigit() else answer.split(" ", 1)[0]).partition("π")
    try:
        return abs(float(number) * (math.pi if pi else 1.0) - float(gold)) <= TOLERANCE
    except ValueError:
        return False


def _in_box(response: str) -> str | None:
    """The box of a response that names no short answer."""
    boxed = extract_boxed(response)
    return None if boxed is None or "short answer" in response else boxed.strip()


def extract(response: str) -> str:
    """``short answer`` of the JSON object between the first and the last brace, its backslashes removed; else the last
    line of what is left, without its last character. The box of a response that names no short answer.
    """
    boxed = _in_box(response)
    if boxed is not None:
        return boxed
    start, end = response.find("{"), response.rfind("}")
    # a brace that is the first and last character that is looked at leaves the text as it is
    braced = 0 <= start < len(response) - 1 and end > start
    text = response[start : end + 1].replace("\\", "") if braced else response
    try:
        held = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text.rpartition("\n")[2][:-1]
    return str(held.get("short answer")) if isinstance(held, dict) else ""


_ADD_UP = by("subject", "level", "answer_type")


BENCHMARK = Benchmark(
    name="dynamath",
    title="DynaMath",
    group="math-vlm",
    source="https://huggingface.co/datasets/DynaMath/DynaMath_Sample, https://github.com/DynaMath/DynaMath",
    licence="MIT by its repository's badge",
    files=tuple(f"vlm/dynamath/{name}" for name in FIRST_FILES),
    load=load,
    protocols={
        "reference": Protocol(reference, _ADD_UP),
        "rule": Protocol(unboxed(within(near_gold)), _ADD_UP),
        "official": Protocol(each(official), _ADD_UP),
    },
    published=501,
    unboxed=True,
)
