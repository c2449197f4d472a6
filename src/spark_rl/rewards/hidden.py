"""Problems without a gold answer: those whose answer is hidden (``reward.self.hidden``), and those that have none.

A hidden answer is taken off its problem before anything sees it: the batches that a run trains on do not have it, so
that it can reach no reward, no prompt and no recycled label. Which answers are hidden is a function of the run's seed
and the problem's id, the same in each pass and after a resume; a larger share hides what a smaller one hides, and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spark_rl.config import Config
from spark_rl.data.batches import Batches
from spark_rl.errors import ConfigError
from spark_rl.problem import Kind, Problem
from spark_rl.seeds import stream_seed
from spark_rl.verify.grade import grade
from spark_rl.verify.notation import canonical

_RANGE = 2**56
"""What :func:`spark_rl.seeds.stream_seed` draws from."""


def is_hidden(problem_id: str, share: float, seed: int) -> bool:
    """Whether the gold answer of the problem with this id is among the ``share`` that a run of ``seed`` hides."""
    return stream_seed(seed, "hidden", problem_id) < share * _RANGE


def is_gold(text: str, kind: Kind, choices: Sequence[str] = ()) -> bool:
    """Whether the verifier can compare answers of this kind with ``text``."""
    try:
        grade("", text, kind, choices)
        if kind == "math":
            canonical(text)
    except ValueError:  # empty, no letter of an option, or nothing that can be read
        return False
    return True


def has_gold(problem: Problem) -> bool:
    """Whether a problem has gold answers, all of which the verifier can compare with."""
    return all(is_gold(gold, problem.kind, problem.choices) for gold in problem.golds)


@dataclass(frozen=True, slots=True)
class Hidden:
    """Batches in which some problems have no gold answer, and the others are as they were."""

    batches: Batches
    share: float
    """Of the gold answers, how many are hidden."""
    seed: int
    """That of the run."""

    def of(self, step: int) -> list[Problem]:
        """See :class:`spark_rl.data.batches.Batches`."""
        return [
            replace(problem, answer="", alternatives=())
            if is_hidden(problem.id, self.share, self.seed) or not has_gold(problem)
            else problem
            for problem in self.batches.of(step)
        ]


def with_hidden(batches: Batches, problems: Sequence[Problem], config: Config) -> Batches:
    """The batches as ``reward.self`` wants them; without it they stay as they are.

    Raises:
        ConfigError: the run is to check pseudo golds, and none of ``problems``, all that there are, has a gold answer.
    """
    settings = config.reward.self
    if settings is None:
        return batches
    if settings.floor is not None and problems and not any(map(has_gold, problems)):
        raise ConfigError("no training problem has a gold answer, so reward.self has nothing to check on; add some, or "
                          "set reward.self.floor=null to train without a guard")  # fmt: skip
    return Hidden(batches, settings.hidden, config.seed)
