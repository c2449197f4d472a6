r"""MathVista (AI4Math/MathVista, ``testmini``, 1,000 questions with images; specification Sec. 2.1).

Columns: ``pid``, ``query``, ``question``, ``choices``, ``unit``, ``precision``, ``answer``, ``question_type``,
``answer_type``, ``metadata``, ``image`` (a path), on the hub ``decoded_image``. The gold of multiple choice is an
option's text in the data and its letter here. The question is ``query``, rebuilt by the set's own rule if it is not
there; the paper's Fig. 5 shows it with the suffix of ``chat.policy`` behind it.

reference the authors' comparison with the letter; the option's text counts too, as nobody knows which they stored
rule      letter or option; a decimal gold is met by what rounds to it at the row's ``precision``
official  ``calculate_score.py`` with rules where GPT extracted: the last box, else what follows the last "answer is",
          else the last line. Departure: an empty extraction is wrong instead of the nearest option; brackets, units and
          thousands separators are left out of numbers; LaTeX numbers are read

The query asks for the letter "at the end", not for a box, so one without a box counts under ``rule``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path

from spark_rl.data.published import PUBLISHED, small_number
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import metadata, read_items, vision_item
from spark_rl.evals.score.scorers import ALSO_ACCEPT, by, reference, unboxed, value_of, within
from spark_rl.evals.score.units import each
from spark_rl.verify import extract_boxed

_COLUMNS = ("question", "choices", "precision", "answer", "question_type", "answer_type", "metadata")
_GROUPS = ("language", "source", "category", "task", "context", "grade", "skills")
MAX_OPTION = 400
"""Longer extractions are no option: their distance to one would only cost time."""

_STATED = re.compile(r"(?:answer is|answer:)[:\s*]*(.*)", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|textbf)(?![A-Za-z])|\\[!,;:() ]|[{}$*]")
_LETTER = re.compile(r"\(([A-Za-z])\)")
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")


def load(path: Path) -> list[Item]:
    """The items of ``testmini.json`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, _COLUMNS, _item)


def _item(entry: Entry) -> Item:
    fields = PUBLISHED["mathvista"].read(entry.values)
    gold = entry.text("answer")
    groups = {"question_type": entry.text("question_type"), "answer_type": entry.text("answer_type")}
    precision = entry.optional("precision")
    scoring = {
        "precision": small_number(precision),
        ALSO_ACCEPT: [gold] if fields.choices else None,
    }
    return vision_item(
        "mathvista", entry.optional("pid") or str(entry.number), fields.question or entry.text("query", "question"),
        fields.answer, entry.image("decoded_image") if entry.get("decoded_image") else entry.image(),
        groups | metadata(entry, _GROUPS) | scoring, kind="choice" if fields.choices else "math",
        choices=fields.choices,
    )  # fmt: skip


def rounds_to_gold(item: Item, answer: str) -> bool:
    """Whether the answer is a number that is the gold when rounded to the row's precision."""
    precision = item.meta.get("precision")
    found, gold = value_of(answer), value_of(item.problem.answer)
    return precision is not None and None not in (found, gold) and round(found or 0.0, precision) == gold


def official(item: Item, response: str) -> Graded:
    """Extracted by rules, normalised, compared as strings."""
    extracted = extract(response)
    if not extracted:
        return Graded(0.0, None, "no_answer")
    normal = normalised(item, extracted)
    problem = item.problem
    gold = problem.choices[string.ascii_uppercase.index(problem.answer)] if problem.choices else problem.answer
    if normal is None:
        return Graded(0.0, extracted, "unparsable")
    right = normal == gold
    return Graded(float(right), normal, "correct" if right else "wrong")


def extract(response: str) -> str:
    """The last box, else what follows the last "answer is" or "answer:" on its line, else the last line."""
    boxed = extract_boxed(response)
    if boxed is not None:
        return boxed.strip()
    stated = [text for text in _STATED.findall(response) if text.strip()]
    lines = response.strip().splitlines()
    return str(stated[-1] if stated else lines[-1] if lines else "").strip().rstrip(".")


def normalised(item: Item, extracted: str) -> str | None:
    """The extraction in the spelling of golds, or ``None`` if it can't be brought to it."""
    plain = " ".join(_MARKUP.sub("", extracted).split()).rstrip(".")
    if item.problem.choices:
        return _option(item.problem.choices, plain) if plain else None
    kind = item.meta.get("answer_type")
    if kind == "list":
        return plain
    number = _number(extracted, plain)
    if number is None:
        return None
    return str(int(number)) if kind == "integer" else str(round(number, item.meta.get("precision", 2)))


def _number(extracted: str, plain: str) -> float | None:
    value = value_of(extracted)
    if value is None:
        numbers = _NUMBER.findall(plain.replace(",", ""))
        value = value_of(numbers[-1]) if numbers else None
    return value


def _option(choices: Sequence[str], plain: str) -> str | None:
    letter = _LETTER.search(plain)
    stated = letter[1].upper() if letter else plain
    places = dict(zip(string.ascii_uppercase, choices, strict=False))
    if stated in places:
        return places[stated]
    if len(stated) > MAX_OPTION:
        return None
    return min(choices, key=lambda choice: distance(stated, choice))


def distance(one: str, other: str) -> int:
    """The Levenshtein distance: insertions, deletions and replacements of characters."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


_ADD_UP = by("question_type", "answer_type", *_GROUPS)

BENCHMARK = Benchmark(
    name="mathvista",
    title="MathVista",
    group="math-vlm",
    source="https://huggingface.co/datasets/AI4Math/MathVista, https://github.com/lupantech/MathVista",
    licence="CC BY-SA 4.0; not for training",
    files=("vlm/mathvista/testmini.json", "vlm/mathvista/testmini.jsonl", "vlm/mathvista/testmini.parquet"),
    load=load,
    protocols={
        "reference": Protocol(reference, _ADD_UP),
        "rule": Protocol(unboxed(within(rounds_to_gold)), _ADD_UP),
        "official": Protocol(each(official), _ADD_UP),
    },
    published=1000,
    unboxed=True,
)
