"""MM-Vet: open questions about pictures, graded by a language model (paper Table 4).

Data: ``lmms-lab/MMVet``, split ``test``, as ``general/mmvet/test.parquet`` or ``.jsonl`` with the columns
``question_id``, ``image``, ``question``, ``answer`` (parts joined by ``<AND>`` and ``<OR>``) and ``capability`` (a
list, or separated by commas).

========== ============================================================================================================
protocol   what it is
========== ============================================================================================================
judged     a judge is shown question, gold and response and says a number from 0.0 to 1.0. :func:`grade_prompt` asks,
           :func:`read_grade` reads. Without a judge there is no score; with one, it holds for that judge only
mmvet_rule no judge: the share of the ``<AND>`` parts that stand in the response, at best over ``<OR>``. Never to be set
           beside published numbers, which all come from a judge
========== ============================================================================================================

The headline is the mean; ``capability/ocr`` and so on count a question for each of its capabilities,
``combination/...`` for the set of them.

Departures: the grading prompt has the form of the official one, a table to be continued, in our own words and with our
own examples; a judgement without a number counts 0 at once, where the official script asks up to five times.
"""

from __future__ import annotations

import re
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.evals.score.scorers import by
from spark_rl.evals.score.units import each
from spark_rl.problem import Problem

_ASKED = """\
You grade answers about pictures that you don't see. Compare the prediction with the ground truth and continue the \
last line of the table by one number: 0.0 if the prediction is entirely wrong, 1.0 if it is entirely right, and \
0.1, 0.2, ..., 0.9 for what lies between. Where the ground truth joins parts by <AND>, all of them are needed for \
1.0; where it joins them by <OR>, any one of them is enough. Write the number and nothing else.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
Which values solve the equation? | 2 <AND> -7 | y = 4 | 0.0
Which values solve the equation? | 2 <AND> -7 | y = 2 | 0.5
Which values solve the equation? | 2 <AND> -7 | y = -7 | 0.5
Which values solve the equation? | 2 <AND> -7 | y = 2 or y = 7 | 0.5
Which values solve the equation? | 2 <AND> -7 | y is 2 or -7 | 1.0
What is funny here? | The dog sits at the desk in a tie and stares at the screen as if it were at work, while the man \
sleeps in the dog's basket, so the two have changed places. | A dog wears a tie, which looks silly. | 0.3
What is funny here? | The dog sits at the desk in a tie and stares at the screen as if it were at work, while the man \
sleeps in the dog's basket, so the two have changed places. | Dog and owner have swapped roles: the dog works at the \
computer in a tie, and the man naps in its basket. | 1.0
"""
_NUMBER = re.compile(r"(?<![\w.,/-])(?:0?\.\d+|[01](?:\.\d+)?)(?![\w%/]|[.,]\d)")


def load(path: Path) -> list[Item]:
    """One item for each row of the file."""
    return [_item(entry) for entry in read_entries(path, "question_id", "id")]


def grade_prompt(item: Item, response: str) -> str:
    """The user turn that asks a judge to grade one response. The judge sees no picture."""
    gold = item.problem.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    cells = (" ".join(text.split()) for text in (item.problem.question, gold, response))
    return f"{_ASKED}{' | '.join(cells)} |"


def read_grade(text: str) -> float | None:
    """The number from 0 to 1 that a judge says: the first word if it is one, else the only one; else ``None``."""
    words = text.split()
    found = _numbers(words[0]) if words else []
    if len(found) != 1:
        found = _numbers(text)
    return found[0] if len(set(found)) == 1 else None


def read_parts(gold: str, response: str) -> float:
    """The share of the parts of ``gold`` that stand in the response as words, at best over its alternatives."""
    text = " ".join(response.casefold().split())

    def stands(part: str) -> bool:
        words = " ".join(part.casefold().split()).rstrip(".")
        return bool(words) and re.search(rf"(?<![\w.-]){re.escape(words)}(?!\w|\.\d)", text) is not None

    alternatives = [alternative.split("<AND>") for alternative in gold.split("<OR>")]
    return max(sum(map(stands, parts)) / len(parts) for parts in alternatives)


def _item(entry: Entry) -> Item:
    held = entry.get("capability")
    names = entry.texts("capability") if isinstance(held, list) else entry.optional("capability").split(",")
    capabilities = sorted({name.strip() for name in names if name.strip()})
    problem = Problem(
        id=entry.id, question=entry.text("question"), answer=entry.text("answer"), kind="exact", images=entry.image()
    )
    return Item(problem, {"capability": capabilities, "combination": "+".join(capabilities) or None})


def _judged(_item: Item, judgement: str) -> Graded:
    grade = read_grade(judgement)
    if grade is None:
        return Graded(0.0, None, "unparsable")
    return Graded(grade, str(grade), "correct" if grade >= 1.0 else "wrong")


def _by_parts(item: Item, response: str) -> Graded:
    share = read_parts(item.problem.answer, response)
    return Graded(share, None, "correct" if share >= 1.0 else "wrong")


def _numbers(text: str) -> list[float]:
    return [value for found in _NUMBER.findall(text) if (value := float(found)) <= 1.0]


_ADD_UP = by("capability", "combination")

BENCHMARK = Benchmark(
    name="mmvet",
    title="MM-Vet",
    group="general",
    source="https://github.com/yuweihao/MM-Vet; https://huggingface.co/datasets/lmms-lab/MMVet",
    licence="CC BY-NC 4.0 (data), Apache-2.0 (code)",
    files=("general/mmvet/test.parquet", "general/mmvet/test.jsonl"),
    load=load,
    protocols={
        "judged": Protocol(each(_judged), _ADD_UP, headline_is_mean=False, ask_judge=grade_prompt),
        "mmvet_rule": Protocol(each(_by_parts), _ADD_UP, headline_is_mean=False),
    },
    published=218,
)
