"""What a benchmark is: questions from its own files, one scorer a protocol, and how scores add up (Sec. 4.1, A.1).

A benchmark is one file in :mod:`spark_rl.evals.benchmarks` that ends in ``BENCHMARK = Benchmark(...)``, and one line in
their list. Nothing here knows a model: the runner asks, the scorers see texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from spark_rl.problem import Problem, Status
from spark_rl.verify import Verifier, answer_part

GroupName = Literal["math-llm", "math-vlm", "reward", "general"]


@dataclass(frozen=True, slots=True)
class Item:
    """One question that a model is asked, and what scoring it needs.

    A row of a benchmark is usually one item; a pairwise comparison in two orders, a rating of each of several
    completions or a circular multiple-choice question is several.
    """

    problem: Problem
    """What is asked. ``problem.id`` is unique in the benchmark; ``problem.prompt`` is set where the benchmark writes
    the whole user turn, else the answer-format suffix of ``chat.policy`` follows ``problem.question``.
    ``problem.answer`` is the canonical gold: a letter for multiple choice, text otherwise."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that scoring and adding up need: subject, version, variant, precision, group keys."""
    system: str | None = None
    """A system message of the benchmark's own, in place of ``chat.system``; empty for none at all."""


PICTURE = "picture"
"""Key of ``Item.meta``: where several items show the same pictures, the id of the first of them."""


def by_picture(item: Item) -> str:
    """The picture that several questions are about, else the item alone."""
    return str(item.meta.get(PICTURE) or item.problem.id)


@dataclass(frozen=True, slots=True)
class Graded:
    """What one protocol says of one response."""

    score: float
    """0 to 1."""
    extracted: str | None = None
    """The answer as the protocol reads it from the response."""
    status: Status = "wrong"
    """``correct``, ``wrong``, or why no answer could be compared."""


Scorer = Callable[[Sequence[Item], Sequence[str], Verifier], list[Graded]]
"""(items, responses, verifier) -> one grade each. Slow comparisons go through the verifier, which can kill them."""

Adder = Callable[[Sequence[Item], Sequence[Graded]], Mapping[str, float]]
"""(items, grades) -> ``score``, the headline from 0 to 1, and breakdowns such as ``subject/algebra``."""


def mean_score(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The plain mean over all items."""
    return {"score": sum(grade.score for grade in grades) / len(grades)} if items else {}


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of scoring. Two protocols of a benchmark are never mixed in a table."""

    score: Scorer
    add_up: Adder = mean_score
    headline_is_mean: bool = True
    """Whether ``score`` is the mean over items; else its interval is resampled."""
    unit: Callable[[Item], str] = by_picture
    """Items of one unit stand and fall together, and intervals count them so: the composite, the seed question, the
    picture that several questions are about, the row."""
    ask_judge: Callable[[Item, str], str] | None = None
    """(item, response) -> the user turn for a judge, a language model. Where it is set, ``score`` reads the judge's
    replies in place of responses, and without a judge the protocol has no score."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: where its data lies, how it is read, and the protocols that score responses to it."""

    name: str
    """As on the command line: ``math500``."""
    title: str
    """As in the paper's tables: ``MATH-500``."""
    group: GroupName
    source: str
    """Where data and official scorer are published."""
    licence: str
    files: tuple[str, ...]
    """Where its data is looked for below the data root, the first that exists."""
    load: Callable[[Path], list[Item]]
    """Reads one of ``files``. Raises ``DataError`` in one line."""
    protocols: Mapping[str, Protocol]
    """``reference`` repeats the authors' scoring (Sec. 7.1 of the specification); ``rule`` is ours, right and strict;
    ``official`` is the benchmark's own where it differs from both and needs no model."""
    published: int | None = None
    """How many items the full benchmark has, to tell a part from the whole."""
    unboxed: bool = False
    r"""Whether ``rule`` takes a letter, an option's text or a Yes/No for the answer where a response has no box: so
    where the benchmark's own prompt, which models elsewhere were asked by, wants no ``\boxed{}``. What reads them is
    :func:`spark_rl.evals.score.scorers.unboxed` around the scorer."""

    def __post_init__(self) -> None:
        """``rule`` never sees what a model thinks; the other protocols read what their authors' scripts read."""
        if "rule" in self.protocols:
            ours = self.protocols["rule"]
            outside = replace(ours, score=_outside_thinking(ours.score))
            object.__setattr__(self, "protocols", {**self.protocols, "rule": outside})


def _outside_thinking(scorer: Scorer) -> Scorer:
    def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
        return scorer(items, [answer_part(text, verifier.config.thinking) for text in responses], verifier)

    return score
