"""Training without gold answers: what is hidden stays hidden, votes, the guard, resuming, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import json_lines, small, write_lines
from spark_rl import ConfigError, Problem, train
from spark_rl.backend import Backend, frozen_engine
from spark_rl.config import SelfRewardConfig, load_config
from spark_rl.data.batches import Shuffled
from spark_rl.data.procedural import procedural_problems
from spark_rl.given import Given, load_all_problems
from spark_rl.problem import Completion, Group, Rollout, Verdict
from spark_rl.recycle import problem_from_dict, problem_to_dict
from spark_rl.report.watch import Silent
from spark_rl.rewards import Guard, Hidden, has_gold, is_hidden
from spark_rl.rewards.votes import elect, majority
from spark_rl.run import Run
from spark_rl.selfreward import SelfSampler
from spark_rl.verify import Verifier
from test_train import base_weights, facts, same, weights

HALF = ("reward.self.hidden=0.5", "reward.self.floor=null", "reward.self.judgements=2", "train.save_every=1")
IDS = st.text(min_size=1, max_size=12)


def group_of(*boxed: str | None, kind: Any = "math", choices: tuple[str, ...] = ()) -> Group:
    """A group of one problem whose responses box these texts."""
    rollouts = tuple(
        Rollout(Completion("", (), (), "stop"), Verdict(0.0, "failed", text)) for text in boxed
    )  # fmt: skip
    return Group(Problem("p", "1+1?", "", kind, choices=choices), rollouts, ())


# --- what is hidden -------------------------------------------------------------------------------------------------


@given(IDS, st.floats(0, 1), st.floats(0, 1), st.integers(0, 3))
def test_a_larger_share_hides_what_a_smaller_one_hides(name: str, one: float, other: float, seed: int) -> None:
    smaller, larger = sorted((one, other))
    assert is_hidden(name, larger, seed) or not is_hidden(name, smaller, seed)
    assert is_hidden(name, 1.0, seed)
    assert not is_hidden(name, 0.0, seed)


def test_the_share_is_about_what_was_asked_for_and_another_seed_hides_others() -> None:
    hidden = [{n for n in range(4000) if is_hidden(f"p{n}", 0.3, seed)} for seed in (0, 1)]
    assert all(abs(len(some) / 4000 - 0.3) < 0.03 for some in hidden)
    assert abs(len(hidden[0] & hidden[1]) / 4000 - 0.09) < 0.03, "independent of each other"


def test_problems_lose_their_answers_in_every_pass_and_the_others_keep_theirs() -> None:
    problems = [Problem(f"p{n}", f"{n}+1", str(n + 1), alternatives=(f"{n + 1}.0",)) for n in range(20)]
    problems.append(Problem("none", "?", ""))
    problems.append(Problem("odd", "?", "Z", kind="choice", choices=("1", "2")))
    hidden = Hidden(Shuffled(problems, 11, seed=5), 0.5, seed=5)
    for step in range(4):  # two passes
        for problem in hidden.of(step):
            original = next(p for p in problems if p.id == problem.id)
            lost = is_hidden(problem.id, 0.5, 5) or problem.id in {"none", "odd"}
            assert problem == (replace(original, answer="", alternatives=()) if lost else original)


# --- votes ----------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 11).map(str), st.integers(1, 4), max_size=6))
def test_the_majority_has_most_votes_by_the_verifiers_equality(given: dict[str, int]) -> None:
    """Here two texts are equal if their remainders modulo 3 are."""
    equal = {(a, b): int(a) % 3 == int(b) % 3 for a, b in product(given, given)}
    votes = Counter[int]()
    for text, count in given.items():
        votes[int(text) % 3] += count
    found = majority(given, equal)
    assert (found is None) == (not given)
    if found is not None:
        assert votes[int(found) % 3] == max(votes.values())
        assert given[found] == max(n for text, n in given.items() if int(text) % 3 == int(found) % 3)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (group_of("3", r"\frac12", "0.5", "0.5", "3"), "0.5"),
        (group_of("7", "8"), "7"),  # the first of a tie
        (group_of(None, "", "  ", "4"), "4"),
        (group_of(None, None), None),
        (group_of(r"\frac{", "}{", "5"), "5"),  # nothing that can't be read is voted for
        (group_of("yes", "no", "no", kind="exact"), "no"),
        (group_of("A", "B. 12", "B: 12", "A or B", kind="choice", choices=("7", "12")), "B. 12"),
    ],
    ids=["equal values", "tie", "no box", "nothing", "unreadable", "exact", "options"],
)
def test_votes(group: Group, expected: str | None, verifier: Verifier) -> None:
    assert elect([group], verifier) == [expected]


# --- the guard ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12), st.integers(1, 4), st.floats(0, 1))
def test_the_guard_trusts_and_stops_by_the_share_of_the_last_steps(
    steps: list[tuple[int, int]], window: int, floor: float
) -> None:
    guard = Guard(SelfRewardConfig(floor=floor, window=window))
    trusted = False
    for number in range(len(steps)):
        accepted, right = (steps[number][0], min(steps[number]))
        guard.hear({"self/accepted": accepted, **({"self/accuracy": right / accepted} if accepted else {})})
        last = steps[max(0, number + 1 - window) : number + 1]
        total, good = sum(a for a, _ in last), sum(min(step) for step in last)
        full, holds = len(last) == window, total > 0 and good >= floor * total
        if total and abs(good - floor * total) < 1e-5:
            return  # rounding decides
        stops = full and trusted and not holds
        trusted = trusted or (full and holds and total >= window)
        assert guard.trusts == trusted
        assert (guard.why_to_stop() is not None) == stops
        if stops:
            return


def test_without_a_floor_pseudo_golds_are_used_at_once_and_for_good() -> None:
    guard = Guard(SelfRewardConfig(floor=None, window=1))
    assert guard.trusts
    guard.hear({"self/accepted": 9, "self/accuracy": 0.0})
    assert guard.trusts
    assert guard.why_to_stop() is None


# --- whole runs -----------------------------------------------------------------------------------------------------


def problems_of_the_task(seed: int, garbled: str = "") -> list[Problem]:
    """Forty problems; of those that a run of ``seed`` hides half of, or of the others, the answers are garbled."""
    problems = procedural_problems("missing", "train", 40)
    wrong = {"hidden": True, "visible": False}.get(garbled)
    return [
        replace(p, answer="+" * (1 + n % 3), alternatives=("99",)) if is_hidden(p.id, 0.5, seed) == wrong else p
        for n, p in enumerate(problems)
    ]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with half of its gold answers hidden."""
    run_dir = tmp_path_factory.mktemp("runs") / "honest"
    train(small(run_dir, *HALF, "train.steps=2"), given=Given(train=problems_of_the_task(0)))
    return run_dir


def test_hidden_answers_reach_nothing(tmp_path: Path, honest: Path) -> None:
    """With others in their place every number, every prompt, every label, the pool and the weights are the same."""
    train(small(tmp_path / "other", *HALF, "train.steps=2"), given=Given(train=problems_of_the_task(0, "hidden")))
    assert facts(tmp_path / "other") == facts(honest)
    assert json_lines(tmp_path / "other" / "rollouts.jsonl") == json_lines(honest / "rollouts.jsonl")
    pools = [json.loads((run / "checkpoints" / "step-000002" / "state.json").read_text())["pool"]
             for run in (tmp_path / "other", honest)]  # fmt: skip
    assert pools[0] == pools[1]
    assert same(weights(tmp_path / "other" / "model"), weights(honest / "model"))


def test_answers_that_are_not_hidden_do_reach_it(tmp_path: Path, honest: Path) -> None:
    """What the test above would see."""
    train(small(tmp_path / "other", *HALF, "train.steps=1"), given=Given(train=problems_of_the_task(0, "visible")))
    assert facts(tmp_path / "other")[0] != facts(honest)[0]


def test_pseudo_golds_are_told_apart(honest: Path) -> None:
    rows = json_lines(honest / "rollouts.jsonl")
    of_policy = [row for row in rows if row["task"] == "policy"]
    assert {bool(row.get("pseudo")) for row in of_policy} == {True, False}
    for row in of_policy:
        assert bool(row.get("pseudo")) == is_hidden(row["problem"], 0.5, 0)
    for record in facts(honest):
        statuses = {name: value for name, value in record.items() if name.startswith("status/")}
        assert sum(statuses.values()) == pytest.approx(1)
        assert any(name.startswith("status/pseudo_") for name in statuses) == ("reward/pseudo_policy" in record)
        assert record["self/left_out"] == round(record["self/hidden"] * (1 - record["self/used"]))
        assert record["status/failed"] == 0, "what the judge did not accept is in no group"


def test_tokens_of_judgements_and_of_what_was_left_out_are_counted(honest: Path) -> None:
    for record in facts(honest):
        asked = 6 * 4 + sum(record.get(f"recycled/{task}", 0) * 4 for task in ("pointwise", "pairwise", "reflection"))
        trained = asked - 4 * record["self/left_out"]
        assert record["tokens"] - record["self/tokens"] == pytest.approx(record["length/mean"] * trained)
        assert record["self/tokens"] > 0


def test_with_nothing_hidden_the_run_is_as_ever(tmp_path: Path) -> None:
    """The check changes no number but its own and the tokens it costs."""
    train(small(tmp_path / "ever"))
    train(small(tmp_path / "checked", "reward.self.hidden=0"))
    for ever, checked in zip(facts(tmp_path / "ever"), facts(tmp_path / "checked"), strict=True):
        assert checked.pop("tokens") == ever.pop("tokens") + checked["self/tokens"]
        assert {name: value for name, value in checked.items() if not name.startswith("self/")} == ever
    assert same(weights(tmp_path / "ever" / "model"), weights(tmp_path / "checked" / "model"))


def test_problems_without_a_gold_answer_are_not_asked_before_the_guard_trusts(tmp_path: Path) -> None:
    """Of a batch of six, those with a gold answer alone; a judge that is a coin is never trusted with 1."""
    config = small(tmp_path / "run", *HALF, "reward.self.floor=1", "reward.self.window=3", "train.steps=2")
    with Run(config) as run:
        batch = run.loop.batches.of(0)
        assert 0 < sum(not problem.answer for problem in batch) < 6
        _, groups = run.loop.advance()
        asked = [group.problem.id for group in groups if group.problem.task == "policy"]
        assert asked == [problem.id for problem in batch if problem.answer]


class Listener(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killer(Silent):
    """Ends the run after two steps, whose second is not saved."""

    def step(self, metrics: Mapping[str, Any]) -> None:
        if metrics["step"] == 2:
            raise RuntimeError("killed")


def test_a_resumed_run_ends_in_the_same_numbers(tmp_path: Path) -> None:
    """With a frozen judge, whose weights are in no checkpoint."""
    more = (*HALF, "reward.self.judge=frozen", "train.steps=2", "optimiser.lr=1e-3")
    train(small(tmp_path / "whole", *more))
    with pytest.raises(RuntimeError, match="killed"):
        train(small(tmp_path / "killed", *more), watcher=Killer())
    train(small(tmp_path / "killed", *more), resume=True)
    assert facts(tmp_path / "whole") == facts(tmp_path / "killed")
    assert same(weights(tmp_path / "whole" / "model"), weights(tmp_path / "killed" / "model"))


def test_a_frozen_judge_keeps_the_weights_that_the_run_began_with(tmp_path: Path) -> None:
    with Run(small(tmp_path / "run", *HALF, "reward.self.judge=frozen", "optimiser.lr=1e-3")) as run:
        run.loop.advance()
        assert isinstance(run.sampler, SelfSampler)
        judge: Any = run.sampler.judge.engine
        frozen = dict(judge.loaded.model.named_parameters())
        base = base_weights()
        assert all((frozen[name] == base[name]).all() for name in base)
        assert not all((weight == base[name]).all() for name, weight in run.learner.weights().named() if name in base)


def test_it_stops_itself_with_everything_saved(tmp_path: Path) -> None:
    """The base's judge is a coin: one step is good enough to begin, a later one is not, and the run ends with it."""
    config = ("reward.self.hidden=0.5", "reward.self.judgements=1", "reward.self.window=1", "reward.self.floor=0.4",
              "train.steps=9", "recycle.preset=policy-only")  # fmt: skip
    heard = Listener()
    summary = train(small(tmp_path / "run", *config), watcher=heard)
    records = facts(tmp_path / "run")
    held = [bool(record["self/accepted"]) and record["self/accuracy"] >= 0.4 for record in records]
    trusted = held.index(True)
    assert [record["self/trusts"] for record in records] == [step > trusted for step in range(len(records))]
    assert [record["self/hidden"] > 0 for record in records] == [step > trusted for step in range(len(records))]
    assert held.index(False, trusted) == len(records) - 1 < 8, "the last step is the first that fails"
    assert summary["stopped"]["step"] == len(records)
    assert "where there is a gold answer to compare with" in summary["stopped"]["reason"]
    assert [note for note in heard.notes if note.startswith("ended at step")]
    assert (tmp_path / "run" / "checkpoints" / f"step-{len(records):06d}").is_dir()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    again = train(small(tmp_path / "run", *config), resume=True)
    assert again["stopped"] == summary["stopped"]
    assert facts(tmp_path / "run") == records, "what is resumed ends where it ended"


def test_without_any_gold_answer(tmp_path: Path) -> None:
    config = small(tmp_path / "run", "reward.self.hidden=1", "reward.self.floor=null")
    train(config, given=Given(train=[replace(p, answer="") for p in problems_of_the_task(0)]))
    for record in facts(tmp_path / "run"):
        assert not {"reward/policy", "self/accuracy", "self/votes"} & record.keys()
        assert record["self/hidden"] == 6


# --- data without answers, and what is refused ----------------------------------------------------------------------


def test_rows_without_a_usable_answer_count_as_hidden(tmp_path: Path) -> None:
    rows = [{"question": f"{n}+1?", "answer": str(n + 1)} for n in range(12)]
    rows += [{"question": "what is it?", "answer": ""}, {"question": "and that?", "answer": r"\frac{"}]
    data = f"data.train={write_lines(tmp_path / 'rows.jsonl', *rows)}"
    config = small(tmp_path / "run", data, "data.heldout=split:9")
    assert len(load_all_problems(config)[0]) == 12 - 9, "left out, as ever"
    config = small(tmp_path / "run", data, "data.heldout=split:9", "reward.self.hidden=0")
    problems, exams = load_all_problems(config)
    assert [p.question for p in problems if not has_gold(p)] == ["what is it?", "and that?"]
    assert all(map(has_gold, exams["heldout"])), "an exam needs answers"


@given(st.booleans())
def test_the_mark_of_a_pseudo_gold_survives_a_checkpoint(pseudo: bool) -> None:
    problem = Problem("p", "q", "1", pseudo=pseudo)
    saved = problem_to_dict(problem)
    assert ("pseudo" in saved) == pseudo, "checkpoints of other runs are as they were"
    assert problem_from_dict(saved) == problem


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.self.hidden=1"], r"reward\.self\.hidden is 1, so no gold answer is left to check on"),
        (["reward.self.hidden=0.5", "reward.verifier=1"], r"reward\.function and reward\.verifier can't stand beside"),
        (["reward.self.hidden=0.5", "reward.function=a.py:b"], r"can't stand beside it; leave them out"),
        (["reward.self.hidden=0.5", "rollout.ahead=1"], r"judges a batch by the weights that sampled it"),
        (["reward.self.hidden=1.5"], r"reward\.self\.hidden: input should be less than or equal to 1"),
        (["reward.self.judge=old"], r"reward\.self\.judge: input should be 'current' or 'frozen'"),
    ],
)
def test_settings_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        load_config("tiny", overrides)
    assert "\n" not in str(found.value)


def test_runs_that_make_no_sense(tmp_path: Path) -> None:
    config = small(tmp_path / "run", "reward.self.hidden=0.5")
    with pytest.raises(ConfigError, match="reward functions can't stand beside it"):
        train(config, given=Given(rewards=(lambda completions: [0.0] * len(completions),)))
    with pytest.raises(ConfigError, match=r"no training problem has a gold answer, so reward\.self has nothing"):
        train(config, given=Given(train=[Problem(f"p{n}", f"{n}+1", "") for n in range(9)]))
    config = small(tmp_path / "run", "reward.self.judge=frozen", "cluster.learners=1")
    with pytest.raises(ConfigError, match=r"second model in this process.*take judge=current"):
        frozen_engine(Backend(config, None, None, None, cluster=object()))  # type: ignore[arg-type]
