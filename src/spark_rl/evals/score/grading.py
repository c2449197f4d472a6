"""Grades of records: every response of a record by every protocol, from what the record holds and nothing else.

So a score that is computed from a file without a model is the score that was computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spark_rl.evals.ask.exam import JUDGED_BY, Exam
from spark_rl.evals.ask.records import REFUSED, SKIPPED, Record, item_of
from spark_rl.evals.benchmark import Graded, Item, Protocol
from spark_rl.verify import Verifier

_Given = tuple[Item, dict[str, Any]]

MISSING = Graded(0.0, None, "no_answer")
"""The grade of a missing response, even where a protocol accepts an empty text (official POPE takes it for a Yes)."""


Judge = Callable[[Sequence[str]], Sequence[str | None]]
"""User turns -> a language model's replies; ``None`` where it was not let answer, which grades nothing."""


def answers_of(record: Record) -> Iterator[dict[str, Any]]:
    """The responses of a record, each with its fields: the record itself, further samples, and the final one."""
    yield record
    yield from record["samples"]
    if record["final"] is not None:
        yield record["final"]


def grade(
    records: Sequence[Record], exam: Exam, verifier: Verifier, judge: Judge | None = None, *, again: bool = False
) -> None:
    """Fill in the grades of records by the protocols of an exam, those that are there already only if ``again``.

    A judge is asked once; what it said stands in the record, under ``replies``.
    """
    answers = [
        (item_of(record), answer) for record in records if record["status"] != SKIPPED for answer in answers_of(record)
    ]
    for name, protocol in exam.protocols.items():
        wanted = [(item, answer) for item, answer in answers if again or name not in answer["grades"]]
        given = [(item, answer) for item, answer in wanted if answer["response"] is not None]
        if protocol.ask_judge is not None:
            _ask_judge(name, protocol, given, judge)
            given = [(item, answer) for item, answer in given if name in answer["replies"]]
        found = iter(_scored(name, protocol, given, verifier))
        graded = {id(answer) for _, answer in given}
        for _, answer in wanted:
            answer["grades"][name] = asdict(next(found) if id(answer) in graded else MISSING)
    for _, answer in answers:
        main = answer["grades"][exam.main]
        status = REFUSED if answer.get("status") == REFUSED else main["status"]
        answer.update(extracted=main["extracted"], status=status, reward=main["score"])


def grade_of(answer: Mapping[str, Any], protocol: str) -> Graded:
    """The grade of an answer by one protocol, as the record stores it."""
    return Graded(**answer["grades"][protocol])


def judges_of(records: Sequence[Record]) -> list[str]:
    """The judges whose replies stand in records."""
    names = {name for record in records for answer in answers_of(record) for name in answer.get("replies", ())}
    return sorted(name.removeprefix(JUDGED_BY) for name in names)


def _ask_judge(name: str, protocol: Protocol, given: Sequence[_Given], judge: Judge | None) -> None:
    assert protocol.ask_judge is not None, "checked by the caller"
    for _, answer in given:
        answer.setdefault("replies", {})
    fresh = [(item, answer) for item, answer in given if name not in answer["replies"]]
    if judge is None or not fresh:
        return
    replies = judge([protocol.ask_judge(item, answer["response"]) for item, answer in fresh])
    for (_, answer), reply in zip(fresh, replies, strict=True):
        if reply is not None:
            answer["replies"][name] = reply


def _scored(name: str, protocol: Protocol, given: Sequence[_Given], verifier: Verifier) -> list[Graded]:
    if not given:
        return []
    texts = [answer["response"] if protocol.ask_judge is None else answer["replies"][name] for _, answer in given]
    return protocol.score([item for item, _ in given], texts, verifier)
