"""What every engine promises: prompts in, sampled completions with exact log-probabilities out, and never a label."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from spark_rl.chat import Prompt
from spark_rl.errors import EngineError
from spark_rl.problem import Completion

if TYPE_CHECKING:  # it needs torch, and engines of servers do not
    from spark_rl.model.weights import Weights

ROUNDING = 1e-3
"""What rounding may leave a log-probability above 0, in nats."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. There is no top-p or top-k: both bias the importance ratio while training."""

    n: int = 1
    """Completions per prompt."""
    temperature: float = 1.0
    """0 is greedy; the log-probabilities are then those of temperature 1."""
    max_new_tokens: int = 768
    """Completions are cut here."""
    seed: int = 0
    """Same prompts, same sampling, same weights: same completions."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion, beside those of its prompt; they are cut from its text but kept in its tokens."""
    repetition_penalty: float = 1.0
    """Logits of tokens that the prompt or the completion already holds are divided by it where they are positive and
    multiplied where they are negative (Keskar et al. 2019, https://arxiv.org/abs/1909.05858). Not while training: it
    is 1 there, which does nothing."""
    first: int = 0
    """The place of the first prompt of a call in the whole batch. Prompt i of the call draws from a random stream that
    is a function of ``seed`` and ``first + i`` alone, so that a batch may be split over calls and engines: what is
    drawn stays the same, but for the rounding of logits."""
    top: int = 0
    """How many of the most likely tokens are told at each place, as :attr:`Completion.top`, under the distribution of
    the log-probabilities. An engine that can't tell them leaves it empty; what is drawn stays the same."""


class Engine(Protocol):
    """Generates completions. Implementations differ in where the weights live."""

    @property
    def version(self) -> int:
        """Which policy generates: that of the weights that were synchronised last, 0 before."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions for each prompt, in the order of the prompts, each with the engine's version."""
        ...

    def sync(self, weights: Weights) -> None:
        """Take over the learner's weights; completions are those of ``weights.version`` from now on."""
        ...

    def sleep(self) -> None:
        """Give the memory of the accelerator to the learner, as far as the engine can."""
        ...

    def wake(self) -> None:
        """Be ready to generate again."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class Around:
    """An engine around another, which does what its class does not say itself; how it generates it says itself."""

    engine: Engine

    @property
    def version(self) -> int:
        """Which policy generates."""
        return self.engine.version

    def sync(self, weights: Weights) -> None:
        """Take over the learner's weights."""
        self.engine.sync(weights)

    def sleep(self) -> None:
        """Give the memory of the accelerator to the learner."""
        self.engine.sleep()

    def wake(self) -> None:
        """Be ready to generate again."""
        self.engine.wake()

    def close(self) -> None:
        """Free what the engine holds."""
        self.engine.close()


def stretches(count: int, parts: int) -> list[range]:
    """``count`` places in ``parts`` stretches that differ by one at most, for processes that share a batch."""
    return [range(count * k // parts, count * (k + 1) // parts) for k in range(parts)]


Arrival = tuple[int, list[Completion]]
"""The place of a prompt in its call, from 0, and its completions."""


class Arriving(Protocol):
    """What an engine may have besides: it hands over a prompt's completions as soon as all of them are there.

    They are graded then, while the engine goes on. Engines without it are asked by ``generate``.
    """

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        """What :meth:`Engine.generate` returns, a prompt at a time: each once, in the order in which they are done.

        Whoever asks may close the iterator before its end, which ends the sampling.
        """
        ...


def arrivals(engine: Engine, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[Arrival]:
    """What an engine gives for each prompt: as it is done if the engine is :class:`Arriving`, else all at the end.

    A class that inherits ``arriving`` and has a ``generate`` of its own is asked by that: it may give something else.
    """
    for holder in (engine, *type(engine).__mro__):
        own = getattr(holder, "__dict__", {})
        if "arriving" in own:
            yield from cast("Arriving", engine).arriving(prompts, sampling)
            return
        if "generate" in own:
            break
    drawn = engine.generate(prompts, sampling)
    check_count(drawn, len(prompts), engine)
    yield from enumerate(drawn)


def check_count(drawn: Any, prompts: int, engine: Engine) -> None:
    """Whether :meth:`Engine.generate` gave completions for each of so many prompts.

    Raises:
        EngineError: it did not.
    """
    name = type(innermost(engine)).__name__
    if not isinstance(drawn, list | tuple) or not all(isinstance(group, list | tuple) for group in drawn):
        raise EngineError(f"{name} gave a {type(drawn).__name__} of something else than lists of completions")
    if len(drawn) != prompts:
        raise EngineError(f"{name} gave completions for {len(drawn)} prompts and was asked {prompts}")


def gathered(arrived: Iterator[Arrival], prompts: int) -> list[list[Completion]]:
    """The completions of each prompt, in the order of the prompts: :meth:`Engine.generate` of an engine that is
    :class:`Arriving`."""
    found: list[list[Completion]] = [[] for _ in range(prompts)]
    for place, completions in arrived:
        found[place] = completions
    return found


def innermost(engine: Engine) -> Engine:
    """The engine itself, beneath those of this package that wrap one, as their ``engine``."""
    while type(engine).__module__.startswith("spark_rl.") and hasattr(engine, "engine"):
        engine = engine.engine
    return engine
