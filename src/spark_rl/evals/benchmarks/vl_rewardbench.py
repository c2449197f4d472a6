r"""VL-RewardBench: which of two answers about a picture is better (paper Tables 1 and 3, columns VL-RB, VL-RB-Math).

Data: ``MMInstruction/VL-RewardBench``, split ``test``, as ``reward/vl_rewardbench.parquet`` or ``.jsonl`` with the
columns ``id``, ``query``, ``response`` (two), ``image`` and ``human_ranking`` (0 marks the better one). Two benchmarks:

================== =================== ===============================================================================
name               calls for each row  orders
================== =================== ===============================================================================
vl_rewardbench     2                   as given and swapped; ``official`` counts only the one that lmms-eval and
                                       VLMEvalKit ask, swapped if the answers' characters are odd in number
vl_rewardbench-k10 10                  a fair coin each, drawn once for each id; for sampling at temperature 0.2, as
                                       greedy decoding asks the same two questions again
================== =================== ===============================================================================

``official`` reads a verdict by the official expression only, takes the majority of a row's first calls (1, or 9 of
10), and leaves unread and undecided rows out of the denominator (``cal.py``). ``rule`` also reads a final
``\boxed{1}`` (``2``, ``A``, ``B``, ``Answer 1``) and "Answer 1 is better" without the lead-in, counts what it can't
read as wrong, and is the mean over all calls. Both report groups, ``macro``, ``overall_strict`` and ``parsed``. The
paper's VL-RB-Math is not defined: ``group/reasoning`` and ``part/mathverse`` are the two candidates.

The prompt is the benchmark's protocol, quoted from ``prompt.py`` of VL_RewardBench (MIT). Departures: no space before
its first word; the released ``cal.py`` drops a row with any unread call before it counts, here such a row may still
have a majority, as the paper describes it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from spark_rl.data.values import MARKER
from spark_rl.evals.benchmark import Adder, Benchmark, Graded, Item, Protocol, Scorer
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.evals.score.units import Unit, each, grade_as, mean, units
from spark_rl.problem import Problem
from spark_rl.verify import extract_boxed

_PROMPT = """You are a highly capable multimodal AI assistant tasked with evaluating answers to visual questions. \
Please analyze the following image and question, then determine which of the two provided answers is better.

Question: {query}

Answer 1: {first}

Answer 2: {second}

Please evaluate both answers based on the following criteria:
1. Accuracy: How well does the answer align with the visual information in the image?
2. Completeness: Does the answer fully address all aspects of the question?
3. Clarity: Is the answer easy to understand and well-articulated?
4. Relevance: Does the answer directly relate to the question and the image?

After your evaluation, please:
1. Explain your reasoning for each criterion.
2. Provide an overall judgment on which answer is better (Answer 1 or Answer 2). For example: Overall Judgment: \
Answer X is better.

Your response should be structured and detailed, demonstrating your understanding of both the visual and textual \
elements of the task."""
_FIELD = re.compile(r"\{(query|first|second)\}")

GROUPS = ("general", "hallucination", "reasoning")
_GROUP_OF = {
    **dict.fromkeys(("rlaif", "rlhf", "hallucination", "povid"), "hallucination"),
    **dict.fromkeys(("mathverse", "mmmu"), "reasoning"),
}
CALLS = 10
COUNTED = 9
"""An odd number of calls has a majority unless some can't be read."""

_LEAD = re.compile(r"Overall Judgment|Therefore", re.IGNORECASE)
_BETTER = re.compile(r"Answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE)
_BOXED = re.compile(
    r"(?:\\text\s*\{)?\s*(?:Answer\s*)?([12AB])\b[^A-Za-z0-9]*(?:is better)?[^A-Za-z0-9]*", re.IGNORECASE
)
_NUMBERS = {"A": "1", "B": "2"}


def judge_prompt(query: str, first: str, second: str) -> str:
    """The user turn, its picture behind the text as in the official script."""
    values = {"query": query, "first": first, "second": second}
    text = _FIELD.sub(lambda found: values[found[1]], _PROMPT)
    return text.replace(f"{MARKER}\n", "").replace(MARKER, "") + MARKER


def group_of(name: str) -> str:
    """The group of a row by what its id begins with: ``RLAIF-1031`` is of ``hallucination``."""
    return _GROUP_OF.get(_prefix(name), "general")


def read_official(text: str) -> str | None:
    """The number of the answer that the official expression finds: the last "Answer N is (the) (slightly) better"
    behind the first "Overall Judgment" or "Therefore".

    Found in two steps, which take linear time; the expression itself can take very long on a long response.
    """
    plain = text.replace("\n", "").replace("*", "")
    lead = _LEAD.search(plain)
    found = _BETTER.findall(plain, lead.end()) if lead else []
    return _digits(found[-1]) if found else None


def read_any(text: str) -> str | None:
    """``1`` or ``2`` by the last box, else by the last "Answer N is better" whatever stands before it."""
    boxed = extract_boxed(text)
    found = _BOXED.fullmatch(boxed.strip()) if boxed is not None else None
    if found:
        label = found[1].upper()
        return _NUMBERS.get(label, label)
    stated = _BETTER.findall(text.replace("\n", "").replace("*", ""))
    return _digits(stated[-1]) if stated else None


def load(path: Path) -> list[Item]:
    """Both orders of every entry."""
    return [item for entry in read_entries(path, "id") for item in _items(entry, (False, True))]


def load_shuffled(path: Path) -> list[Item]:
    """Every row ten times, its order drawn each time."""
    items = []
    for entry in read_entries(path, "id"):
        coin = random.Random(f"vl_rewardbench/{entry.id}")
        items += _items(entry, [coin.random() < 0.5 for _ in range(CALLS)])
    return items


def single(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """One order for each row: the share of right ones among those with a verdict."""
    return _voted([[call for call in unit if call[0].meta["single"]] for unit in _rows(items, grades)])


def voted(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The majority of nine calls for each row; ``k/1`` to ``k/9`` for other numbers of calls."""
    rows = _rows(items, grades)
    by_calls = {f"k/{k}": _voted([row[:k] for row in rows])["score"] for k in range(1, COUNTED, 2)}
    return {**_voted([row[:COUNTED] for row in rows]), **by_calls}


def every_call(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The mean over all calls, the groups, and the share of rows that are right, or wrong, in both orders."""
    rows = _rows(items, grades)
    both = [row for row in rows if {item.meta["swapped"] for item, _ in row} == {False, True}]
    found = {"score": mean([grade.score for row in rows for _, grade in row])} if rows else {}
    found |= _parts(rows, lambda row: [grade.score for _, grade in row])
    if both:
        same = (len({grade.status for _, grade in row}) == 1 and row[0][1].extracted is not None for row in both)
        found["consistency"] = mean([float(agreed) for agreed in same])
    return {**found, **_parsed(rows)}


def _items(entry: Entry, orders: Iterable[bool]) -> list[Item]:
    responses = entry.texts("response")
    ranking = entry.get("human_ranking")
    if len(responses) != 2 or not isinstance(ranking, list | tuple) or sorted(ranking) != [0, 1]:
        raise entry.wrong("two responses and a human_ranking of one 0 and one 1 are needed")
    query, images = entry.whole(entry.get("query"), "query"), entry.image()
    official_order = sum(map(len, responses)) % 2 == 1
    items = []
    for call, swapped in enumerate(orders, start=1):
        first, second = reversed(responses) if swapped else responses
        problem = Problem(
            id=f"{entry.id}/{call}", question=query, answer=str(1 + ranking.index(int(swapped))), kind="exact",
            prompt=judge_prompt(query, first, second), images=images,
        )  # fmt: skip
        meta = {
            "row": entry.id, "call": call, "swapped": swapped, "single": swapped == official_order,
            "group": group_of(entry.id), "part": _prefix(entry.id),
        }  # fmt: skip
        items.append(Item(problem, meta, system=""))
    return items


def _digits(number: str) -> str:
    """Without leading zeros; not by way of ``int``, which refuses numbers of thousands of digits."""
    return number.lstrip("0") or "0"


def _prefix(name: str) -> str:
    return re.split("[_-]", name, maxsplit=1)[0].casefold()


def _graded(read: Callable[[str], str | None]) -> Scorer:
    return each(lambda item, response: grade_as(read(response), item.problem.answer))


def _rows(items: Sequence[Item], grades: Sequence[Graded]) -> list[Unit]:
    return [sorted(unit, key=lambda call: call[0].meta["call"]) for unit in units(items, grades, _row)]


def _voted(rows: Sequence[Unit]) -> dict[str, float]:
    """The official numbers, 0 if nothing is decided. Undecided rows count only in the strict number."""
    asked = [row for row in rows if row]
    decided = [(row, label == "correct") for row in asked if (label := _majority(row)) in {"correct", "wrong"}]
    found = {"score": mean([float(right) for _, right in decided]) if decided else 0.0}
    told = {id(row): float(right) for row, right in decided}
    found |= _parts([row for row, _ in decided], lambda row: [told[id(row)]])
    if asked:
        found["overall_strict"] = sum(told.values()) / len(asked)
    return {**found, **_parsed(asked)}


def _majority(row: Unit) -> str | None:
    ((label, count),) = Counter(grade.status for _, grade in row).most_common(1)
    return label if 2 * count > len(row) else None


def _parts(rows: Sequence[Unit], values: Callable[[Unit], list[float]]) -> dict[str, float]:
    """Means of the groups and of the kinds of ids, and ``macro``, which needs every group."""
    found: dict[str, list[float]] = {}
    for key in ("group", "part"):
        for row in rows:
            found.setdefault(f"{key}/{row[0][0].meta[key]}", []).extend(values(row))
    means = {name: mean(scores) for name, scores in sorted(found.items())}
    groups = [means[f"group/{group}"] for group in GROUPS if f"group/{group}" in means]
    return {**means, "macro": mean(groups)} if len(groups) == len(GROUPS) else means


def _parsed(rows: Sequence[Unit]) -> dict[str, float]:
    read = [float(grade.extracted is not None) for row in rows for _, grade in row]
    return {"parsed": mean(read)} if read else {}


def _row(item: Item) -> str:
    return str(item.meta["row"])


def _protocols(official_adder: Adder) -> dict[str, Protocol]:
    return {
        "official": Protocol(_graded(read_official), official_adder, headline_is_mean=False, unit=_row),
        "rule": Protocol(_graded(read_any), every_call, headline_is_mean=False, unit=_row),
    }


_FILES = ("reward/vl_rewardbench.parquet", "reward/vl_rewardbench.jsonl")
_SOURCE = (
    "https://huggingface.co/datasets/MMInstruction/VL-RewardBench; https://github.com/vl-rewardbench/VL_RewardBench"
)
_LICENCE = "MIT, research use only"

SHUFFLED = Benchmark(
    name="vl_rewardbench-k10", title="VL-RB (10 calls)", group="reward", source=_SOURCE, licence=_LICENCE,
    files=_FILES, load=load_shuffled, protocols=_protocols(voted), unboxed=True,
)  # fmt: skip

BENCHMARK = Benchmark(
    name="vl_rewardbench", title="VL-RB", group="reward", source=_SOURCE, licence=_LICENCE, files=_FILES, load=load,
    protocols=_protocols(single), unboxed=True,
)  # fmt: skip
