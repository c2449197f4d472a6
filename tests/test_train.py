"""The loop: its configurations, its data order, what may reach training, and that a killed run loses nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from running import BASE, ENVIRONMENT, SMALL, command, facts, json_lines, loop_of, small, write_lines
from spark_rl import Problem, load_config, train
from spark_rl.config import Config
from spark_rl.data.batches import Shuffled
from spark_rl.errors import ChatError, ConfigError, DataError
from spark_rl.given import load_all_problems
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.samples import mixed, to_samples, whole_groups
from spark_rl.loop import second_period
from spark_rl.model.places import EMBEDDED
from spark_rl.problem import TASKS, Task
from spark_rl.report.watch import Silent
from spark_rl.runs import checkpoints

STEPS, SAVE_EVERY = 8, 3


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def base_weights() -> dict[str, torch.Tensor]:
    return weights(EMBEDDED["embedded"] if BASE == "embedded" else Path(BASE))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SPARK for some steps, with held-out problems."""
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    summary = train(long(run_dir))
    assert summary == json.loads((run_dir / "summary.json").read_text())
    return run_dir


def long(run_dir: Path, *overrides: str) -> Config:
    return small(
        run_dir, f"train.steps={STEPS}", f"train.save_every={SAVE_EVERY}", "data.heldout=procedural:missing",
        "data.transfer=procedural:operators", *overrides,
    )  # fmt: skip


def beyond_a_checkpoint(run_dir: Path) -> bool:
    """Whether steps were logged that the last checkpoint does not hold."""
    return bool(checkpoints(run_dir)) and len((run_dir / "metrics.jsonl").read_text().splitlines()) > SAVE_EVERY


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The same run, killed a step or more after its first checkpoint and resumed; and the step it was resumed from."""
    run_dir = tmp_path_factory.mktemp("runs") / "killed"
    # given a thousand steps to do, so that it can't be done before it is killed
    process = subprocess.Popen(
        command(
            "train", "--config", "tiny", "--model", BASE, "--run-dir", run_dir, *SMALL, "train.steps=1000",
            f"train.save_every={SAVE_EVERY}", "data.heldout=procedural:missing", "data.transfer=procedural:operators",
        ),
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 150
    while not beyond_a_checkpoint(run_dir) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    step = int(checkpoints(run_dir)[-1].name.removeprefix("step-"))
    assert not (run_dir / "summary.json").exists()
    train(long(run_dir), resume=True)
    return run_dir, step


def test_the_killed_run_had_steps_left(resumed: tuple[Path, int]) -> None:
    assert SAVE_EVERY <= resumed[1] < STEPS


def test_a_resumed_run_has_the_metrics_of_one_that_was_never_killed(straight: Path, resumed: tuple[Path, int]) -> None:
    assert len(facts(straight)) == STEPS
    assert facts(resumed[0]) == facts(straight)


def test_a_resumed_run_has_the_same_rollouts(straight: Path, resumed: tuple[Path, int]) -> None:
    assert json_lines(resumed[0] / "rollouts.jsonl") == json_lines(straight / "rollouts.jsonl")


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(straight: Path, resumed: tuple[Path, int]) -> None:
    assert same(weights(straight / "model"), weights(resumed[0] / "model"))
    assert not same(weights(straight / "model"), base_weights())


def test_a_resumed_run_counts_tokens_and_scores_alike(straight: Path, resumed: tuple[Path, int]) -> None:
    ours, theirs = (json.loads((path / "summary.json").read_text()) for path in (straight, resumed[0]))
    assert ours["tokens"] == theirs["tokens"] == sum(record["tokens"] for record in facts(straight))
    assert ours["before"] == theirs["before"]
    assert ours["after"] == theirs["after"]
    assert ours["transfer"] == theirs["transfer"]


def test_the_last_step_is_saved_and_old_checkpoints_go(straight: Path, resumed: tuple[Path, int]) -> None:
    for run_dir in (straight, resumed[0]):
        assert [path.name for path in checkpoints(run_dir)] == ["step-000006", "step-000008"]
        assert same(weights(checkpoints(run_dir)[-1] / "model"), weights(run_dir / "model"))
        assert not list((run_dir / "checkpoints").glob(".*"))


def test_a_finished_run_can_be_given_more_steps(resumed: tuple[Path, int]) -> None:
    run_dir = resumed[0]
    before = facts(run_dir)
    train(long(run_dir, f"train.steps={STEPS + 1}"), resume=True)
    assert facts(run_dir)[:STEPS] == before
    assert [record["step"] for record in facts(run_dir)] == list(range(1, STEPS + 2))


def test_a_finished_run_is_not_relabelled_as_a_shorter_one(straight: Path) -> None:
    saved = (straight / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=f"has done {STEPS} steps already, more than the 2 asked for"):
        train(long(straight, "train.steps=2"), resume=True)
    assert (straight / "config.json").read_bytes() == saved


@pytest.mark.parametrize(
    "override", ["rollout.samples=5", "seed=1", "optimiser.lr=1e-5", "model.path=elsewhere", "recycle.balance=true"]
)
def test_resuming_with_another_setting_is_refused_and_changes_nothing(straight: Path, override: str) -> None:
    saved = (straight / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=f"was made with {override.partition('=')[0]}="):
        train(load_config(None, [override], **json.loads(saved)), resume=True)
    assert (straight / "config.json").read_bytes() == saved


def test_a_directory_with_a_run_is_not_written_over(straight: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run; continue it with --resume"):
        train(long(straight))


def test_a_run_that_was_never_there_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run to resume"):
        train(small(tmp_path / "none"), resume=True)
    assert not (tmp_path / "none").exists()


def test_the_final_model_loads_with_plain_transformers(straight: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(straight / "model")
    tokenizer = AutoTokenizer.from_pretrained(straight / "model")
    assert same({k: v for k, v in model.state_dict().items() if k in base_weights()}, weights(straight / "model"))
    assert tokenizer.decode(tokenizer("solve 7*_-4=17", add_special_tokens=False)["input_ids"]) == "solve 7*_-4=17"


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path, straight: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(small(tmp_path / name, f"seed={seed}"))
    a, b, c = (facts(tmp_path / name) for name in "abc")
    assert a == b == facts(straight)[: len(a)]
    assert [record["tokens"] for record in a] != [record["tokens"] for record in c]


def test_a_model_that_knows_nothing_trains_too(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """Groups without a single box give no signal and no recycled problems; the loop must not mind."""
    rows = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}+1", "answer": str(n + 1)} for n in range(5)))
    model = f"model.path={tiny_models['no_template']}"
    config = small(tmp_path / "run", model, f"data.train={rows}", "data.heldout=split:2", "objective.kl=0.01")
    summary = train(config)
    assert summary["before"]["n"] == 2
    assert all(record["pool"] == 0 for record in facts(tmp_path / "run"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's, of transformers
def test_adapters_train_and_resume_exactly_too(tmp_path: Path) -> None:
    adapters = ("model.lora.rank=2", "optimiser.lr=1e-3", "objective.kl=0.01")
    train(small(tmp_path / "a", "train.steps=3", *adapters))
    train(small(tmp_path / "b", "train.steps=2", *adapters))
    train(small(tmp_path / "b", "train.steps=3", *adapters), resume=True)
    assert facts(tmp_path / "a") == facts(tmp_path / "b")
    ours, theirs = (load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in "ab")
    assert same(ours, theirs)
    assert any(tensor.abs().sum() > 0 for name, tensor in ours.items() if "lora_B" in name)


def test_spark_learns(tmp_path: Path) -> None:
    """A short real run makes the embedded base better at solving and at judging what it was never trained on.

    Over three seeds this run took the policy from 0.25 to 0.73 or more, the judge from 0.46 to 0.73 or more and
    pairwise judging from about 0.48 to 0.70 or more; the margins leave half of that.
    """
    shorter = (
        "model.threads=1", "train.steps=20", "rollout.problems=24", "recycle.judge_cap=14", "recycle.reflection_cap=6",
        "recycle.ready=20", "optimiser.lr=3e-4", "data.transfer=null", "evaluation.problems=100", "inference.rounds=1",
    )  # fmt: skip
    summary = train(load_config("tiny", shorter, model={"path": BASE}, run_dir=str(tmp_path)))
    before, after = summary["before"], summary["after"]
    assert after["policy_accuracy"] > before["policy_accuracy"] + 0.24
    assert after["judge_accuracy"] > before["judge_accuracy"] + 0.13
    assert after["pairwise_accuracy"] > before["pairwise_accuracy"] + 0.08
    assert after["tts_accuracy"] > before["tts_accuracy"] + 0.2
    records = facts(tmp_path)
    assert sum(record["reward/policy"] for record in records[-5:]) > 1.3 * sum(r["reward/policy"] for r in records[:5])


# The four configurations of the paper, and the two ways to run a step


def trained(run_dir: Path, *overrides: str) -> tuple[list[dict[str, Any]], set[str]]:
    """Metrics, and the tasks that rollouts were drawn for."""
    train(small(run_dir, "train.steps=3", *overrides))
    return facts(run_dir), {record["task"] for record in json_lines(run_dir / "rollouts.jsonl")}


def test_spark_trains_on_everything(straight: Path) -> None:
    tasks = {record["task"] for record in json_lines(straight / "rollouts.jsonl")}
    assert tasks == set(TASKS)
    assert all("loss" in record for record in facts(straight))
    assert any("loss/recycled" in record for record in facts(straight))


def test_policy_only_recycles_nothing(tmp_path: Path) -> None:
    records, tasks = trained(tmp_path, "recycle.preset=policy-only")
    assert tasks == {"policy"}
    assert all(record["pool"] == 0 for record in records)
    assert not any("recycled" in key for record in records for key in record)


def test_policy_and_reward_judges_and_does_not_reflect(tmp_path: Path) -> None:
    records, tasks = trained(tmp_path, "recycle.preset=policy-and-reward", "recycle.ready=3")
    assert tasks == {"policy", "pointwise", "pairwise"}
    assert any("loss/recycled" in record for record in records)


def test_reward_only_updates_on_judge_problems_alone(tmp_path: Path) -> None:
    only = ("train.policy_update=false", "recycle.reflection=false")
    records, tasks = trained(tmp_path / "a", *only, "recycle.ready=3", "train.steps=5")
    assert tasks == {"policy", "pointwise", "pairwise"}
    assert not any("loss" in record for record in records)
    assert any("loss/recycled" in record for record in records)
    assert not same(weights(tmp_path / "a" / "model"), base_weights())


def test_reward_only_leaves_the_weights_alone_while_nothing_is_ready(tmp_path: Path) -> None:
    only = ("train.policy_update=false", "recycle.reflection=false", "recycle.ready=1000")
    records, tasks = trained(tmp_path, *only)
    assert tasks == {"policy"}
    assert records[-1]["pool"] > 0
    assert same(weights(tmp_path / "model"), base_weights())


def test_two_periods_train_on_what_the_same_step_recycled(tmp_path: Path) -> None:
    records, _ = trained(tmp_path, "recycle.ready=1")
    assert {"loss", "loss/recycled", "reward/policy"} <= records[0].keys()
    assert any(f"recycled/{task}" in records[0] for task in TASKS[1:])


def test_a_combined_step_trains_once_on_what_earlier_steps_recycled(tmp_path: Path) -> None:
    records, _ = trained(tmp_path, "recycle.ready=1", "train.periods=combined")
    assert not any(f"recycled/{task}" in records[0] for task in TASKS[1:])
    assert any(f"recycled/{task}" in records[1] for task in TASKS[1:])
    assert not any(key.endswith("/recycled") for record in records for key in record)


def test_both_ways_see_the_same_first_batch(tmp_path: Path) -> None:
    two, _ = trained(tmp_path / "two", "recycle.ready=1000")
    combined, _ = trained(tmp_path / "combined", "recycle.ready=1000", "train.periods=combined")
    assert two == combined


def test_steps_follow_from_episodes_and_the_data(tmp_path: Path) -> None:
    train(small(tmp_path, "train.steps=null", "train.episodes=2", "data.limit=7", "recycle.preset=policy-only"))
    assert len(facts(tmp_path)) == 3  # 14 problems, 6 a step


# What is too long to be asked


def recycled(number: int, task: Task, *, long: bool) -> Problem:
    prompt = "7*_-4=17 " * (30 if long else 1)
    return Problem(id=f"p/{task}-{number}", question="?", answer="Yes", kind="verdict", task=task, prompt=prompt)


def test_recycled_problems_that_are_too_long_are_counted_by_task_and_replaced(tmp_path: Path) -> None:
    config = small(tmp_path, "recycle.preset=policy-only", "recycle.ready=4", "rollout.max_prompt_tokens=60")
    with loop_of(config) as loop:
        waiting = [recycled(n, "reflection" if n % 3 else "pointwise", long=n in {0, 2, 4}) for n in range(9)]
        loop.pool.add(waiting)
        metrics, groups = loop.advance()
        asked = [group.problem for group in groups if group.problem.task != "policy"]
        assert asked == [waiting[n] for n in (1, 3, 5, 6)], "the next in turn take their places"
        assert (metrics["recycled/pointwise"], metrics["recycled/reflection"]) == (2, 2)
        assert {name: value for name, value in metrics.items() if name.startswith("skipped")} == {
            "skipped": 3, "skipped/policy": 0, "skipped/pointwise": 1, "skipped/pairwise": 0, "skipped/reflection": 2,
        }  # fmt: skip
        assert loop.pool.take(99) == waiting[7:], "and no more than that leave the pool"


def test_a_pool_that_runs_out_of_short_problems_gives_what_it_has(tmp_path: Path) -> None:
    config = small(tmp_path, "recycle.preset=policy-only", "recycle.ready=4", "rollout.max_prompt_tokens=60")
    with loop_of(config) as loop:
        loop.pool.add(recycled(n, "pairwise", long=n != 1) for n in range(5))
        metrics, _ = loop.advance()
        assert (metrics["recycled/pairwise"], metrics["skipped/pairwise"], metrics["pool"]) == (1, 4, 0)
        loop.pool.add(recycled(n, "pairwise", long=True) for n in range(4))
        metrics, groups = loop.advance()
        assert {group.problem.task for group in groups} == {"policy"}
        assert metrics["skipped/pairwise"] == 4
        assert "loss/recycled" not in metrics


def test_what_falls_out_of_the_pool_is_counted_by_step(tmp_path: Path) -> None:
    with loop_of(small(tmp_path, "recycle.pool_size=5", "recycle.ready=5")) as loop:
        loop.pool.add(recycled(n, "pairwise", long=False) for n in range(5))
        dropped = [loop.advance()[0]["dropped"] for _ in range(2)]
        assert dropped[0] > 0
        assert sum(dropped) == loop.pool.dropped


def test_too_long_problems_are_counted_over_a_run_and_across_a_resume(tmp_path: Path) -> None:
    """More than 12 tokens are too long: most recycled prompts, and one of the data in ten."""
    rows = [{"question": f"{n}*_-4=17" if n % 10 else "1+1+1+1*_-4=1", "answer": "3"} for n in range(10, 40)]
    shorter = ("recycle.ready=2", "rollout.max_prompt_tokens=12", "rollout.problems=15", "train.save_every=1",
               f"data.train={write_lines(tmp_path / 'd.jsonl', *rows)}")  # fmt: skip
    listener = Listener()
    whole = train(small(tmp_path / "a", "train.steps=4", *shorter), watcher=listener)
    skipped = {task: sum(record[f"skipped/{task}"] for record in facts(tmp_path / "a")) for task in TASKS}
    assert whole["skipped"] == skipped
    assert skipped["policy"] == 2 * 3, "two passes over the data, in which three are too long"
    assert sum(skipped.values()) > skipped["policy"]
    counts = ", ".join(f"{count} {task}" for task, count in skipped.items() if count)
    assert f"problems not asked, because longer than rollout.max_prompt_tokens: {counts}" in listener.heard
    train(small(tmp_path / "b", "train.steps=2", *shorter))
    parts = train(small(tmp_path / "b", "train.steps=4", *shorter), resume=True)
    assert facts(tmp_path / "a") == facts(tmp_path / "b")
    assert parts["skipped"] == skipped
    assert same(weights(tmp_path / "a" / "model"), weights(tmp_path / "b" / "model"))


# The learning rate over a run


def test_the_schedule_ends_with_the_run_when_the_second_period_is_not_always_run(tmp_path: Path) -> None:
    """With the last rate of ten steps in one place whether recycled problems were ready seldom, often or never."""
    ends = []
    for ready in (3, 9, 1000):
        schedule = ("optimiser.schedule=linear", "optimiser.final_lr=0", "optimiser.lr=1e-6", f"recycle.ready={ready}")
        with loop_of(small(tmp_path, *schedule), steps=5) as loop:
            records = [loop.advance()[0] for _ in range(5)]
        rates = [rate for record in records for name, rate in record.items() if name.startswith("lr")]
        assert rates == sorted(rates, reverse=True)
        ends.append(records[-1]["lr"])
    assert ends == [pytest.approx(1e-6 / 5)] * 3


@pytest.mark.parametrize(
    ("override", "begins"),
    [
        ("recycle.preset=paper", 0.5),
        ("recycle.preset=policy-only", 1.0),
        ("train.periods=combined", 1.0),
        ("train.policy_update=false", 0.0),
    ],
)
def test_a_step_is_shared_by_the_updates_it_can_have(override: str, begins: float) -> None:
    assert second_period(load_config(None, [override])) == begins


def test_more_steps_change_the_schedule_and_the_run_says_so(tmp_path: Path) -> None:
    schedule = ("optimiser.schedule=linear", "optimiser.final_lr=0.1", "recycle.preset=policy-only")
    train(small(tmp_path, "train.steps=2", *schedule))
    listener = Listener()
    train(small(tmp_path, "train.steps=4", *schedule), resume=True, watcher=listener)
    assert [record["lr"] for record in facts(tmp_path)] == pytest.approx([1e-4, 5.5e-5, 5.5e-5, 3.25e-5])
    assert listener.heard[1] == (
        "the linear schedule of the learning rate now ends at step 4 instead of 2: at step 3 it goes on at 5.5e-05 "
        "instead of 1e-05"
    )


def test_a_resume_with_other_micro_batches_says_that_it_may_diverge(tmp_path: Path) -> None:
    train(small(tmp_path))
    listener = Listener()
    train(small(tmp_path, "train.steps=3", "learner.micro_tokens=64"), resume=True, watcher=listener)
    assert listener.heard[1] == (
        "this run may diverge from one that was never interrupted: rounding depends on what changed "
        "(learner.micro_tokens 4096 -> 64)"
    )


def test_a_combined_batch_in_minibatches_learns_from_each_task_in_each(tmp_path: Path) -> None:
    """Kinds that take turns: whoever is told the tasks of a minibatch sees the mixture of the whole batch."""
    config = small(tmp_path, "train.periods=combined", "learner.minibatches=3", "recycle.ready=6")
    with loop_of(config) as loop:
        loop.pool.add(recycled(n, "pairwise", long=False) for n in range(6))
        metrics, groups = loop.advance()
        assert Counter(group.problem.task for group in groups) == {"policy": 6, "pairwise": 6}
        assert not any(name.endswith("/recycled") for name in metrics)
        samples, _ = to_samples(mixed(groups), config)
        for part in whole_groups(samples, 3):
            tasks = [mixed(groups)[number].problem.task for number in {samples[i].group for i in part}]
            assert Counter(tasks) == {"policy": 2, "pairwise": 2}


# What may reach training


def test_recycled_problems_are_never_recycled_again(straight: Path) -> None:
    rows = json_lines(straight / "rollouts.jsonl")
    policy = {row["problem"] for row in rows if row["task"] == "policy"}
    recycled = [row["problem"] for row in rows if row["task"] != "policy"]
    waiting = json.loads((checkpoints(straight)[-1] / "state.json").read_text())["pool"]
    assert recycled
    assert waiting
    for name in [*recycled, *(row["id"] for row in waiting)]:
        parent, made = name.split("/")
        assert parent in policy
        assert made.split("-")[0] in TASKS[1:]


def test_every_recycled_problem_is_trained_on_once(straight: Path) -> None:
    rows = [row for row in json_lines(straight / "rollouts.jsonl") if row["task"] != "policy"]
    assert max(Counter((row["problem"], row["prompt"]) for row in rows).values()) == 1


def test_heldout_problems_never_reach_training(tmp_path: Path) -> None:
    rows = ({"question": f"7*_-{n}={49 - n}", "answer": "7"} for n in range(1, 10))
    data = write_lines(tmp_path / "d.jsonl", *rows)
    config = small(tmp_path / "run", f"data.train={data}", "data.heldout=split:4", "train.steps=4")
    problems, exams = load_all_problems(config)
    held = {problem.question for problem in exams["heldout"]}
    assert len(held) == 4
    assert len(problems) == 5
    train(config)
    trained_on = {row["prompt"] for row in json_lines(tmp_path / "run" / "rollouts.jsonl")}
    assert trained_on >= {f"solve {problem.question}" for problem in problems}
    assert not [(prompt, question) for prompt in trained_on for question in held if question in prompt]


def test_a_heldout_file_is_taken_out_of_the_training_data(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(6)))
    held = write_lines(tmp_path / "h.jsonl", {"question": " 3 ", "answer": "1"}, {"question": "99", "answer": "1"})
    config = load_config(None, [f"data.train={data}", f"data.heldout={held}", "evaluation.problems=1"])
    problems, exams = load_all_problems(config)
    assert [problem.question for problem in problems] == ["0", "1", "2", "4", "5"]
    assert [problem.question for problem in exams["heldout"]] == ["3"]  # the second is cut, and stays held out


def test_more_problems_are_held_out_than_evaluated(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(9)))
    config = load_config(None, [f"data.train={data}", "data.heldout=split:5", "evaluation.problems=2"])
    problems, exams = load_all_problems(config)
    assert (len(problems), len(exams["heldout"])) == (4, 2)


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(50)))

    def held(seed: int) -> list[str]:
        config = load_config(None, [f"data.train={data}", "data.heldout=split:10", f"seed={seed}"])
        return [problem.question for problem in load_all_problems(config)[1]["heldout"]]

    assert held(0) == held(0)
    assert held(0) != held(1)
    assert len(set(held(0))) == 10


def test_two_splits_share_nothing(tmp_path: Path) -> None:
    """Not even a question that the data has twice."""
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n % 40}", "answer": "1"} for n in range(60)))
    config = load_config(None, [f"data.train={data}", "data.heldout=split:15", "data.transfer=split:15"])
    problems, exams = load_all_problems(config)
    parts = [{p.question for p in part} for part in (problems, exams["heldout"], exams["transfer"])]
    assert [len(exams[name]) for name in ("heldout", "transfer")] == [15, 15]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert parts[0] | parts[1] | parts[2] == {str(n) for n in range(40)}
    alone = load_all_problems(load_config(None, [f"data.train={data}", "data.heldout=split:15"]))[1]
    assert exams["heldout"] == alone["heldout"], "a second split does not change the first"


@pytest.mark.parametrize(("split", "file"), [("heldout", "transfer"), ("transfer", "heldout")])
def test_a_split_shares_nothing_with_a_file(tmp_path: Path, split: str, file: str) -> None:
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(20)))
    other = write_lines(tmp_path / "o.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(10)))
    config = load_config(None, [f"data.train={data}", f"data.{split}=split:9", f"data.{file}={other}"])
    problems, exams = load_all_problems(config)
    assert list(exams) == ["heldout", "transfer"]
    assert not {p.question for p in exams[split]} & {p.question for p in exams[file]}
    assert len(exams[split]) == 9
    assert len(problems) == 1


def test_splits_that_are_more_than_the_data_are_refused_by_name(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(9)))
    config = load_config(None, [f"data.train={data}", "data.heldout=split:5", "data.transfer=split:4"])
    with pytest.raises(ConfigError, match=r"^data\.transfer 'split:4': N in split:N must be from 1 to 3"):
        load_all_problems(config)


@pytest.mark.parametrize("size", ["0", "6", "7", "-1", "x", "", "1.5", "²"])
def test_a_split_that_leaves_nothing_is_refused(tmp_path: Path, size: str) -> None:
    data = write_lines(tmp_path / "d.jsonl", *({"question": f"{n}", "answer": "1"} for n in range(6)))
    with pytest.raises(ConfigError, match="must be from 1 to 5"):
        load_all_problems(load_config(None, [f"data.train={data}", f"data.heldout=split:{size}"]))


def test_procedural_heldout_problems_share_nothing_with_training() -> None:
    problems, exams = load_all_problems(load_config("tiny"))
    assert set(exams) == {"heldout", "transfer"}
    questions = {problem.question for problem in problems}
    assert not [p for exam in exams.values() for p in exam if p.question in questions]


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("data.train=missing.jsonl", DataError),
        ("data.heldout=missing.jsonl", DataError),
        ("data.heldout=split:0", ConfigError),
        ("model.path=missing-model", ConfigError),
        ("recycle.templates=missing", ValueError),
        ("model.device=warp", ConfigError),
        ("chat.policy={question} {answer}", ChatError),
        ("rollout.max_prompt_tokens=3", ConfigError),
    ],
)
def test_a_run_that_can_not_start_leaves_nothing_behind(tmp_path: Path, override: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        train(small(tmp_path / "run", override))
    assert not (tmp_path / "run").exists()


# The order of the data


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 5))
def test_every_pass_covers_every_problem_once(count: int, size: int, seed: int) -> None:
    problems = [Problem(id=str(n), question=str(n), answer="1") for n in range(count)]
    steps = -(-3 * count // size)
    stream = [problem.id for step in range(steps) for problem in Shuffled(problems, size, seed).of(step)]
    assert len(stream) == steps * size
    for start in range(0, 3 * count, count):
        assert sorted(stream[start : start + count], key=int) == [str(n) for n in range(count)]


def test_passes_and_seeds_differ_in_order() -> None:
    problems = [Problem(id=str(n), question=str(n), answer="1") for n in range(30)]
    passes = [[p.id for p in Shuffled(problems, 30, seed).of(step)] for seed in (0, 1) for step in range(3)]
    assert len({tuple(order) for order in passes}) == len(passes)


def test_a_batch_depends_on_its_step_alone() -> None:
    problems = [Problem(id=str(n), question=str(n), answer="1") for n in range(10)]
    batches = [Shuffled(problems, 4, 0).of(step) for step in range(6)]
    assert [Shuffled(problems, 4, 0).of(step) for step in reversed(range(6))] == batches[::-1]
    assert all(a != b for a, b in pairwise(batches))


# What a watcher hears


class Listener(Silent):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def phase(self, text: str) -> None:
        self.heard.append(text)

    def note(self, text: str) -> None:
        self.heard.append(text)

    def begin(self, total_steps: int, done: int) -> None:
        self.heard.append((total_steps, done))

    def step(self, metrics: Any) -> None:
        self.heard.append(metrics["step"])

    def end(self) -> None:
        self.heard.append("end")


def test_a_watcher_hears_the_run_in_order(tmp_path: Path) -> None:
    listener = Listener()
    train(small(tmp_path, "data.heldout=procedural:missing", "recycle.preset=policy-only"), watcher=listener)
    assert listener.heard == [
        "loading the data and the model",
        "drawing pairs of responses to compare",
        "evaluating 8 heldout problems before training",
        (2, 0),
        1,
        2,
        "end",
        "evaluating 8 heldout problems after training",
    ]


def test_the_engine_is_handed_the_weights_after_every_update(tmp_path: Path) -> None:
    with loop_of(small(tmp_path, "recycle.ready=2")) as loop:
        assert isinstance(loop.learner, LocalLearner)
        for _ in range(3):
            metrics, _ = loop.advance()
            both = "loss/recycled" in metrics
            assert loop.sampler.engine.version == loop.learner.updates
            assert both
        assert loop.learner.updates == 6
