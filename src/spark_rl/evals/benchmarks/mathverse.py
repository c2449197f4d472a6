r"""MathVerse (AI4Math/MathVerse: ``testmini``, 788 problems in five versions, 3,940 rows; specification Sec. 2.4).

Columns: ``sample_index``, ``problem_index``, ``problem_version``, ``question`` (empty in Vision Only rows),
``query_cot``, ``answer``, ``question_type``, ``metadata``, ``image``. The question is ``question``, of Vision Only rows
``query_cot``, which says that the question stands in the image. Options stand in the question.

The score is the mean over the five versions with an image. Text Only rows are never in it; a file that holds nothing
else (``testmini_text_only.json``, 788 rows without images) is scored as what it is. Problems, not rows, are resampled
for the interval, because versions of one problem stand and fall together.

reference the authors' comparison with the gold as it is written
rule      the letter; else the shared rule, with golds and answers cleaned of a garbled degree sign, the T of bearings,
          a name before ``=``, the word units and line breaks between values. Not comparable with the official score,
          for which GPT extracts and compares

Its own prompts ask for the letter "at the end", not for a box, so one without a box counts under ``rule``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol, mean_score
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.benchmarks.pictured import RAW_GOLD, as_written, inline_choices, metadata, read_items, vision_item
from spark_rl.evals.score.scorers import by, reference, rule, unboxed
from spark_rl.verify import Verifier, extract_boxed
from spark_rl.verify.letters import read_letters
from spark_rl.verify.notation import MAX_LENGTH

TEXT_ONLY = "Text Only"

_COLUMNS = ("sample_index", "problem_index", "problem_version", "question", "answer", "question_type", "metadata")
_CHOICES = re.compile(r"Choices?:(.*)", re.DOTALL)
_BEARING = re.compile(r"(\^\s*\{?\\circ\}?|°)\s*T$")
_UNITS = re.compile(r"\s*(?:square |cubic )?units?\s*(?:\$?\s*\^\{?[0-9]\}?\s*\$?)?$")
_NAMED = re.compile(r"\$*(?:\\mathrm\{)?(?:[A-Z][A-Za-z.]*\.?)(?: [A-Za-z.]+)*\}?\s*\$*\s*=(?!.*=)\s*(.+)", re.DOTALL)
r"""``Surface Area $=12$`` and ``$\mathrm{SA}=12$``: names, not variables, begin with a capital."""


def load(path: Path) -> list[Item]:
    """The items of a JSON, JSON lines or Parquet file. Raises ``DataError``."""
    return read_items(path, _COLUMNS, _item)


def _item(entry: Entry) -> Item:
    version, raw = entry.text("problem_version"), entry.text("answer")
    question = entry.text("question", "query_cot")
    full = entry.optional("question", "question_for_eval")
    listed = _CHOICES.search(full)
    choices = inline_choices(listed[1]) if listed else ()
    chosen = entry.text("question_type") == "multi-choice"
    letters = gold_letters(raw, choices) if chosen else None
    if letters is None or not set(letters.split(", ")) <= set(string.ascii_uppercase[: len(choices)]):
        choices = ()
    held = metadata(entry, ("subject", "subfield"))
    return vision_item(
        "mathverse", entry.text("sample_index"), question, letters or cleaned(raw),
        entry.images("image") if version == TEXT_ONLY else entry.image(),
        {"version": version, "problem": entry.text("problem_index"), RAW_GOLD: raw,
         "question_type": entry.text("question_type"), **held},
        kind="choice" if letters else "math", choices=choices,
    )  # fmt: skip


def gold_letters(gold: str, choices: Sequence[str]) -> str | None:
    r"""``B`` of ``(B)``, ``A, C`` of ``A\nC``, and the letter of an option whose text is the gold."""
    if gold in choices:
        return string.ascii_uppercase[list(choices).index(gold)]
    letters = read_letters(", ".join(gold.split("\n")))
    return ", ".join(sorted(letters)) if letters else None


def cleaned(gold: str) -> str:
    r"""The value in a free-form gold or answer: ``4.4 m`` stays, ``118掳T`` is ``118°``, ``Area $=9$`` is ``9``.

    What is too long for the verifier stays as it is.
    """
    if len(gold) > MAX_LENGTH:
        return gold
    gold = ", ".join(line.strip() for line in gold.replace("\u63b3", "°").split("\n") if line.strip())
    gold = _BEARING.sub(r"\1", gold.strip())
    named = _NAMED.fullmatch(gold)
    value = _UNITS.sub("", named[1].strip() if named else gold)
    return value if value.count("$") % 2 == 0 else value.replace("$", "")


def cleaned_rule(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
    """The shared rule on cleaned answers; ``extracted`` is the answer as it was given."""
    boxes = [extract_boxed(response) for response in responses]
    asked = [
        response if box is None or item.problem.kind == "choice" else rf"\boxed{{{cleaned(box)}}}"
        for item, response, box in zip(items, responses, boxes, strict=True)
    ]
    grades = rule(items, asked, verifier)
    return [
        grade if item.problem.kind == "choice" else replace(grade, extracted=box)
        for item, grade, box in zip(items, grades, boxes, strict=True)
    ]


def over_versions(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The mean over rows with an image; over all where none has one."""
    seen = [pair for pair in zip(items, grades, strict=True) if pair[0].meta["version"] != TEXT_ONLY]
    return mean_score(items, grades) if not seen else mean_score(*zip(*seen, strict=True))


_ADD_UP = by("version", "subject", "subfield", "question_type", headline=over_versions)


def _problem(item: Item) -> str:
    return str(item.meta["problem"])


BENCHMARK = Benchmark(
    name="mathverse",
    title="MathVerse",
    group="math-vlm",
    source="https://huggingface.co/datasets/AI4Math/MathVerse, https://github.com/ZrrSkywalker/MathVerse",
    licence="MIT",
    files=(
        "vlm/mathverse/testmini.json",
        "vlm/mathverse/testmini.jsonl",
        "vlm/mathverse/testmini.parquet",
        "vlm/mathverse/testmini_text_only.json",
    ),
    load=load,
    protocols={
        "reference": Protocol(as_written(reference), _ADD_UP, headline_is_mean=False, unit=_problem),
        "rule": Protocol(unboxed(cleaned_rule), _ADD_UP, headline_is_mean=False, unit=_problem),
    },
    published=3940,
    unboxed=True,
)
