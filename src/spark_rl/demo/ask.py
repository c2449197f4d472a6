"""What the page asks of models: to solve round by round, one or several side by side, and to judge two answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spark_rl.config import Config
from spark_rl.data.named import find_images
from spark_rl.errors import UserError
from spark_rl.inference import TURNED, Opinion, Reasoner, Trace
from spark_rl.problem import Problem

LONGEST = 20_000
"""Characters of a problem or a response at most."""
MOST_ROUNDS = 8
"""Judge-and-reflect rounds at most."""


@dataclass(frozen=True, slots=True)
class Model:
    """One that can be asked."""

    name: str
    reasoner: Reasoner


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one model has made of a problem so far."""

    model: str
    trace: Trace | None = None
    """``None`` before its first answer."""
    ended: bool = False
    """Whether nothing more comes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a model has said so far of one or two responses."""

    opinions: tuple[Opinion, ...] = ()
    """Of each response alone (Eq. 10)."""
    orders: tuple[tuple[str, str | None], ...] = ()
    """(judgement, ``A``, ``B`` or ``None``) of the pair (Eq. 6): in the order A, B, then in the order B, A; both
    verdicts name the responses as they were given."""
    ended: bool = False
    """Whether nothing more comes."""

    @property
    def better(self) -> str | None:
        """The response that both orders prefer, or ``None``."""
        verdicts = {verdict for _, verdict in self.orders}
        return verdicts.pop() if len(self.orders) == 2 and len(verdicts) == 1 else None


def typed_problem(question: str | None, picture: str | None, config: Config) -> Problem:
    """A problem as somebody typed it.

    Raises:
        UserError: there is no text, too much of it, or the picture can't be read.
    """
    question = typed(question, "problem")
    images = find_images([picture] if picture else [], question, Path(), config.data.images, "the picture")
    return Problem(id="typed", question=question, answer="", images=images)


def typed(text: str | None, what: str) -> str:
    """The text, if it can be asked about. Raises :class:`UserError`."""
    if not text or not text.strip():
        raise UserError(f"there is no {what} yet; type one")
    if len(text) > LONGEST:
        raise UserError(f"the {what} has {len(text):,} characters, more than {LONGEST:,}; shorten it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"the {what} holds half a character (a lone surrogate); take it out") from None
    return text


def solving(models: Sequence[Model], problem: Problem, rounds: int) -> Iterator[list[Attempt]]:
    """How each model answers, judges itself and reflects, in turns; one attempt a model, again after each step.

    Raises:
        UserError: a model can't be asked this.
    """
    attempts = [Attempt(model.name) for model in models]
    open_ = {place: _with(model.reasoner, rounds).watch([problem]) for place, model in enumerate(models)}
    yield list(attempts)
    while open_:
        for place, watch in list(open_.items()):
            found = next(watch, None)
            if found is None:
                del open_[place]
                attempts[place] = replace(attempts[place], ended=True)
            else:
                attempts[place] = replace(attempts[place], trace=found[0])
            yield list(attempts)


def judging(model: Model, problem: Problem, response: str, other: str | None) -> Iterator[Comparison]:
    """What a model says of a response, or of two: of each alone, then of the pair in both orders.

    Raises:
        UserError: the model can't be asked this.
    """
    reasoner = model.reasoner
    responses = [response] if other is None else [response, other]
    yield Comparison()
    opinions = tuple(reasoner.judge([problem] * len(responses), responses))
    if other is None:
        yield Comparison(opinions, ended=True)
        return
    yield Comparison(opinions)
    text, verdict, _ = reasoner.compare([problem], [(response, other)])[0]
    yield Comparison(opinions, ((text, verdict),))
    turned, back, _ = reasoner.compare([problem], [(other, response)])[0]
    named = TURNED[back]
    yield Comparison(opinions, ((text, verdict), (turned, named)), ended=True)


def _with(reasoner: Reasoner, rounds: int) -> Reasoner:
    """The model with so many rounds, from one answer."""
    config = reasoner.config.changed(rounds=max(0, min(MOST_ROUNDS, rounds)), select="last", samples=1)
    return replace(reasoner, config=config)
