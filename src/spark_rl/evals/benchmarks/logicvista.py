r"""LogicVista (lscpku/LogicVista, ``test``, 448 questions with one image each; specification Sec. 2.6).

JSON keyed by id with ``imagename``, ``question``, ``answer``, ``skill``, or the hub's Parquet with ``id`` and
``image``. Options stand in the question or in the image, with letters up to I. Golds are a letter, a few times several
(``B, D``), once a digit, and once nothing at all (``v1_382``, no question either): that one is asked, is always wrong
and stays in the 448; ``with_gold`` is the score over the others.

reference the authors' comparison
rule      the set of letters in the last box, in an answer tag, behind the last "answer is", else the one letter at the
          end; all must match, as the official scorer has it, for which GPT-4 extracts
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol, Scorer
from spark_rl.evals.rows import Row
from spark_rl.evals.scoring import LETTERS, by, read_letter, reference
from spark_rl.evals.units import each
from spark_rl.evals.vision_rows import read_items, vision_item
from spark_rl.verify import Verifier, extract_boxed
from spark_rl.verify.choice import read_letters

_LETTERS = "ABCDEFGHI"
_ONE = r"[(\[*$]{0,8}(?:\\text\{)?([A-I])(?![A-Za-z'])[)\]*$}.]*"
_STATED = re.compile(
    rf"\banswers?(?: (?:is|are)|:)[:\s*]{{0,8}}(?:options? |choices? )?({_ONE}(?:\s*(?:,|and|&)+\s*{_ONE})*)"
)
_ALONE = re.compile(r"(?<![A-Za-z'])([A-I])(?![A-Za-z'])")
_DIGITS = re.compile(r"[0-9]+")


def load(path: Path) -> list[Item]:
    """The items of ``dataset.json`` or a Parquet file. Raises ``DataError``."""
    return read_items(path, ("question", "answer", "skill"), _item)


def _item(row: Row) -> Item:
    answer, skill = row.optional("answer"), row.get("skill")
    meta = {
        "skill": list(skill) if isinstance(skill, list | tuple) else row.optional("skill"),
        "gold": "with" if answer else "without",
        LETTERS: _LETTERS,
    }
    image = next((name for name in ("image", "imagename") if row.get(name)), "imagename")
    return vision_item(
        "logicvista", row.optional("id") or str(row.number), row.optional("question"), answer, row.image(image), meta,
        kind="choice" if read_letters(answer) else "math",
    )  # fmt: skip


def letter_sets(item: Item, response: str) -> Graded:
    """Whether the letters of the response are those of the gold, in any order."""
    found = read_answer(response)
    if found is None:
        return Graded(0.0, None, "no_answer")
    right = found == tuple(sorted(re.split(r",\s*", item.problem.answer)))
    return Graded(float(right), ", ".join(found), "correct" if right else "wrong")


def read_answer(response: str) -> tuple[str, ...] | None:
    """The letters that a response states, sorted; the digits of a box without letters; ``None`` without either."""
    content = extract_boxed(response)
    if content is None:
        content = _tagged(response)
    if content is not None:
        return _read(content)
    stated = [found[0] for found in _STATED.findall(response)]
    if stated:
        return _read(stated[-1])
    letter = read_letter(response, _LETTERS)
    return None if letter is None else (letter,)


def _tagged(response: str) -> str | None:
    """What stands in the last answer tag that is closed."""
    before, closed, _ = response.rpartition("</answer>")
    _, opened, content = before.rpartition("<answer>")
    return content if closed and opened else None


def _read(content: str) -> tuple[str, ...] | None:
    letters = read_letters(content)
    if letters is None:
        plain = re.sub(r"\\(?:text|mathrm|mathbf|textbf)(?![A-Za-z])", " ", content)
        letters = frozenset(_ALONE.findall(plain)) or frozenset(_DIGITS.findall(plain))
    return tuple(sorted(letters)) or None


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
        "rule": Protocol(golds_only(each(letter_sets)), add_up),
    },
    published=448,
)
