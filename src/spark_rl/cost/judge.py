"""Both judges on the same responses: SPARK's own verdicts, and the scalar reward model's scores.

Where HeldOutEvaluation (:mod:`spark_rl.evals.heldout`) asks the trained model about its own answers, this asks about
responses that are the same for every judge: both members of the pairs that the base gave to held-out problems, half of
them right. ``judge_same_accuracy`` is a verdict on each alone, ``pairwise_accuracy`` which of two is right.

A score is no verdict: :func:`best_threshold` makes one of it, on the reward model's training pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from spark_rl.cost.preferences import Pair
from spark_rl.cost.reward_model import RewardModel
from spark_rl.evals.heldout import Pair as HeldOutPair
from spark_rl.evals.heldout import Scores
from spark_rl.inference import Reasoner
from spark_rl.problem import Problem
from spark_rl.rewards import Grader


def best_threshold(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The score from which on a response counts as right, so that most of these are told apart.

    ``best_threshold([2.0, 3.0], [0.0, 1.0])`` is 1.5: halfway between two neighbours. Of equally good ones the lowest.
    """
    marked = sorted([(score, True) for score in right] + [(score, False) for score in wrong])
    hits = best = len(right)  # everything is called right
    threshold = marked[0][0] - 1.0 if marked else 0.0
    for place, (score, is_right) in enumerate(marked):
        hits += -1 if is_right else 1
        after = marked[place + 1][0] if place + 1 < len(marked) else score + 2.0
        if hits > best and after > score:
            best, threshold = hits, (score + after) / 2
    return threshold


def threshold_of(judge: RewardModel, pairs: Sequence[Pair]) -> float:
    """:func:`best_threshold` on the pairs that a reward model was trained on."""
    questions = [pair.question for pair in pairs]
    return best_threshold(
        judge.score(questions, [pair.right for pair in pairs]), judge.score(questions, [pair.wrong for pair in pairs])
    )


def own_verdicts(reasoner: Reasoner, problems: Sequence[Problem], pairs: Sequence[HeldOutPair]) -> Scores:
    """``judge_same_accuracy`` of a model that judges in words."""
    asked, texts, right = _members(problems, pairs)
    said = [accepted for _, accepted, *_ in reasoner.judge(asked, texts)]
    return {"judge_same_accuracy": _share([a is b for a, b in zip(said, right, strict=True)])}


def scored_verdicts(
    judge: RewardModel,
    threshold: float,
    reasoner: Reasoner,
    grader: Grader,
    problems: Sequence[Problem],
    pairs: Sequence[HeldOutPair],
) -> Scores:
    """What the reward model says: ``rm_judge_same_accuracy`` and ``rm_pairwise_accuracy`` of the pairs, and
    ``rm_judge_accuracy`` of the policy's own answers.
    """
    asked, texts, right = _members(problems, pairs)
    scores = judge.score([problem.question for problem in asked], texts)
    same = [(score >= threshold) == truth for score, truth in zip(scores, right, strict=True)]
    ordered = [
        (first > second) == (pair.label == "A")
        for first, second, pair in zip(scores[0::2], scores[1::2], pairs, strict=True)
    ]
    answers = [turn.response for turn in reasoner.answer(problems)]
    own = judge.score([problem.question for problem in problems], answers)
    truths = [verdict.status == "correct" for verdict in grader.grade(problems, answers)]
    return {
        "rm_judge_same_accuracy": _share(same),
        "rm_pairwise_accuracy": _share(ordered),
        "rm_judge_accuracy": _share([(score >= threshold) == t for score, t in zip(own, truths, strict=True)]),
    }


def _members(problems: Sequence[Problem], pairs: Sequence[HeldOutPair]) -> tuple[list[Problem], list[str], list[bool]]:
    """Both responses of each pair with their problems, and whether they are right."""
    known = {problem.id: problem for problem in problems}
    asked = [known[pair.problem] for pair in pairs for _ in range(2)]
    texts = [text for pair in pairs for text in (pair.first, pair.second)]
    return asked, texts, [pair.label == name for pair in pairs for name in ("A", "B")]


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
