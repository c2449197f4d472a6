r"""MMMU, the validation part: 900 questions of 30 college subjects, 847 with options (paper Table 4).

Data, the first that is there:

- ``general/mmmu/validation.parquet`` or ``.jsonl``, the 30 files of ``MMMU/MMMU`` put together (``lmms-lab/MMMU`` has
  them so): ``id``, ``question``, ``options`` (a list, or a list written as text), ``answer``, ``question_type``,
  ``image_1`` to ``image_7``;
- ``vlm/mmmu/answer_dict_val.json``, the published golds alone. Responses can be scored by it, but no model can be
  asked: its items name pictures that are not there. Options are taken to be A to I then, known by letters only.

Pictures stand where the question or an option first mentions them (``<image 1>``), the others before the text.

``official`` follows the published parsers. Options: the last ``(B)``; without any, the last `` B ``, then the last
option text in a response of more than five words. Open questions: candidates are what follows the last "is", "so",
"answer" and so on of each line, and the numbers in it, rounded to two decimals; right if a gold text is in a candidate,
or a number is equal. ``rule`` reads the last box; letters and short answers count without one, because MMMU's own
prompt asks for none. The headline is the mean over all; ``discipline/...``, ``subject/...`` and ``type/...`` break it
down.

Departures: where nothing can be read, the official parser draws an option at random; here it is wrong. Of responses
of more than 100,000 characters ``official`` reads the end. The question is followed by the answer format of
``chat.policy``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spark_rl.data.values import MARKER
from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import LETTERS, Entry, listed, read_entries
from spark_rl.evals.score.scorers import by, rule, unboxed
from spark_rl.evals.score.short_answer import grade_short
from spark_rl.evals.score.units import each, grade_as
from spark_rl.problem import Kind, Problem
from spark_rl.verify import Verifier

DISCIPLINES: Mapping[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
_DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}
_IMAGES = tuple(f"image_{number}" for number in range(1, 8))
_MENTION = re.compile(r"<image (\d)>")
_ID = re.compile(r"[a-z]+_(.+)_\d+")
_UNKNOWN = "ABCDEFGHI"
_LONGEST_LITERAL = 20_000

READ = 100_000
"""Characters of a response that ``official`` reads, from its end."""
_CUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""Grouped by commas, in scientific notation, plain. Beginning in the middle of a number never finds another one, and
not trying keeps them linear."""
_QUANTITY = re.compile(r"-?[\d.,]+(?:/\d+)?")


def load(path: Path) -> list[Item]:
    """One item a row, of a file with the questions or of the golds alone."""
    return [_gold_only(entry) if "ground_truth" in entry.values else _item(entry) for entry in read_entries(path, "id")]


def read_option(response: str, options: Sequence[str] | str) -> str | None:
    """The option letter by the published parser, ``None`` where that would draw one.

    Args:
        options: the option texts, or the letters alone where texts are unknown.
    """
    letters = options if isinstance(options, str) else LETTERS[: len(options)]
    for mark in ",.!?;:'":
        response = response.strip(mark)
    text = f" {response} "
    for form in ("({})", " {} "):
        found = _last(text, {letter: form.format(letter) for letter in letters})
        if found is not None:
            return found
    if isinstance(options, str) or len(text.split()) <= 5:
        return None
    return _last(text.lower(), {letter: option.lower() for letter, option in zip(letters, options, strict=True)})


def read_open(response: str) -> list[str | float]:
    """What the published parser takes for candidates of an open answer: texts in lower case, and numbers."""
    whole = response.strip().strip(".").lower()
    lines = whole.split("\n")
    tails = [_tail(line, (*_CUES, "=") if number == len(lines) else _CUES) for number, line in enumerate(lines, 1)]
    keys = [tail for tail in tails if tail and tail not in set(":,.!?;'")] or [whole]
    numbers = [number for key in keys for pattern in _NUMBERS for number in pattern.findall(key)]
    return [value for text in (*keys, *numbers) for value in _normal(text)]


def is_open_right(golds: Sequence[str], candidates: Sequence[str | float]) -> bool:
    """Whether a gold text is in a candidate text, or a gold number is a candidate."""
    wanted = [value for gold in golds for value in _normal(gold)]
    texts = [value for value in wanted if isinstance(value, str)]
    return any(
        any(text in found for text in texts) if isinstance(found, str) else found in wanted for found in candidates
    )


def score_by_rule(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
    """The last box: letters and quantities by the shared rule, the best of several golds; words as short answers."""
    asked = [
        (place, replace(item, problem=replace(item.problem, answer=gold)), response)
        for place, (item, response) in enumerate(zip(items, responses, strict=True))
        if item.problem.kind != "exact"
        for gold in item.meta["golds"]
    ]
    found = rule([item for _, item, _ in asked], [response for *_, response in asked], verifier)
    best: dict[int, Graded] = {}
    for (place, *_), grade in zip(asked, found, strict=True):
        if place not in best or grade.score > best[place].score:
            best[place] = grade
    return [
        best[place] if place in best else grade_short(response, item.meta["golds"])
        for place, (item, response) in enumerate(zip(items, responses, strict=True))
    ]


def _official(item: Item, response: str) -> Graded:
    response = response[-READ:]
    if item.problem.kind == "choice":
        return grade_as(read_option(response, item.problem.choices or item.meta["letters"]), item.problem.answer)
    candidates = read_open(response)
    right = is_open_right(item.meta["golds"], candidates)
    return Graded(float(right), str(candidates[0]), "correct" if right else "wrong")


def _last(text: str, forms: Mapping[str, str]) -> str | None:
    places = {letter: text.rfind(form) for letter, form in forms.items()}
    return max(places, key=places.__getitem__) if max(places.values(), default=-1) >= 0 else None


def _tail(line: str, cues: Sequence[str]) -> str:
    """The shortest of what follows the last place of each cue; an empty one gives way to the next."""
    shortest = ""
    for cue in cues:
        if cue in line:
            tail = line.rpartition(cue)[2].strip()
            if not shortest or len(tail) < len(shortest):
                shortest = tail
    return shortest


def _normal(text: str) -> list[str | float]:
    """A number to two decimals; else lower case, a single character with a space on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _item(entry: Entry) -> Item:
    options = tuple(_list(entry, "options"))
    golds = (
        [text.strip() for text in _list(entry, "answer")] if _is_list(entry.get("answer")) else [entry.text("answer")]
    )
    text = "\n".join((entry.text("question"), *([listed(options)] if options else [])))
    places: list[str] = []

    def place(mention: re.Match[str]) -> str:
        column = f"image_{mention[1]}"
        if column in places:
            return mention[0]
        if not entry.images(column):
            raise entry.wrong(f"the question mentions {mention[0]}, and {column} is empty")
        places.append(column)
        return MARKER

    text = _MENTION.sub(place, text)
    others = [name for name in _IMAGES if name not in places and entry.images(name)]
    if not places and not others:
        raise entry.wrong("no image")
    return _made(
        entry,
        f"{MARKER * len(others)}{text}",
        golds,
        entry.text("question_type"),
        entry.images(*others, *places),
        options,
    )


def _gold_only(entry: Entry) -> Item:
    golds = entry.get("ground_truth")
    golds = [entry.whole(gold, "gold") for gold in (golds if isinstance(golds, list) else [golds])]
    missing = str(entry.path.parent / "images" / f"{entry.id}_1.png")
    return _made(entry, f"(question {entry.id}, of which only the gold is here)", golds, entry.text("question_type"),
                 (missing,), ())  # fmt: skip


def _made(
    entry: Entry, question: str, golds: list[str], kind: str, images: tuple[str | bytes, ...], options: tuple[str, ...]
) -> Item:
    if not golds or not all(golds):
        raise entry.wrong("no answer; only the validation part has them")
    chosen = kind == "multiple-choice"
    letters = LETTERS[: len(options)] if options else _UNKNOWN
    if chosen and (len(golds) != 1 or len(golds[0]) != 1 or golds[0] not in letters):
        raise entry.wrong(f"the answer {golds[0][:20]!r} is no letter of one of {len(letters)} options")
    counted: Kind = "math" if all(_QUANTITY.fullmatch(gold) for gold in golds) else "exact"
    problem = Problem(
        id=entry.id, question=question, answer=golds[0], kind="choice" if chosen else counted, images=images,
        choices=options if chosen else (),
    )  # fmt: skip
    named = _ID.fullmatch(entry.id)
    subject = named[1] if named else None
    meta = {
        "subject": subject, "discipline": _DISCIPLINE_OF.get(subject or ""), "type": "choice" if chosen else "open",
        "golds": golds, "letters": letters,
    }  # fmt: skip
    return Item(problem, meta)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.startswith("[") and value.endswith("]"))


def _list(entry: Entry, name: str) -> tuple[str, ...]:
    """A list of texts, given as such or written as Python text; numbers in it as text."""
    value = entry.get(name)
    if isinstance(value, str) and len(value) <= _LONGEST_LITERAL:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise entry.wrong(f"{name!r} is no list written as text") from None
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise entry.wrong(f"{name!r} is no list")
    return tuple(entry.whole(str(member) if isinstance(member, int | float) else member, name) for member in value)


_add_up: Callable[[Sequence[Item], Sequence[Graded]], Mapping[str, float]] = by("discipline", "subject", "type")

BENCHMARK = Benchmark(
    name="mmmu",
    title="MMMU",
    group="general",
    source="https://github.com/MMMU-Benchmark/MMMU; https://huggingface.co/datasets/MMMU/MMMU",
    licence="Apache-2.0",
    files=(
        "general/mmmu/validation.parquet",
        "general/mmmu/validation.jsonl",
        "vlm/mmmu/answer_dict_val.json",
    ),
    load=load,
    protocols={"official": Protocol(each(_official), _add_up), "rule": Protocol(unboxed(score_by_rule), _add_up)},
    published=900,
    unboxed=True,
)
