"""Verdicts from what the verifier and a user's reward functions say (Eq. 2).

Policy problems and reflections, which answer their parent's question, are graded by the functions, and by the verifier
where it has a weight; judge problems always by their label. The reward is the weighted mean of the numbers there are.
With the verifier in use its status says what is right; otherwise a response is ``correct`` from
``reward.threshold`` on and ``wrong`` below. Without a single number, or with a value that is none, it is ``failed``: no
reward, and neither right nor wrong, so that nothing is recycled from it.

Departure from the paper: rewards may be graded. Its reward is 0 or 1, and so is ours without functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from spark_rl.config import AnswerForm, RewardConfig, Thinking
from spark_rl.problem import Problem, Verdict
from spark_rl.rewards.score import RewardSet, Score
from spark_rl.verify import Verifier, answer_part, extract_boxed
from spark_rl.verify.pool import Finish

ANSWERS = ("policy", "reflection")
"""The tasks whose responses answer the question."""


def _turn(problem: Problem) -> str:
    return problem.question if problem.prompt is None else problem.prompt


@dataclass(frozen=True, slots=True)
class Grader:
    """Whatever says what responses are worth: the verifier alone, unless there are ``rewards``."""

    verifier: Verifier
    reward: RewardConfig = field(default_factory=RewardConfig)
    rewards: RewardSet | None = None
    turn: Callable[[Problem], str] = _turn
    """The user turn that a problem is asked with, for the functions."""
    encode: Callable[[str], Sequence[int]] | None = None
    """The tokens of a text, for the functions, where nobody knows those that were sampled."""

    @property
    def weight(self) -> float:
        """That of the verifier (``reward.verifier``)."""
        own = self.reward.verifier
        return own if own is not None else float(self.rewards is None)

    def grade(
        self,
        problems: Sequence[Problem],
        responses: Sequence[str],
        ids: Sequence[Sequence[int]] | None = None,
        form: AnswerForm = "equivalent",
    ) -> list[Verdict]:
        """One verdict for each response to the problem at its place.

        Args:
            problems: one for each response.
            responses: the texts.
            ids: their tokens, if they are known.
            form: what of an answer that equals the gold one is right (``reward.form`` in training).
        """
        with self.grading(form) as begin:
            begun = [begin(problem, response) for problem, response in zip(problems, responses, strict=True)]
            return self.finished(problems, responses, begun, ids)

    @contextmanager
    def grading(self, form: AnswerForm = "equivalent") -> Iterator[Callable[[Problem, str], Finish | None]]:
        """A function that has the verifier begin with a response to a problem, for responses that come one by one;
        what it gives goes to :meth:`finished` before the block ends. ``None``: only functions grade it.
        """
        with self.verifier.grading(form) as begin:

            def begun(problem: Problem, response: str) -> Finish | None:
                if self._functions_grade(problem) and not self._verifies(problem):
                    return None
                if self.reward.self is not None and not problem.answer:
                    extracted = extract_boxed(answer_part(response, self.verifier.config.thinking))
                    return lambda: Verdict(0.0, "failed", extracted)
                return begin((response, problem.golds, problem.kind, problem.choices))

            yield begun

    def finished(
        self,
        problems: Sequence[Problem],
        responses: Sequence[str],
        begun: Sequence[Finish | None],
        ids: Sequence[Sequence[int]] | None = None,
    ) -> list[Verdict]:
        """What :meth:`grade` returns, once every response is there: the functions are asked about all of them.

        Args:
            problems: one for each response.
            responses: the texts, in the order in which the functions see them.
            begun: what :meth:`grading` gave for each.
            ids: their tokens, if they are known.
        """
        rewards = self.rewards
        verified = {place: finish() for place, finish in enumerate(begun) if finish is not None}
        answers = [place for place, problem in enumerate(problems) if self._functions_grade(problem)]
        if rewards is None or not answers:
            return [verified[place] for place in range(len(problems))]
        if ids is None and self.encode is not None:
            ids = [self.encode(text) for text in responses]
        asked = [problems[place] for place in answers]
        scores = rewards.score(
            asked,
            [self.turn(problem) for problem in asked],
            [responses[place] for place in answers],
            None if ids is None else [ids[place] for place in answers],
            alone=not any(place in verified for place in answers),
        )
        graded = {
            place: self._verdict(responses[place], score, verified.get(place))
            for place, score in zip(answers, scores, strict=True)
        }
        return [graded[place] if place in graded else verified[place] for place in range(len(problems))]

    def _functions_grade(self, problem: Problem) -> bool:
        return self.rewards is not None and problem.task in ANSWERS

    def _verifies(self, problem: Problem) -> bool:
        """Whether the verifier has a weight, and a gold answer to compare with."""
        return self.weight > 0 and all(gold.strip(" \t\r\n$") for gold in problem.golds)

    def _verdict(self, response: str, score: Score, verified: Verdict | None) -> Verdict:
        assert self.rewards is not None, "somebody gave the score"
        terms = [(reward.weight, score.values[reward.called]) for reward in self.rewards.rewards]
        terms += [] if verified is None else [(self.weight, verified.reward)]
        reward = None if score.spoilt else weighted_mean(terms)
        if verified is None:
            verified = by_threshold(response, reward, self.reward.threshold, self.verifier.config.thinking)
        if reward is None:
            return Verdict(0.0, "failed", verified.extracted, score.values, score.failed)
        return Verdict(reward, verified.status, verified.extracted, score.values, score.failed)


def by_threshold(response: str, reward: float | None, threshold: float, thinking: Thinking) -> Verdict:
    """The verdict of reward functions alone: ``correct`` from the threshold on, ``failed`` without a number."""
    extracted = extract_boxed(answer_part(response, thinking))
    if reward is None:
        return Verdict(0.0, "failed", extracted)
    return Verdict(reward, "correct" if reward >= threshold else "wrong", extracted)


def weighted_mean(terms: Sequence[tuple[float, float | None]]) -> float | None:
    """The mean of the numbers that have a weight; ``None`` if there is none.

    ``weighted_mean([(1, 1.0), (3, 0.0), (2, None)])`` is 0.25. It is never outside of the numbers, however it rounds.
    """
    there = [(weight, value) for weight, value in terms if value is not None and weight > 0]
    if not there:
        return None
    largest = max(weight for weight, _ in there)  # sums of weights near the end of the range would overflow
    total = sum(weight / largest for weight, _ in there)
    mean = sum(weight / largest / total * value for weight, value in there)
    values = [value for _, value in there]
    return min(max(mean, min(values)), max(values))
