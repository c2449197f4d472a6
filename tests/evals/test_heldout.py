"""The before-and-after numbers, computed again from what the model said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from running import BASE, reasoner_of
from spark_rl import Problem, load_config
from spark_rl.backend import Backend, open_backend
from spark_rl.config import DataConfig, InferenceConfig
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.errors import UserError
from spark_rl.evals.heldout import PAIR_SAMPLES, HeldOutEvaluation, Pair, Scores, draw_pairs
from spark_rl.evals.outcomes import OUTCOMES, append_outcomes, read_outcomes
from spark_rl.inference import Reasoner
from spark_rl.problem import STATUSES
from spark_rl.rewards import Grader
from spark_rl.seeds import stream_seed
from spark_rl.verify import Verifier, extract_boxed, read_verdict

CONFIG = InferenceConfig(rounds=2, max_new_tokens=40, reflect_temperature=1.0)


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_backend(load_config("tiny", ["model.threads=1"], model={"path": BASE}))


@pytest.fixture(scope="module")
def problems() -> tuple[Problem, ...]:
    return load_problems("procedural:missing", DataConfig(), "heldout")[:60]


@pytest.fixture(scope="module")
def reasoner(backend: Backend) -> Reasoner:
    return replace(reasoner_of(backend), config=CONFIG)


@pytest.fixture(scope="module")
def pairs(reasoner: Reasoner, problems: Sequence[Problem]) -> list[Pair]:
    with Verifier() as verifier:
        return draw_pairs(reasoner, Grader(verifier), problems)


@pytest.fixture(scope="module")
def scores(reasoner: Reasoner, problems: Sequence[Problem], pairs: list[Pair]) -> Scores:
    with Verifier() as verifier:
        return HeldOutEvaluation(reasoner, Grader(verifier), problems, pairs).run()


@pytest.fixture(scope="module")
def answers(reasoner: Reasoner, problems: Sequence[Problem]) -> list[str]:
    return [turn.response for turn in reasoner.answer(problems)]


def right(response: str, problem: Problem) -> bool:
    """The answers of these puzzles are single digits, so equal text is all there is to it."""
    return (extract_boxed(response) or "").strip() == problem.answer


def share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


@pytest.fixture(scope="module")
def truth(answers: list[str], problems: Sequence[Problem]) -> list[bool]:
    found = [right(text, problem) for text, problem in zip(answers, problems, strict=True)]
    assert True in found, "the base must be right sometimes and wrong sometimes, or nothing is tested"
    assert False in found
    return found


def test_policy_accuracy(scores: Scores, truth: list[bool]) -> None:
    assert scores["policy_accuracy"] == share(truth)
    assert scores["n"] == len(truth)


def test_statuses_count_every_answer(scores: Scores, truth: list[bool]) -> None:
    counts = [scores[f"status/{status}"] for status in STATUSES]
    assert sum(count for count in counts if count is not None) == len(truth)
    assert scores["status/correct"] == sum(truth)


def test_judging(
    scores: Scores, truth: list[bool], answers: list[str], reasoner: Reasoner, problems: Sequence[Problem]
) -> None:
    said = [read_verdict(text) for text, *_ in reasoner.judge(problems, answers)]
    hits = sum(verdict == "Yes" and is_right for verdict, is_right in zip(said, truth, strict=True))
    precision, recall = hits / said.count("Yes"), hits / sum(truth)
    assert scores["judge_accuracy"] == share(
        [verdict == ("Yes" if is_right else "No") for verdict, is_right in zip(said, truth, strict=True)]
    )
    assert scores["judge_precision"] == precision
    assert scores["judge_recall"] == recall
    assert scores["judge_f1"] == pytest.approx(2 * hits / (said.count("Yes") + sum(truth)))
    assert scores["judge_unreadable"] == said.count(None) / len(said)
    rejected = sum(verdict == "No" and not is_right for verdict, is_right in zip(said, truth, strict=True))
    assert scores["judge_balanced_accuracy"] == pytest.approx((recall + rejected / truth.count(False)) / 2)
    assert scores["judge_constant_accuracy"] == pytest.approx(max(share(truth), 1 - share(truth)))
    assert 0 < hits < len(truth)


def test_test_time_scaling(scores: Scores, reasoner: Reasoner, problems: Sequence[Problem]) -> None:
    traces = reasoner.solve(problems)
    assert scores["tts_accuracy"] == share([right(trace.response, trace.problem) for trace in traces])
    assert max(len(trace.rounds) for trace in traces) == 3


def test_reflection(
    scores: Scores, truth: list[bool], answers: list[str], reasoner: Reasoner, problems: Sequence[Problem]
) -> None:
    again = reasoner.reflect(problems, answers)
    now = [  # what has no answer changes nothing
        before if extract_boxed(turn.response) is None else right(turn.response, problem)
        for turn, problem, before in zip(again, problems, truth, strict=True)
    ]
    assert scores["reflection_fix"] == share([after for after, before in zip(now, truth, strict=True) if not before])
    assert scores["reflection_break"] == share([not after for after, before in zip(now, truth, strict=True) if before])


def test_every_share_has_an_interval_around_it(scores: Scores) -> None:
    shares = [name for name in scores if f"{name}_low" in scores]
    assert {"policy_accuracy", "judge_f1", "judge_balanced_accuracy", "pairwise_accuracy", "tts_accuracy"} < set(shares)
    for name in shares:
        low, value, high = scores[f"{name}_low"], scores[name], scores[f"{name}_high"]
        assert low is not None
        assert value is not None
        assert high is not None
        assert 0 <= low <= value <= high <= 1
        assert low < high


def test_pairs_are_one_right_and_one_wrong_response_of_the_same_problem(
    scores: Scores, pairs: list[Pair], reasoner: Reasoner, problems: Sequence[Problem]
) -> None:
    """Every problem whose samples are mixed gives one pair, of those samples, with its right response at the label."""
    sampling = Sampling(PAIR_SAMPLES, 1.0, CONFIG.max_new_tokens, stream_seed(reasoner.seed, "pair-samples"))
    drawn = reasoner.engine.generate([reasoner.chat.encode(problem) for problem in problems], sampling)
    texts = {p.id: {c.text for c in completions} for p, completions in zip(problems, drawn, strict=True)}
    known = {problem.id: problem for problem in problems}
    mixed = [name for name, said in texts.items() if len({right(text, known[name]) for text in said}) == 2]
    assert [pair.problem for pair in pairs] == mixed
    assert scores["pairwise_accuracy_n"] == len(mixed) > 5
    for pair in pairs:
        assert {pair.first, pair.second} <= texts[pair.problem]
        good, bad = (pair.first, pair.second) if pair.label == "A" else (pair.second, pair.first)
        assert right(good, known[pair.problem])
        assert not right(bad, known[pair.problem])
    assert {pair.label for pair in pairs} == {"A", "B"}


# What became of each problem


def test_outcomes_are_what_the_scores_count(
    reasoner: Reasoner, problems: Sequence[Problem], pairs: list[Pair], tmp_path: Path
) -> None:
    with Verifier() as verifier:
        scores, kept = HeldOutEvaluation(reasoner, Grader(verifier), problems, pairs).examine()
    append_outcomes(tmp_path, 0, 0, "heldout", replace(kept, first=kept.final))  # an evaluation that a kill cut off
    append_outcomes(tmp_path, 0, 0, "heldout", kept)
    append_outcomes(tmp_path, 3, 900, "heldout", kept)
    found = read_outcomes(tmp_path)
    assert found == {"heldout": {0: (0, kept), 3: (900, kept)}}
    assert kept.problems == tuple(problem.id for problem in problems)
    assert scores["policy_accuracy"] == share(kept.first)
    assert scores["tts_accuracy"] == share(kept.final)
    judged = [said is not None and said == right for said, right in zip(kept.accepted, kept.first, strict=True)]
    assert scores["judge_accuracy"] == share(judged)
    compared = [hit for hit in kept.compared if hit is not None]
    assert (scores["pairwise_accuracy"], scores["pairwise_accuracy_n"]) == (share(compared), len(pairs))


def test_outcomes_that_are_not_there_or_damaged_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kept no outcomes"):
        read_outcomes(tmp_path)
    (tmp_path / OUTCOMES).write_text('{"exam": "heldout", "step": 0, "tokens": 0, "problems": ["a"]}\n')
    with pytest.raises(UserError, match="is damaged; restore it"):
        read_outcomes(tmp_path)
    (tmp_path / OUTCOMES).write_text('{"exam": "heldout", "step": 0\n{}\n')
    with pytest.raises(UserError, match=r"is damaged \(line 1\); restore it"):
        read_outcomes(tmp_path)


# Nothing is asked twice


def asked_twice(reasoner: Reasoner, verifier: Verifier, problems: Sequence[Problem], pairs: list[Pair]) -> Scores:
    """The scores as they were measured when test-time scaling judged and reflected on the first answers once more."""
    evaluation = HeldOutEvaluation(reasoner, Grader(verifier), problems, pairs)
    first = reasoner.answer(problems)
    texts = [turn.response for turn in first]
    hits = evaluation._right(problems, texts)
    scores = evaluation._judging([(said, chance) for _, said, _, chance in reasoner.judge(problems, texts)], hits)
    scores |= evaluation._reflection(first, reasoner.reflect(problems, texts), hits)
    scores["pairwise_accuracy"] = share(list(evaluation._pairwise().values()))
    traces = reasoner.solve(problems, first)
    finals = evaluation._right(problems, [trace.response for trace in traces])
    return scores | {"policy_accuracy": share(hits), "tts_accuracy": share(finals)}


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({"reflect_temperature": 1.0}, "judged once"),
        ({"reflect_temperature": 0.0}, "judged and reflected on once"),
        ({"reflect_temperature": 0.7, "temperature": 0.7}, "judged once"),
        ({"reflect_temperature": 0.0, "judge_unparsed": "accept", "rounds": 1}, "judged and reflected on once"),
        ({"rounds": 0}, ""),
    ],
)
def test_sharing_what_was_asked_changes_no_number(
    settings: dict[str, Any], saved: str, reasoner: Reasoner, problems: Sequence[Problem], pairs: list[Pair]
) -> None:
    """And a problem is asked once less, or twice where reflections are shared and its answer was rejected."""
    questions: list[int] = []
    config = CONFIG.model_copy(update=settings)
    counted = replace(reasoner, config=config, heard=questions.append)
    with Verifier() as verifier:
        old = asked_twice(counted, verifier, problems, pairs)
        before = sum(questions)
        questions.clear()
        new = HeldOutEvaluation(counted, Grader(verifier), problems, pairs).run()
    assert {name: new[name] for name in old} == old
    fewer = before - sum(questions)
    if not saved:
        assert fewer == 0
    elif saved == "judged once":
        assert fewer == len(problems)
    else:
        assert len(problems) < fewer < 2 * len(problems)


def test_progress_counts_to_its_end(reasoner: Reasoner, problems: Sequence[Problem], pairs: list[Pair]) -> None:
    heard: list[tuple[int, int]] = []
    with Verifier() as verifier:
        HeldOutEvaluation(reasoner, Grader(verifier), problems, pairs, lambda *at: heard.append(at)).run()
    done = [at for at, _ in heard]
    assert done == sorted(set(done))
    assert {total for _, total in heard} == {done[-1]}
    assert len(heard) > 5


class Remembers(Reasoner):
    """Judges pairs as it likes, and remembers what it was shown."""

    shown: ClassVar[list[tuple[str, str]]] = []
    letters: ClassVar[list[str]] = []

    def compare(
        self, problems: Sequence[Problem], pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str | None, int]]:
        self.shown[:] = pairs
        return [("", letter, 0) for letter in self.letters]


def test_another_model_is_shown_the_same_pairs(
    pairs: list[Pair], reasoner: Reasoner, problems: Sequence[Problem]
) -> None:
    """What training did to the judge is not mixed with what it did to the pairs."""
    other = Remembers(reasoner.engine, reasoner.chat, reasoner.templates, CONFIG, seed=99)
    Remembers.letters[:] = [pair.label for pair in pairs]
    with Verifier() as verifier:
        assert HeldOutEvaluation(other, Grader(verifier), problems, pairs).run()["pairwise_accuracy"] == 1.0
    assert Remembers.shown == [(pair.first, pair.second) for pair in pairs]


def test_the_same_model_scores_the_same_twice(
    scores: Scores, pairs: list[Pair], reasoner: Reasoner, problems: Sequence[Problem]
) -> None:
    with Verifier() as verifier:
        assert draw_pairs(reasoner, Grader(verifier), problems) == pairs
        assert HeldOutEvaluation(reasoner, Grader(verifier), problems, pairs).run() == scores


def test_what_can_not_be_measured_is_none(tiny_models: dict[str, Path]) -> None:
    """A random model is never right, never says Yes and never gives a mixed pair."""
    noise = open_backend(load_config("tiny", ["model.threads=1"], model={"path": str(tiny_models["llama"])}))
    reasoner = replace(reasoner_of(noise), config=InferenceConfig(rounds=1, max_new_tokens=6))
    problems = load_problems("procedural:missing", DataConfig(), "heldout")[:4]
    with Verifier() as verifier:
        assert draw_pairs(reasoner, Grader(verifier), problems) == []
        scores = HeldOutEvaluation(reasoner, Grader(verifier), problems, ()).run()
        nothing = HeldOutEvaluation(reasoner, Grader(verifier), (), ()).run()
    undefined = {
        "judge_precision", "judge_recall", "judge_f1", "judge_balanced_accuracy", "pairwise_accuracy",
        "reflection_break",
    }  # fmt: skip
    assert {name for name, value in scores.items() if value is None} == undefined
    assert (scores["policy_accuracy"], scores["judge_accuracy"], scores["judge_unreadable"]) == (0.0, 0.0, 1.0)
    assert (scores["reflection_fix"], scores["tts_accuracy"]) == (0.0, 0.0)
    assert nothing["n"] == 0
    assert nothing["policy_accuracy"] is nothing["tts_accuracy"] is nothing["judge_accuracy"] is None
