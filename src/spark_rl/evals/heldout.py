"""The before-and-after numbers of a run, on problems that were never trained on (paper Sec. 4.4 and Table 5).

All are shares from 0 to 1, measured greedily unless the configuration's ``inference`` says otherwise; ``<name>_low``
and ``<name>_high`` are the ends of the 95 % interval:

- ``policy_accuracy``: first answers that are right.
- ``judge_...``: the model judging those very answers, pointwise (Fig. 4): ``accuracy``, ``balanced_accuracy``,
  ``constant_accuracy`` (of always saying the commoner of Yes and No), ``precision``, ``recall``, ``f1`` and
  ``unreadable``, as :mod:`spark_rl.evals.judge_accuracy` defines them.
- ``judge_ece``, ``judge_brier``, ``judge_auroc``: how far P(Yes) of those verdicts can be taken at its word
  (:mod:`spark_rl.evals.calibration`), where the engine tells log-probabilities.
- ``pairwise_accuracy``: which of two responses is right, one right and one with a wrong answer per problem, order
  random. The pairs are drawn from the model before training, so that before and after compare the same pairs.
- ``reflection_fix``: wrong answers that a reflection turns right; ``reflection_break``: right answers it turns wrong.
  Both ask for the reflection whatever the judge would have said. A reflection without a readable answer changes
  nothing, as at test time.
- ``tts_accuracy``: final answers after ``inference.rounds`` rounds of judging and reflecting (Eq. 11), or those that
  ``inference.select`` chooses.

Nothing is asked twice: the first answers and their judgements are those that test-time scaling begins with, and so are
their reflections if ``inference.reflect_temperature`` is 0. Sampled reflections are drawn anew for the rejected
answers, because the random numbers of a batch depend on who is in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_rl.engine.base import Sampling
from spark_rl.evals.calibration import calibration_shares
from spark_rl.evals.judge_accuracy import Judged, judge_accuracy
from spark_rl.evals.outcomes import Outcomes
from spark_rl.inference import Reasoner, Round, standing
from spark_rl.intervals import wilson
from spark_rl.problem import STATUSES, Problem
from spark_rl.rewards import Grader
from spark_rl.seeds import stream_seed

PAIR_SAMPLES = 8
"""Responses drawn a problem, at temperature 1, to find a right and a wrong one to compare."""

Scores = dict[str, float | None]
"""Metric name -> share, or ``None`` where there was nothing to measure (no wrong answer to fix, say)."""

_JUDGE = {
    "accuracy": "judge_accuracy",
    "balanced_accuracy": "judge_balanced_accuracy",
    "constant_accuracy": "judge_constant_accuracy",
    "precision": "judge_precision",
    "recall": "judge_recall",
    "f1": "judge_f1",
    "unparsable_rate": "judge_unreadable",
    "ece": "judge_ece",
    "brier": "judge_brier",
    "auroc": "judge_auroc",
}
"""Name in :mod:`spark_rl.evals.judge_accuracy` and :mod:`spark_rl.evals.calibration` -> name here."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one held-out problem, one right and one wrong.

    ``Pair("missing-17", first="...\\\\boxed{4}", second="...\\\\boxed{7}", label="B")``
    """

    problem: str
    """The problem's id."""
    first: str
    second: str
    label: str
    """Which is right: ``A`` for the first."""


def draw_pairs(reasoner: Reasoner, grader: Grader, problems: Sequence[Problem]) -> list[Pair]:
    """One pair for each problem of which the model gives a right and a wrong response in :data:`PAIR_SAMPLES` tries."""
    rng = random.Random(stream_seed(reasoner.seed, "pairs"))
    seed = stream_seed(reasoner.seed, "pair-samples")
    sampling = Sampling(PAIR_SAMPLES, 1.0, reasoner.config.max_new_tokens, seed)
    drawn = reasoner.complete(problems, sampling)
    texts = [[completion.text for completion in completions] for completions in drawn]
    asked = [problem for problem, group in zip(problems, texts, strict=True) for _ in group]
    verdicts = iter(grader.grade(asked, [text for group in texts for text in group]))
    pairs = []
    for problem, group in zip(problems, texts, strict=True):
        graded = [(text, next(verdicts).status) for text in group]
        right = [text for text, status in graded if status == "correct"]
        wrong = [text for text, status in graded if status == "wrong"]
        if not right or not wrong:
            continue
        good, bad = rng.choice(right), rng.choice(wrong)
        label = rng.choice(("A", "B"))
        pairs.append(Pair(problem.id, *((good, bad) if label == "A" else (bad, good)), label))
    return pairs


@dataclass(slots=True)
class Counter:
    """Counts answered questions, and tells whoever wants to know."""

    total: int
    tell: Callable[[int, int], None]
    done: int = 0

    def add(self, count: int) -> None:
        """So many more are answered."""
        self.done = min(self.total, self.done + count)
        self.tell(self.done, self.total)

    def end(self) -> None:
        """Fewer were needed than could have been."""
        if self.done < self.total:
            self.add(self.total)


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """Runs every measurement of this module on one set of problems; ``status/...`` are counts of first answers."""

    reasoner: Reasoner
    grader: Grader
    """The verifier, or a user's reward functions: it says which answers are right."""
    problems: Sequence[Problem]
    pairs: Sequence[Pair]
    """What :func:`draw_pairs` found, for these problems."""
    progress: Callable[[int, int], None] | None = None
    """Told (done, total) as questions are answered; total is what remains if no answer is accepted early."""

    def run(self) -> Scores:
        """All scores, with ``n``, the number of problems, and ``pairwise_accuracy_n``, that of pairs."""
        return self.examine()[0]

    def examine(self) -> tuple[Scores, Outcomes]:
        """The scores of :meth:`run`, and what became of each problem."""
        if self.progress is None:
            return self._run()
        counter = Counter(self._most(), self.progress)
        found = replace(self, reasoner=replace(self.reasoner, heard=counter.add), progress=None)._run()
        counter.end()
        return found

    def _most(self) -> int:
        """Questions that are asked at most."""
        config, count = self.reasoner.config, len(self.problems)
        if config.select != "last":
            again = 1 + (config.samples - 1) * (config.select != "majority")
            return count * (3 + again) + len(self.pairs)
        shared = 0 if config.rounds == 0 else 2 if config.reflect_temperature == 0 else 1
        return count * (3 + 2 * config.rounds - shared) + len(self.pairs)

    def _run(self) -> tuple[Scores, Outcomes]:
        first = self.reasoner.answer(self.problems)
        responses = [turn.response for turn in first]
        verdicts = self.grader.grade(self.problems, responses)
        right = [verdict.status == "correct" for verdict in verdicts]
        scores: Scores = {"n": float(len(self.problems)), **_share("policy_accuracy", right)}
        scores |= {f"status/{s}": float(sum(v.status == s for v in verdicts)) for s in STATUSES}
        judged = self.reasoner.judged(self.problems, first)
        accepts = [turn.accepted for turn in judged]
        scores |= self._judging([(turn.accepted, turn.probability) for turn in judged], right)
        hits = self._pairwise()
        scores |= {**_share("pairwise_accuracy", list(hits.values())), "pairwise_accuracy_n": float(len(hits))}
        again = self.reasoner.reflect(self.problems, responses)
        scores |= self._reflection(first, again, right)
        reflected = again if self.reasoner.config.reflect_temperature == 0 else None
        traces = self.reasoner.solve(self.problems, judged, reflected)
        final = self._right(self.problems, [t.response for t in traces])
        ids = tuple(problem.id for problem in self.problems)
        compared = tuple(hits.get(name) for name in ids)
        outcomes = Outcomes(ids, tuple(right), tuple(accepts), tuple(final), compared)
        return scores | _share("tts_accuracy", final), outcomes

    def _right(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[bool]:
        return [verdict.status == "correct" for verdict in self.grader.grade(problems, responses)]

    def _judging(self, said: Sequence[tuple[bool | None, float | None]], right: Sequence[bool]) -> Scores:
        answers = [Judged(truth, accepted, chance) for truth, (accepted, chance) in zip(right, said, strict=True)]
        seed = stream_seed(self.reasoner.seed, "judge-intervals")
        found = judge_accuracy(answers, random.Random(seed)) | calibration_shares(answers, random.Random(seed))
        return _with_interval({ours: found[theirs] for theirs, ours in _JUDGE.items() if theirs in found})

    def _pairwise(self) -> dict[str, bool]:
        """Id of a problem that has a pair -> whether the right one of the two was named."""
        known = {problem.id: problem for problem in self.problems}
        asked = [known[pair.problem] for pair in self.pairs]
        said = self.reasoner.compare(asked, [(pair.first, pair.second) for pair in self.pairs])
        return {pair.problem: choice == pair.label for (_, choice, _), pair in zip(said, self.pairs, strict=True)}

    def _reflection(self, first: Sequence[Round], again: Sequence[Round], right: Sequence[bool]) -> Scores:
        kept = [
            (old, new)[standing(problem, [old.answer, new.answer])].response
            for problem, old, new in zip(self.problems, first, again, strict=True)
        ]
        after = self._right(self.problems, kept)
        return {
            **_share("reflection_fix", [now for now, before in zip(after, right, strict=True) if not before]),
            **_share("reflection_break", [not now for now, before in zip(after, right, strict=True) if before]),
        }


def _share(name: str, hits: Sequence[bool]) -> Scores:
    """The share of hits, each of a problem of its own, with its interval."""
    low, high = wilson(sum(hits), len(hits))
    return _with_interval({name: {"score": sum(hits) / len(hits) if hits else None, "low": low, "high": high}})


def _with_interval(found: dict[str, dict[str, Any]]) -> Scores:
    scores: Scores = {}
    for name, share in found.items():
        scores[name] = share["score"]
        if share["score"] is not None:
            scores |= {f"{name}_low": share["low"], f"{name}_high": share["high"]}
    return scores
