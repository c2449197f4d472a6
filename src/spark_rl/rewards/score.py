"""All reward functions on one batch of responses: what each gave, and where one failed.

Functions that are ``async`` run at the same time, then the others one after the other in the order of the settings. One
that fails does not touch the others. What fails is said once a run, in one line with the first error, and once more
when a function has failed :data:`IN_A_ROW` times in a row; the share of responses it has no value for is the metric
``reward_failed/NAME``.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spark_rl.config import RewardConfig
from spark_rl.data.rowimages import RowImage
from spark_rl.errors import ConfigError
from spark_rl.problem import Problem
from spark_rl.rewards.base import Reward, WeightedReward
from spark_rl.rewards.call import Caller, Outcome
from spark_rl.rewards.load import load_rewards

IN_A_ROW = 3
"""Failed calls of one function, one after the other, after which a hint is given."""

OURS = ("prompts", "completions", "completion_ids", "question", "answer", "id", "task", "images")
"""Arguments that columns of the same name do not replace."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the functions gave one response: ``Score({"format": 1.0, "length": None}, failed=("length",))``."""

    values: Mapping[str, float | None]
    """Function -> its number, ``None`` if it gave none."""
    failed: tuple[str, ...] = ()
    """Functions that failed on this response: with an error, in time, or with a value that is no number."""
    spoilt: bool = False
    """Whether one of them, with a weight, gave this response something that is no number: it earns nothing then, or
    making a function stumble would pay."""


@dataclass(slots=True)
class RewardSet:
    """The reward functions of a run. Close it to end their event loops."""

    rewards: Sequence[WeightedReward]
    timeout: float = 60.0
    """Seconds that a function may take for one batch."""
    note: Callable[[str], None] = print
    """Is told of failures, in one line each."""
    _callers: dict[str, Caller] = field(init=False, repr=False)
    _in_a_row: dict[str, int] = field(init=False, default_factory=dict, repr=False)
    _noted: set[str] = field(init=False, default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._callers = {reward.called: Caller(reward.function) for reward in self.rewards}

    def check(self, problems: Sequence[Problem]) -> None:
        """Raises :class:`ConfigError` if a function needs an argument that no problem has."""
        known = dict.fromkeys((*OURS, *(name for problem in problems for name in problem.columns)))
        for reward in self.rewards:
            missing = [name for name in _named(reward)[1] if name not in known]
            if missing:
                raise ConfigError(
                    f"the reward function {reward.called} needs {missing[0]!r}, which is no column of the data; "
                    f"there are: {', '.join(known)}; give it a default or take **columns"
                )

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[str],
        ids: Sequence[Sequence[int]] | None = None,
        alone: bool = True,
    ) -> list[Score]:
        """What each function says of each completion; the arguments have one item for each.

        ``alone`` says that nothing else grades them: a function that applies to none has failed, if no other does.
        """
        if not completions:
            return []
        columns = _columns(problems, prompts, completions, ids)
        outcomes: dict[str, Outcome] = {}
        at_once = [reward for reward in self.rewards if self._callers[reward.called].is_async]
        for group in (at_once, *([reward] for reward in self.rewards if reward not in at_once)):
            for reward in group:
                self._callers[reward.called].begin(_arguments(reward, columns, len(completions)), self.timeout)
            for reward in group:
                outcomes[reward.called] = self._callers[reward.called].end(len(completions))
        if alone and not any(value is not None for outcome in outcomes.values() for value in outcome.values):
            silent = Outcome(error="it returned None for every response, and nothing else graded them")
            fine = [name for name, outcome in outcomes.items() if not outcome.error and not any(outcome.refused)]
            outcomes |= dict.fromkeys(fine, silent)
        for name, outcome in outcomes.items():
            self._tell(name, outcome, len(completions))
        return [self._score(place, outcomes) for place in range(len(completions))]

    def close(self) -> None:
        """Leave what still runs."""
        for caller in self._callers.values():
            caller.close()

    def _score(self, place: int, outcomes: Mapping[str, Outcome]) -> Score:
        values: dict[str, float | None] = {}
        failed, spoilt = [], False
        for reward in self.rewards:
            outcome = outcomes[reward.called]
            values[reward.called] = None if outcome.error else outcome.values[place]
            if outcome.error or outcome.refused[place]:
                failed.append(reward.called)
                spoilt |= not outcome.error and reward.weight > 0
        return Score(values, tuple(failed), spoilt)

    def _tell(self, name: str, outcome: Outcome, count: int) -> None:
        """Say what failed, the first time and when it goes on."""
        refused = [value for value in outcome.refused if value]
        why = outcome.error or (f"it gave {len(refused)} of {count} responses no usable number: {refused[0]}"
                                if refused else "")  # fmt: skip
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1 if why else 0
        if why and name not in self._noted:
            self._noted.add(name)
            self.note(f"the reward function {name} failed: {why}; the run goes on, and reward_failed/{name} counts")
        if self._in_a_row[name] == IN_A_ROW:
            self.note(
                f"the reward function {name} has failed {IN_A_ROW} times in a row, last: {why}; stop the run, mend it, "
                "and go on with --resume, or take it out of reward.function"
            )


def open_rewards(
    config: RewardConfig, given: Sequence[Reward | WeightedReward] = (), note: Callable[[str], None] = print
) -> RewardSet | None:
    """The functions of ``reward.function`` and those given from Python; ``None`` where the verifier alone grades.

    Raises:
        ConfigError: one can't be loaded, or nothing has a weight.
    """
    rewards = load_rewards(config, given)
    return RewardSet(rewards, config.timeout, note) if rewards else None


def _columns(
    problems: Sequence[Problem], prompts: Sequence[str], completions: Sequence[str], ids: Sequence[Sequence[int]] | None
) -> dict[str, list[Any]]:
    """Everything a function may ask for, by the names it may ask with."""
    names = dict.fromkeys(name for problem in problems for name in problem.columns)
    columns: dict[str, list[Any]] = {name: [p.columns.get(name) for p in problems] for name in names}
    columns |= {
        "prompts": list(prompts),
        "completions": list(completions),
        "question": [problem.question for problem in problems],
        "answer": [problem.answer for problem in problems],
        "id": [problem.id for problem in problems],
        "task": [problem.task for problem in problems],
    }
    if ids is not None:
        columns["completion_ids"] = [list(each) for each in ids]
    if any(problem.images for problem in problems):
        columns["images"] = [list(problem.images) for problem in problems]
    return columns


def _arguments(reward: WeightedReward, columns: Mapping[str, list[Any]], count: int) -> dict[str, list[Any]]:
    """Those of the columns that the function takes, its own copies; what no row of this batch has is all ``None``."""
    named, needed, takes_all = _named(reward)
    names = [*columns, *(name for name in needed if name not in columns)] if takes_all else named
    if "images" in names and "images" in columns:
        columns = {**columns, "images": _read(columns["images"])}
    return {
        name: [_own(value) for value in columns[name]] if name in columns else [None] * count
        for name in names
        if name in columns or name in needed
    }


def _read(images: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The images of each response; those that lie in rows of a file are read, each once."""
    known: dict[RowImage, object] = {}
    for image in itertools.chain.from_iterable(images):
        if isinstance(image, RowImage) and image not in known:
            known[image] = image.read()
    return [[known[image] if isinstance(image, RowImage) else image for image in row] for row in images]


def _own(value: Any) -> Any:
    return copy.deepcopy(value) if isinstance(value, list | dict) and value else value


def _named(reward: WeightedReward) -> tuple[list[str], list[str], bool]:
    """(arguments that the function names, those without a default, whether it takes any others)."""
    try:
        parameters = inspect.signature(reward.function).parameters.values()
    except (TypeError, ValueError):  # of functions written in C
        return [], [], True
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return [p.name for p in named], [p.name for p in named if p.default is p.empty], takes_all
