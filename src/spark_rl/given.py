"""What Python hands a run in place of what its configuration names, and the problems that a run learns from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from spark_rl.config import IN_MEMORY, Config
from spark_rl.data import load_problems, remove_overlap
from spark_rl.data.batches import Streamed
from spark_rl.engine.base import Engine
from spark_rl.errors import ConfigError
from spark_rl.model.loaded import LoadedModel
from spark_rl.problem import Problem
from spark_rl.rewards import Reward, WeightedReward, has_gold, needs_of_rows


@dataclass(frozen=True, slots=True)
class Given:
    """What a run is handed from Python in place of what its configuration names."""

    model: LoadedModel | None = None
    """A model in memory, in place of ``model.path``."""
    reference: LoadedModel | None = None
    """What ``model`` was before it was trained, in place of ``model.path`` as the reference of the KL term."""
    train: Sequence[Problem] | None = None
    """Problems, in place of ``data.train``."""
    batches: Streamed | None = None
    """A stream of problems, in place of ``data.train``; needs ``train.steps``."""
    heldout: Sequence[Problem] | None = None
    """Problems, in place of ``data.heldout``."""
    rewards: tuple[Reward | WeightedReward, ...] = ()
    """Reward functions, beside those of ``reward.function``."""
    transfer: Sequence[Problem] | None = None
    """Problems, in place of ``data.transfer``."""
    engine: Engine | None = None
    """What generates, in place of the engine of ``config.engine``; it is given the weights before the first step."""

    def check(self, config: Config) -> None:
        """Whether all is here that a configuration says was given from Python.

        Raises:
            ConfigError: it is not; one line that says how the run goes on.
        """
        if config.cluster.learners and (self.model is not None or self.reference is not None):
            raise ConfigError("cluster.learners trains in other processes, which can't have a model that is in memory "
                              "here; give its folder or name as model.path")  # fmt: skip
        train = self.batches if self.train is None else self.train
        for key, value, here in (
            ("model.path", config.model.path, self.model),
            ("data.train", config.data.train, train),
            ("data.heldout", config.data.heldout, self.heldout),
            ("data.transfer", config.data.transfer, self.transfer),
        ):
            if here is None and isinstance(value, str) and value.startswith(IN_MEMORY):
                raise ConfigError(f"{key} is {value!r}: it was given from Python, where the run goes on with "
                                  "SparkTrainer(...).train(resume_from_checkpoint=True)")  # fmt: skip


def load_all_problems(
    config: Config, given: Given | None = None
) -> tuple[tuple[Problem, ...], dict[str, tuple[Problem, ...]]]:
    """Training problems, and the held-out and transfer problems by name, none of which is trained on.

    What is split off the training data is in no other exam: files are read first, then each split is drawn from what is
    left of the data.
    """
    given = given or Given()
    needs = needs_of_rows(config.reward, given.rewards)
    load = partial(load_problems, columns=needs.columns, golds=needs.golds)
    if given.batches is not None:
        problems: tuple[Problem, ...] = ()
    elif given.train is not None:
        problems = tuple(given.train)
    else:
        problems = load(config.data.train, config.data, "train", golds=needs.golds and config.reward.self is None)
    sources = {"heldout": config.data.heldout, "transfer": config.data.transfer}
    exams: dict[str, tuple[Problem, ...]] = {}
    for role, exam in (("heldout", given.heldout), ("transfer", given.transfer)):
        if exam is not None:
            sources[role], exams[role] = None, tuple(exam)
    splits = {name: source for name, source in sources.items() if source is not None and source.startswith("split:")}
    for name in ("heldout", "transfer"):
        if (source := sources[name]) is not None and name not in splits:
            exams[name] = load(source, config.data, name)
    if given.batches is not None:
        given.batches.hold_out([problem for exam in exams.values() for problem in exam])
    problems, _ = remove_overlap(problems, [problem for exam in exams.values() for problem in exam])
    for name, source in splits.items():
        answered = problems if config.reward.self is None else tuple(filter(has_gold, problems))
        count = _split_size(name, source, len(answered))
        exams[name] = tuple(random.Random(f"split:{config.seed}").sample(answered, count))
        problems, _ = remove_overlap(problems, exams[name])
    return problems, {name: exams[name][: config.evaluation.problems] for name in sources if name in exams}


def _split_size(name: str, source: str, available: int) -> int:
    """N of ``split:N``. Raises :class:`ConfigError` if it is not a number that leaves something to train on."""
    if not available:
        raise ConfigError(f"data.{name} {source!r}: nothing can be split off a stream, or off "
                          "problems without answers; name other problems, or null")  # fmt: skip
    text = source.removeprefix("split:")
    if not text.isdecimal() or not 0 < int(text) < available:
        raise ConfigError(f"data.{name} {source!r}: N in split:N must be from 1 to {available - 1}, what the data has")
    return int(text)
