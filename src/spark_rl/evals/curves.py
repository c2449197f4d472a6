"""Accuracy against generated tokens: what each way of spending tokens at test time buys (Sec. 3.3, Table 5).

=========== =====================================================================================================
majority    the answer that most of 1, 2, 4, ... samples agree on
verdict     the sample that the model's own P(Yes) is highest for: best-of-n
weighted    majority voting weighted by own P(Yes)
rounds      judge and reflect, 0 to ``rounds`` rounds, accepting on a Yes (Eq. 10 and 11)
adaptive    the same with all rounds, accepting from P(Yes) of 0.5, 0.8, ... on
=========== =====================================================================================================

Everything is drawn once and shared: the answers of a problem with a judgement of each, and for the first
:data:`CHAINS` of them a chain of reflections that goes on whatever the judge says. A point is what its rule would have
done with these: votes are taken in :data:`SUBSETS` random subsets of the answers, the same for every vote, and rounds
stop where the rule stops them, which costs what was generated until then. Tokens are those of answers, reflections and
judgements; prompts are not counted. Each curve begins with the single answer and is straight between its points, which
a strategy reaches that treats some problems by one and the others by the next; with more tokens than its last point it
stays there. Intervals are percentile bootstraps over problems; gains over majority voting at equal tokens
(arXiv 2504.01005) are paired.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from spark_rl.evals.calibration import calibration, calibration_shares
from spark_rl.evals.judge_accuracy import Judged
from spark_rl.inference import Reasoner, Round, equal_answers, standing
from spark_rl.intervals import quantile
from spark_rl.problem import Problem
from spark_rl.rewards import Grader
from spark_rl.seeds import stream_seed
from spark_rl.voting import VOTES, elected

CHAINS = 4
"""Answers of a problem that a chain of reflections goes on from."""
SUBSETS = 16
"""Random subsets of the answers that a vote of fewer than all is taken in."""
THRESHOLDS = (0.5, 0.8, 0.95, 0.99)
"""P(Yes) from which on an answer is accepted, of the adaptive rounds."""
BATCH = 32
"""Problems asked together."""
DRAWS = 500
"""Draws of the bootstrap."""

Setting = tuple[str, float]
"""(strategy, samples, rounds or threshold): one point of a curve."""
Spent = dict[Setting, tuple[float, float]]
"""(share of right answers, tokens) of one problem, for each point."""


@dataclass(frozen=True, slots=True)
class Try:
    """One answer or reflection, and what the model thinks of it."""

    right: bool
    tokens: int
    judge_tokens: int = 0
    accepted: bool | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """All that was drawn for one problem."""

    problem: str
    """Its id."""
    answers: tuple[Try, ...]
    same: tuple[int | None, ...]
    """Which of the answers are equal (:func:`spark_rl.voting.classes`)."""
    chains: tuple[tuple[tuple[Try, int], ...], ...]
    """Each begins with an answer; its reflections, and beside each which try of the chain stands then."""


def attempts(
    reasoner: Reasoner, grader: Grader, problems: Sequence[Problem], samples: int, rounds: int
) -> Iterator[list[Attempt]]:
    """Draw everything, a batch of problems at a time, as ``reasoner.config`` samples."""
    config = reasoner.config.model_copy(update={"select": "last", "samples": 1, "accept": None, "rounds": rounds})
    for start in range(0, len(problems), BATCH):
        one = replace(reasoner, config=config, seed=stream_seed(reasoner.seed, "curve", start))
        yield _attempts(one, grader, problems[start : start + BATCH], samples)


def _attempts(reasoner: Reasoner, grader: Grader, problems: Sequence[Problem], samples: int) -> list[Attempt]:
    drawn = [turn for turns in reasoner.answers(problems, samples) for turn in turns]
    owners = [problem for problem in problems for _ in range(samples)]
    tries = _tries(grader, owners, drawn, reasoner.judged(owners, drawn))
    starts = [p * samples + c for p in range(len(problems)) for c in range(min(CHAINS, samples))]
    turns = [[drawn[i]] for i in starts]
    chains: list[list[tuple[Try, int]]] = [[(tries[i], 0)] for i in starts]
    asked = [owners[i] for i in starts]
    for turn in range(reasoner.config.rounds):
        stands = [chain[-1][1] for chain in chains]
        shown = [turns[c][at].response for c, at in enumerate(stands)]
        again = reasoner.reflect(asked, shown, turn)
        for one, new in zip(turns, again, strict=True):
            one.append(new)
        stands = [standing(p, [each.answer for each in one]) for p, one in zip(asked, turns, strict=True)]
        new_ones = [c for c, at in enumerate(stands) if at == turn + 1]
        judged: list[Round] = list(again)
        if turn + 1 < reasoner.config.rounds:  # the last is given whatever the judge would say
            opinions = reasoner.judged([asked[c] for c in new_ones], [again[c] for c in new_ones])
            for c, said in zip(new_ones, opinions, strict=True):
                judged[c] = said
        for chain, made, at in zip(chains, _tries(grader, asked, again, judged), stands, strict=True):
            chain.append((made, at))
    each = min(CHAINS, samples)
    return [
        Attempt(
            problem.id,
            tuple(tries[p * samples : (p + 1) * samples]),
            tuple(equal_answers(problem, [turn.answer for turn in drawn[p * samples : (p + 1) * samples]])),
            tuple(tuple(chain) for chain in chains[p * each : (p + 1) * each]),
        )
        for p, problem in enumerate(problems)
    ]


def _tries(grader: Grader, problems: Sequence[Problem], rounds: Sequence[Round], judged: Sequence[Round]) -> list[Try]:
    verdicts = grader.grade(problems, [one.response for one in rounds])
    return [
        Try(verdict.status == "correct", one.tokens, said.tokens - one.tokens, said.accepted, said.probability)
        for verdict, one, said in zip(verdicts, rounds, judged, strict=True)
    ]


def spent(attempt: Attempt, rounds: int, rng: random.Random, *, unread_accepts: bool = False) -> Spent:
    """What every point of every curve makes of one problem.

    Args:
        attempt: what was drawn.
        rounds: judge-and-reflect rounds at most.
        rng: draws the subsets.
        unread_accepts: whether an unreadable verdict accepts (``inference.judge_unparsed``).
    """
    answers, count = attempt.answers, len(attempt.answers)
    found: Spent = {("single", 1): (fmean(one.right for one in answers), fmean(one.tokens for one in answers))}
    for size in sizes(count):
        subsets = (
            [[i] for i in range(count)] if size == 1 else [list(range(count))] if size == count
            else [rng.sample(range(count), size) for _ in range(SUBSETS)]
        )  # fmt: skip
        for vote in VOTES:
            given = []
            for subset in subsets:
                firsts: dict[int, int] = {}
                members = [
                    None if (first := attempt.same[i]) is None else firsts.setdefault(first, place)
                    for place, i in enumerate(subset)
                ]
                given.append(subset[elected(members, [chance(answers[i]) for i in subset], vote)])
            cost = fmean(
                sum(answers[i].tokens + (vote != "majority") * answers[i].judge_tokens for i in subset)
                for subset in subsets
            )
            found[vote, size] = (fmean(answers[i].right for i in given), cost)

    def by_verdict(one: Try) -> bool:
        return unread_accepts if one.accepted is None else one.accepted

    def mean(most: int, accepts: Callable[[Try], bool]) -> tuple[float, float]:
        ends = [chained(chain, most, accepts) for chain in attempt.chains]
        return fmean(right for right, _ in ends), fmean(tokens for _, tokens in ends)

    for most in range(rounds + 1):
        found["rounds", most] = mean(most, by_verdict)
    for threshold in THRESHOLDS if rounds else ():

        def surely(one: Try, threshold: float = threshold) -> bool:
            return by_verdict(one) if one.probability is None else one.probability >= threshold

        found["adaptive", threshold] = mean(rounds, surely)
    return found


def chance(one: Try) -> float:
    """What an answer counts by, as :attr:`spark_rl.inference.Round.chance` has it."""
    return float(bool(one.accepted)) if one.probability is None else one.probability


def chained(chain: Sequence[tuple[Try, int]], rounds: int, accepts: Callable[[Try], bool]) -> tuple[bool, int]:
    """(whether the final answer is right, tokens) of a chain that ends as soon as its standing answer is accepted, or
    after ``rounds`` rounds."""
    tokens, stands = chain[0][0].tokens, 0
    judged = -1
    for turn in range(rounds):
        one = chain[stands][0]
        if stands != judged:  # what stands was judged already
            tokens += one.judge_tokens
            judged = stands
        if accepts(one):
            break
        made, stands = chain[turn + 1]
        tokens += made.tokens
    return chain[stands][0].right, tokens


def sizes(samples: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return sorted({samples, *(2**power for power in range(samples.bit_length()) if 2**power <= samples)})


def curves(found: Sequence[Spent], rng: random.Random, draws: int = DRAWS) -> dict[str, Any]:
    """All curves over some problems, and what they reach at equal tokens.

    ::

        {"single": {"tokens": 12.1, "accuracy": 0.2, "low": 0.17, "high": 0.24},
         "curves": {"majority": [{"at": 1, "tokens": 12.1, "accuracy": 0.2, "low": ..., "high": ...}, ...], ...},
         "budgets": [12.1, 24.2, ...],
         "equal_tokens": {"weighted": [{"accuracy": ..., "low": ..., "high": ..., "gain": ..., "gain_low": ...,
                                        "gain_high": ...}, ...], ...}}

    ``budgets`` are the tokens of 1, 2, 4, ... answers, ``gain`` the difference to majority voting there.
    """
    settings = list(found[0])
    strategies = list(dict.fromkeys(name for name, _ in settings if name != "single"))
    means = _means(found, settings)
    budgets = [means[setting][1] for setting in settings if setting[0] == "majority"]
    drawn = [_means(rng.choices(found, k=len(found)), settings) for _ in range(draws)]
    reached = {name: [_at(one, name, budgets) for one in (means, *drawn)] for name in strategies}

    def point(setting: Setting) -> dict[str, float]:
        accuracy, tokens = means[setting]
        low, high = _ends([one[setting][0] for one in drawn])
        return {"tokens": tokens, "accuracy": accuracy, "low": low, "high": high}

    equal: dict[str, list[dict[str, float]]] = {}
    for name in strategies:
        equal[name] = []
        for b in range(len(budgets)):
            own = [one[b] for one in reached[name]]
            gains = [mine - theirs[b] for mine, theirs in zip(own, reached["majority"], strict=True)]
            (low, high), (gain_low, gain_high) = _ends(own[1:]), _ends(gains[1:])
            equal[name].append({
                "accuracy": own[0], "low": low, "high": high, "gain": gains[0], "gain_low": gain_low,
                "gain_high": gain_high,
            })  # fmt: skip
    return {
        "single": point(("single", 1)),
        "curves": {
            name: [{"at": setting[1]} | point(setting) for setting in settings if setting[0] == name]
            for name in strategies
        },
        "budgets": budgets,
        "equal_tokens": equal,
    }


def _means(found: Sequence[Spent], settings: Sequence[Setting]) -> Spent:
    n = len(found)
    return {
        setting: (sum(one[setting][0] for one in found) / n, sum(one[setting][1] for one in found) / n)
        for setting in settings
    }


def _at(means: Mapping[Setting, tuple[float, float]], strategy: str, budgets: Sequence[float]) -> list[float]:
    """The accuracy of a strategy at so many tokens."""
    points = sorted((tokens, accuracy) for (name, _), (accuracy, tokens) in means.items() if name == strategy)
    accuracy, tokens = means["single", 1]
    points = [(tokens, accuracy), *(point for point in points if point[0] > tokens)]
    found = []
    for budget in budgets:
        before = max(i for i, (x, _) in enumerate(points) if x <= budget or i == 0)
        (x, y), (to_x, to_y) = points[before], points[min(before + 1, len(points) - 1)]
        share = 0.0 if to_x <= x else min(1.0, max(0.0, (budget - x) / (to_x - x)))
        found.append(y + share * (to_y - y))
    return found


def _ends(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return quantile(ordered, 0.025), quantile(ordered, 0.975)


def measured(drawn: Sequence[Attempt], rounds: int, seed: int, *, unread_accepts: bool = False) -> dict[str, Any]:
    """Everything about one set of problems: :func:`curves`, and the calibration of the judgements of all answers."""
    rng = random.Random(stream_seed(seed, "curve"))
    found = [spent(attempt, rounds, rng, unread_accepts=unread_accepts) for attempt in drawn]
    judged = [
        Judged(one.right, one.accepted, one.probability, attempt.problem)
        for attempt in drawn for one in attempt.answers
    ]  # fmt: skip
    chances = calibration(judged)
    return {
        "problems": len(drawn), "samples": len(drawn[0].answers), "rounds": rounds, **curves(found, rng),
        "calibration": calibration_shares(judged, rng, DRAWS),
        "bins": [] if chances is None else [asdict(one) for one in chances.bins],
    }  # fmt: skip
