"""The before-and-after numbers of a run, on problems that were never trained on (paper Sec. 4.4 and Table 5).

All are shares from 0 to 1, measured greedily unless the configuration's ``inference`` says otherwise:

- ``policy_accuracy``: first answers that are right.
- ``judge_accuracy``, ``judge_precision``, ``judge_recall``, ``judge_f1``: the model judging those very answers,
  pointwise; "right" is the positive class (Fig. 4). An unreadable verdict counts as a wrong judgement and as not
  saying Yes; ``judge_unreadable`` is its share.
- ``pairwise_accuracy``: which of two of its own responses is right, one right and one with a wrong answer per problem,
  order random.
- ``reflection_fix``: wrong answers that a reflection turns right; ``reflection_break``: right answers it turns wrong.
  Both ask for the reflection whatever the judge would have said.
- ``tts_accuracy``: final answers after ``inference.rounds`` rounds of judging and reflecting (Eq. 11).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from spark_rl.engine.base import Sampling
from spark_rl.inference import Reasoner
from spark_rl.problem import STATUSES, Problem, Verdict
from spark_rl.rollout import stream_seed
from spark_rl.verify import Verifier

PAIR_SAMPLES = 8
"""Responses drawn a problem, at temperature 1, to find a right and a wrong one to compare."""

Scores = dict[str, float | None]
"""Metric name -> share, or ``None`` where there was nothing to measure (no wrong answer to fix, say)."""


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """Runs every measurement of this module on one set of problems; ``status/...`` are counts of first answers."""

    reasoner: Reasoner
    verifier: Verifier
    problems: Sequence[Problem]

    def run(self) -> Scores:
        """All scores, with ``n``, the number of problems."""
        first = self.reasoner.answer(self.problems)
        verdicts = self._verdicts(self.problems, [r.response for r in first])
        right = [verdict.status == "correct" for verdict in verdicts]
        scores: Scores = {"n": float(len(self.problems)), "policy_accuracy": _share(right)}
        scores |= {f"status/{s}": float(sum(v.status == s for v in verdicts)) for s in STATUSES}
        scores |= self._judging([r.response for r in first], right)
        scores |= self._pairwise()
        scores |= self._reflection([r.response for r in first], right)
        traces = self.reasoner.solve(self.problems, first)
        scores["tts_accuracy"] = _share(self._right(self.problems, [t.response for t in traces]))
        return scores

    def _verdicts(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        items = [(text, p.golds, p.kind, p.choices) for p, text in zip(problems, responses, strict=True)]
        return self.verifier.verify_many(items)

    def _right(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[bool]:
        return [verdict.status == "correct" for verdict in self._verdicts(problems, responses)]

    def _judging(self, responses: Sequence[str], right: Sequence[bool]) -> Scores:
        said = [accepted for _, accepted, _ in self.reasoner.judge(self.problems, responses)]
        hits = sum(accepted is True and truth for accepted, truth in zip(said, right, strict=True))
        precision = hits / said.count(True) if said.count(True) else None
        recall = hits / sum(right) if any(right) else None
        f1 = None
        if precision is not None and recall is not None:
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {
            "judge_accuracy": _share([accepted is truth for accepted, truth in zip(said, right, strict=True)]),
            "judge_precision": precision,
            "judge_recall": recall,
            "judge_f1": f1,
            "judge_unreadable": _share([accepted is None for accepted in said]),
        }

    def _pairwise(self) -> Scores:
        reasoner = self.reasoner
        rng = random.Random(stream_seed(reasoner.seed, "pairs"))
        sampling = Sampling(
            PAIR_SAMPLES, 1.0, reasoner.config.max_new_tokens, stream_seed(reasoner.seed, "pair-samples"),
            reasoner.chat.stop,
        )  # fmt: skip
        drawn = reasoner.complete(self.problems, sampling)
        texts = [[c.text for c in completions] for completions in drawn]
        verdicts = iter(
            self._verdicts(
                [p for p in self.problems for _ in range(PAIR_SAMPLES)], [text for group in texts for text in group]
            )
        )
        problems, pairs, labels = [], [], []
        for problem, group in zip(self.problems, texts, strict=True):
            graded = [(text, next(verdicts).status) for text in group]
            right = [text for text, status in graded if status == "correct"]
            wrong = [text for text, status in graded if status == "wrong"]
            if not right or not wrong:
                continue
            good, bad = rng.choice(right), rng.choice(wrong)
            label = rng.choice(("A", "B"))
            problems.append(problem)
            pairs.append((good, bad) if label == "A" else (bad, good))
            labels.append(label)
        said = [choice for _, choice, _ in reasoner.compare(problems, pairs)]
        share = _share([choice == label for choice, label in zip(said, labels, strict=True)])
        return {"pairwise_accuracy": share, "pairwise_accuracy_n": float(len(labels))}

    def _reflection(self, responses: Sequence[str], right: Sequence[bool]) -> Scores:
        again = self.reasoner.reflect(self.problems, responses)
        after = self._right(self.problems, [r.response for r in again])
        return {
            "reflection_fix": _share([now for now, before in zip(after, right, strict=True) if not before]),
            "reflection_break": _share([not now for now, before in zip(after, right, strict=True) if before]),
        }


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
