"""Our steps, for ``benchmarks/steps.py``: one process, told what to do by a JSON file.

It is the run that ``spark-rl train`` does, without an examination; seconds of an update's parts come from hooks on the
modules and the optimiser of its learner.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from roofline import Asked
from step_shapes import Shape, config_of, problems_of
from torch import nn
from transformers.utils import logging

from spark_rl.config import Config
from spark_rl.cost.memory import peak_mib
from spark_rl.doctor.card import settle
from spark_rl.given import Given
from spark_rl.learner.base import Learner, Span
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.samples import to_samples
from spark_rl.model.weights import Weights
from spark_rl.problem import Group
from spark_rl.report.watch import Silent
from spark_rl.run import Run

TIMED = {"rollout": "time/sample", "verify": "time/verify", "recycle": "time/recycle"}
"""Phases that the step's own clock knows, by their names in its metrics."""


class Watched:
    """The learner of a run, with the seconds of the parts of its updates and what it was given to train on."""

    def __init__(self, learner: LocalLearner, config: Config) -> None:
        self.learner, self.config, self.began = learner, config, 0.0
        self.seconds: dict[str, float] = {}
        self.updates: list[list[Asked]] = []
        """Of this step."""
        self._time(learner.scorer, "forward")
        if learner.reference is not None:
            self._time(learner.reference, "reference")
        learner.optimiser.register_step_pre_hook(lambda *_: self._begin())
        learner.optimiser.register_step_post_hook(lambda *_: self._end("optimiser"))

    def _time(self, scorer: nn.Module, phase: str) -> None:
        scorer.register_forward_pre_hook(lambda *_: self._begin())
        scorer.register_forward_hook(lambda *_: self._end(phase))

    def _begin(self) -> None:
        settle(self.learner.loaded.device)
        self.began = time.perf_counter()

    def _end(self, phase: str) -> None:
        settle(self.learner.loaded.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - self.began

    def update(self, groups: Sequence[Group], span: Span | None = None) -> dict[str, float]:
        """See :meth:`spark_rl.learner.base.Learner.update`."""
        trained: dict[int, list[int]] = {}
        for sample in to_samples(groups, self.config)[0]:
            if sample.advantage != 0.0 or self.config.objective.kl > 0:
                trained.setdefault(sample.group, []).append(len(sample.token_ids))
        self.updates.append([
            Asked(len(group.prompt_ids), [r.completion.tokens for r in group.rollouts], trained.get(number, []))
            for number, group in enumerate(groups)
        ])  # fmt: skip
        began = time.perf_counter()
        metrics = self.learner.update(groups, span)
        self.seconds["update"] = self.seconds.get("update", 0.0) + time.perf_counter() - began
        return metrics

    def weights(self) -> Weights:
        """See :meth:`spark_rl.learner.base.Learner.weights`."""
        return self.learner.weights()


class Marks(Silent):
    """What is known at the end of each step."""

    def __init__(self) -> None:
        self.watched: Watched | None = None
        self.steps: list[dict[str, Any]] = []

    def step(self, metrics: Mapping[str, Any]) -> None:
        """One more."""
        assert self.watched is not None, "the run was made before its first step"
        used, seconds = resource.getrusage(resource.RUSAGE_SELF), self.watched.seconds
        parts = {name: seconds.get(name, 0.0) for name in ("reference", "forward", "optimiser")}
        phases = {name: float(metrics.get(key, 0.0)) for name, key in TIMED.items()} | parts
        peak = peak_mib(self.watched.learner.loaded.device)
        phases["backward"] = seconds.get("update", 0.0) - sum(parts.values())
        self.steps.append({
            "clock": time.perf_counter(), "cpu": used.ru_utime + used.ru_stime, "peak_mib": peak,
            "phases": phases, "flat": [metrics[name] for name in ("flat", "flat/recycled") if name in metrics],
            "updates": [[asdict(one) for one in asked] for asked in self.watched.updates],
        })  # fmt: skip
        self.watched.seconds, self.watched.updates = {}, []


def train(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a job."""
    shape = Shape(**job["shape"])
    with TemporaryDirectory() as folder:
        config = config_of(
            shape, Path(job["model"]), Path(folder) / "run", spark=job["tool"] == "spark", kl=job["kl"],
            dtype=job["dtype"], threads=job["threads"], steps=job["steps"],
            device=job["device"], decoding=job["decoding"],
        )  # fmt: skip
        marks = Marks()
        with Run(config, watcher=marks, given=Given(train=problems_of(shape, config))) as run:
            assert isinstance(run.learner, LocalLearner), "one process, one device"
            marks.watched = Watched(run.learner, run.config)
            run.loop.learner = cast("Learner", marks.watched)  # the loop asks for no more
            run.train()
    return marks.steps


def main() -> None:
    """Train, and print what each step took."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(json.dumps(train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
