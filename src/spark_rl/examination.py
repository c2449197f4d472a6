"""The held-out evaluations of a run: before it, every ``train.eval_every`` steps, and after it.

What is measured is remembered in the run directory, so a resumed run measures nothing twice: ``pairs.json`` and
``before.json`` are of the untrained model, ``evaluations.jsonl`` holds one record a step that was evaluated. Which one
was best, and how many have passed since, follows from that log: a checkpoint holds nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spark_rl.checkpoint import remembered
from spark_rl.config import TrainConfig
from spark_rl.evals.heldout import Counter, HeldOutEvaluation, Pair, Scores, draw_pairs
from spark_rl.inference import Reasoner
from spark_rl.problem import Problem
from spark_rl.report.comparison import MEASURES
from spark_rl.report.metrics import MetricsLog, finite, read_metrics
from spark_rl.report.watch import Watcher
from spark_rl.rewards import Grader

DURING = "heldout"
"""The exam that is taken during training, too."""

_LOWER = {measure.key for measure in MEASURES if measure.lower_is_better}


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far: ``Best("tts_accuracy", step=30, score=0.48, since=2)``."""

    metric: str
    step: int
    score: float
    since: int
    """Evaluations that came after it."""


@dataclass(slots=True)
class Examination:
    """The exams of one run, and what they gave so far."""

    run_dir: Path
    exams: Mapping[str, Sequence[Problem]]
    settings: TrainConfig
    reasoner: Callable[[], Reasoner]
    """The model with its current weights."""
    grader: Grader
    """What says which answers are right."""
    watcher: Watcher
    pairs: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    """Those of ``evaluations.jsonl``."""

    def before(self, step: int) -> dict[str, Scores]:
        """The scores of the untrained model, and the pairs that it compares before and after.

        Args:
            step: how far the run is: later than 0 they can't be measured any more.

        Raises:
            ConfigError: what was measured is lost or damaged.
        """
        self.pairs = remembered(self.run_dir / "pairs.json", self._draw_pairs, self._are_pairs, step)
        return remembered(
            self.run_dir / "before.json", lambda: self._examine(self.exams, "before training"), self._are_scores, step
        )

    def open(self, step: int) -> None:
        """Read the evaluations of earlier sessions, up to the step that the run goes on from."""
        path = self.run_dir / "evaluations.jsonl"
        if path.exists():
            with MetricsLog(path) as log:
                log.truncate(step)
            self.records = read_metrics(path)

    def is_due(self, step: int, *, last: bool) -> bool:
        """Whether a finished step wants an evaluation that is not there yet."""
        every = self.settings.eval_every
        return every is not None and step > 0 and (last or step % every == 0) and self._of(step) is None

    def during(self, step: int) -> None:
        """Evaluate the held-out problems after a step."""
        scores = self._examine({DURING: self.exams[DURING]}, f"at step {step}")[DURING]
        self.records = [record for record in self.records if record["step"] != step]
        self.records.append({"step": step, **scores})
        with MetricsLog(self.run_dir / "evaluations.jsonl") as log:
            log.truncate(step - 1)
            log.append(self.records[-1])
        self.watcher.evaluated(step, scores)

    def after(self, step: int) -> dict[str, Scores]:
        """The scores of the trained model; an evaluation of its last step is not repeated."""
        known = self._of(step)
        done = {} if known is None else {DURING: {name: value for name, value in known.items() if name != "step"}}
        rest = {name: exam for name, exam in self.exams.items() if name not in done}
        measured = done | self._examine(rest, "after training")
        return {name: measured[name] for name in self.exams}

    @property
    def best(self) -> Best | None:
        """The first of the best evaluations by ``train.best``; ``None`` without that setting or a score."""
        metric = self.settings.best
        if metric is None:
            return None
        sign = -1 if metric in _LOWER else 1
        scored = [(at, score) for at, record in enumerate(self.records)
                  if (score := finite(record.get(metric))) is not None]  # fmt: skip
        if not scored:
            return None
        at, score = max(scored, key=lambda entry: sign * entry[1])
        return Best(metric, int(self.records[at]["step"]), score, len(self.records) - 1 - at)

    def why_to_stop(self) -> str | None:
        """Why the run ends here, if ``train.patience`` is used up."""
        best, patience = self.best, self.settings.patience
        if best is None or patience is None or best.since < patience:
            return None
        passed = "fallen below" if best.metric in _LOWER else "risen above"
        return f"{best.metric} has not {passed} {best.score:.3f} (step {best.step}) in {best.since} evaluations"

    def _of(self, step: int) -> dict[str, Any] | None:
        """The record of a step."""
        return next((record for record in self.records if record["step"] == step), None)

    def _examine(self, exams: Mapping[str, Sequence[Problem]], when: str) -> dict[str, Scores]:
        """The scores of some exams with the current weights."""
        scores = {}
        for name, problems in exams.items():
            self.watcher.phase(f"evaluating {len(problems)} {name} problems {when}")
            compared = [Pair(**pair) for pair in self.pairs[name]]
            scores[name] = HeldOutEvaluation(
                self.reasoner(), self.grader, problems, compared, self.watcher.progress
            ).run()
        return scores

    def _draw_pairs(self) -> dict[str, list[dict[str, str]]]:
        """The pairs of responses that the model compares before and after training, by exam, as JSON values."""
        if self.exams:
            self.watcher.phase("drawing pairs of responses to compare")
        drawn = {}
        counter = Counter(sum(map(len, self.exams.values())), self.watcher.progress)
        for name, exam in self.exams.items():
            drawn[name] = [asdict(pair) for pair in draw_pairs(self.reasoner(), self.grader, exam)]
            counter.add(len(exam))
        return drawn

    def _are_pairs(self, content: Any) -> bool:
        """Whether a value is what :meth:`_draw_pairs` returns for these exams."""
        names = {"problem", "first", "second", "label"}
        return isinstance(content, dict) and all(
            isinstance(content.get(exam), list)
            and all(isinstance(pair, dict) and pair.keys() == names for pair in content[exam])
            and {pair["problem"] for pair in content[exam]} <= {problem.id for problem in problems}
            for exam, problems in self.exams.items()
        )

    def _are_scores(self, content: Any) -> bool:
        """Whether a value holds scores of these exams."""
        return isinstance(content, dict) and all(
            isinstance(content.get(exam), dict)
            and all(value is None or finite(value) is not None for value in content[exam].values())
            for exam in self.exams
        )
