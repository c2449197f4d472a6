"""A run between its first step and its last: evaluations, the best checkpoint, stops, and numbers that are none."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from running import BASE, ENVIRONMENT, SMALL, command, facts, json_lines, small
from spark_rl import load_config, train
from spark_rl.config import HELDOUT_SCORES, Config
from spark_rl.control import SIGNALS, Control
from spark_rl.errors import ConfigError, Stopped, UserError
from spark_rl.health import Health
from spark_rl.learner.local import LocalLearner
from spark_rl.model.places import find_model
from spark_rl.report.watch import Silent
from spark_rl.run import Run
from spark_rl.runs import checkpoints
from tiny import group_of, learner_of, random_groups, tiny_config

STEPS = 6
EXAMS = ("data.heldout=procedural:missing", "inference.rounds=1")
DURING = (*EXAMS, f"train.steps={STEPS}", "train.eval_every=2", "train.save_every=100", "train.best=pairwise_accuracy")


class Listener(Silent):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.evaluations: list[tuple[int, Mapping[str, Any]]] = []
        self.files: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, metrics: Mapping[str, Any]) -> None:
        self.steps.append(metrics["step"])

    def evaluated(self, step: int, scores: Mapping[str, Any]) -> None:
        self.evaluations.append((step, scores))

    def saved(self, path: Path) -> None:
        self.files.append(path.name)


def weights(folder: Path) -> bytes:
    return b"".join(t.numpy().tobytes() for _, t in sorted(load_file(folder / "model.safetensors").items()))


def step_names(run_dir: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints(run_dir)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listener]:
    """A run that is evaluated every second step and never stopped."""
    run_dir, listener = tmp_path_factory.mktemp("runs") / "straight", Listener()
    train(small(run_dir, *DURING), watcher=listener)
    return run_dir, listener


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without evaluations during training."""
    run_dir = tmp_path_factory.mktemp("runs") / "plain"
    train(small(run_dir, *EXAMS, f"train.steps={STEPS}"))
    return run_dir


# Evaluations during training


def test_evaluations_are_recorded_and_heard(straight: tuple[Path, Listener]) -> None:
    run_dir, listener = straight
    records = json_lines(run_dir / "evaluations.jsonl")
    assert [record.pop("step") for record in records] == [2, 4, 6]
    spent = [step["tokens"] for step in json_lines(run_dir / "metrics.jsonl")]
    assert [record.pop("tokens") for record in records] == [sum(spent[:n]) for n in (2, 4, 6)]
    assert [step for step, _ in listener.evaluations] == [2, 4, 6]
    assert records == [scores for _, scores in listener.evaluations]
    assert all(record["n"] == 8 for record in records)


def test_evaluating_changes_nothing_of_what_is_trained(straight: tuple[Path, Listener], plain: Path) -> None:
    assert facts(straight[0]) == facts(plain)
    assert weights(straight[0] / "model") == weights(plain / "model")
    ours, theirs = (json.loads((path / "summary.json").read_text()) for path in (straight[0], plain))
    assert ours["before"] == theirs["before"]
    assert ours["after"] == theirs["after"]
    assert "best" not in theirs


def test_the_last_evaluation_is_the_one_after_training(straight: tuple[Path, Listener]) -> None:
    run_dir, listener = straight
    assert not [phase for phase in listener.phases if "after training" in phase]
    last = json_lines(run_dir / "evaluations.jsonl")[-1]
    del last["tokens"]
    assert json.loads((run_dir / "summary.json").read_text())["after"] | {"step": STEPS} == last


def test_the_report_draws_them(straight: tuple[Path, Listener], plain: Path) -> None:
    for run_dir, evaluations in ((straight[0], 1 + len(json_lines(straight[0] / "evaluations.jsonl"))), (plain, 2)):
        chart = (run_dir / "report.html").read_text().split('class="wide"')[1].split("</svg>")[0]
        assert len(re.findall("<title>policy: first answers, step ", chart)) == evaluations


def test_the_scores_to_choose_by_are_those_that_are_measured(straight: tuple[Path, Listener]) -> None:
    (record, *_) = json_lines(straight[0] / "evaluations.jsonl")
    constant = {"judge_constant_accuracy"}
    shares = {
        name for name in record if name not in {"n", "step", "tokens"} and not name.endswith(("_low", "_high", "_n"))
    }
    assert {name for name in shares if "/" not in name} - constant == set(HELDOUT_SCORES)


# The best checkpoint


def test_the_best_checkpoint_is_kept_and_named(straight: tuple[Path, Listener]) -> None:
    run_dir, listener = straight
    best = json.loads((run_dir / "summary.json").read_text())["best"]
    scores = {record["step"]: record["pairwise_accuracy"] for record in json_lines(run_dir / "evaluations.jsonl")}
    assert best["step"] == max(scores, key=lambda step: scores[step])
    assert best["score"] == max(scores.values())
    saved = run_dir / "checkpoints" / f"step-{best['step']:06d}"
    assert (run_dir / "best").resolve() == saved
    assert best["use"] == f"--model {saved}"
    assert find_model(saved) == find_model(run_dir / "best") == str(saved / "model")
    assert any(best["use"] in note for note in listener.notes)


def test_a_best_checkpoint_answers_with_the_settings_of_its_run(straight: tuple[Path, Listener]) -> None:
    from spark_rl.cli import parse
    from spark_rl.commands.models import inference_config, settings_of_run, trained_weights

    best = str(straight[0] / "best")
    config = inference_config(parse(["solve", "1+1", "--model", best]))
    assert config.chat.policy == "solve {question}"
    assert trained_weights(best) == (straight[0] / "best").resolve() / "model"
    further = settings_of_run(best)
    assert further is not None
    assert further["model"]["path"] == str(trained_weights(best))


def test_patience_ends_a_run_that_does_not_get_better(tmp_path: Path) -> None:
    """At a rate of 1e-20 nothing moves: the first evaluation stays the best."""
    still = ("optimiser.lr=1e-20", "train.eval_every=1", "train.best=judge_unreadable", "train.patience=2")
    config = small(tmp_path, *EXAMS, "train.steps=50", *still)
    listener = Listener()
    summary = train(config, watcher=listener)
    assert listener.steps == [1, 2, 3]
    assert summary["stopped"]["step"] == 3
    assert summary["best"]["step"] == 1
    assert summary["stopped"]["reason"].startswith("judge_unreadable has not fallen below 0.")
    assert step_names(tmp_path) == [1, 3]
    assert (tmp_path / "model").is_dir()
    again = Listener()
    assert train(config, resume=True, watcher=again)["stopped"] == summary["stopped"]
    assert (again.steps, again.evaluations) == ([], [])
    assert "goes on at step 4 of 50" in again.notes


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["train.eval_every=2", "train.best=tts_acuracy"],
            "there is no such held-out score; did you mean tts_accuracy?",
        ),
        (["train.eval_every=2", "train.best=xyz"], "choose from policy_accuracy, tts_accuracy"),
        (["train.best=tts_accuracy"], "train.best needs evaluations to choose from; set train.eval_every"),
        (["train.patience=2"], "train.patience waits for a better train.best"),
    ],
)
def test_what_can_not_be_chosen_by_is_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace("?", r"\?")):
        load_config("tiny", overrides)


def test_evaluations_need_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval_every needs held-out problems; set data\.heldout"):
        train(small(tmp_path / "run", "train.eval_every=2"))
    assert not (tmp_path / "run").exists()


# Told from outside


class Teller(Listener):
    """Tells the run something after a step."""

    def __init__(self, what: Callable[[Control], None], after: int) -> None:
        super().__init__()
        self.what, self.after = what, after
        self.run: Run | None = None

    def step(self, metrics: Mapping[str, Any]) -> None:
        super().step(metrics)
        assert self.run is not None
        if metrics["step"] == self.after:
            self.what(self.run.control)


def told(config: Config, teller: Teller) -> dict[str, Any]:
    with Run(config, watcher=teller) as run:
        teller.run = run
        return run.train()


def test_a_callback_ends_a_run_like_its_last_step(tmp_path: Path) -> None:
    teller = Teller(lambda control: control.stop("the budget is spent"), 2)
    summary = told(small(tmp_path, *DURING), teller)
    assert summary["stopped"] == {"step": 2, "reason": "the budget is spent"}
    assert teller.steps == [1, 2]
    assert step_names(tmp_path) == [2]
    assert "ended at step 2 of 6: the budget is spent" in teller.notes


def test_a_callback_saves_and_evaluates(tmp_path: Path) -> None:
    def both(control: Control) -> None:
        control.save = control.evaluate = True

    teller = Teller(both, 1)
    told(small(tmp_path, *EXAMS, "train.steps=3"), teller)
    assert teller.files == ["step-000001", "step-000003"]
    assert [step for step, _ in teller.evaluations] == [1]


# Signals


def stopped_when(ready: Callable[[Path], bool], run_dir: Path, *signals: int, resume: bool = False) -> tuple[int, str]:
    """Start or resume the run of ``straight``, stop it when it is ready, and return its exit code and last line."""
    arguments = ("train", "--run-dir", run_dir, "--resume") if resume else (
        "train", "--config", "tiny", "--model", BASE, "--run-dir", run_dir, *SMALL, *DURING, "train.steps=1000",
    )  # fmt: skip
    process = subprocess.Popen(
        command(*arguments), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 150
    while not ready(run_dir) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=100)
    return process.returncode, errors.strip().splitlines()[-1]


def logged(count: int) -> Callable[[Path], bool]:
    """Whether so many steps were logged."""
    return lambda run_dir: (log := run_dir / "metrics.jsonl").exists() and len(log.read_bytes().splitlines()) >= count


def test_a_run_stopped_by_signals_goes_on_bit_for_bit(straight: tuple[Path, Listener], tmp_path: Path) -> None:
    """While it is evaluated, in its steps, and twice in a row: each stop says how to go on, and nothing is lost."""
    run_dir = tmp_path / "it's here"
    go_on = f"continue with: spark-rl train --run-dir '{tmp_path}/it'\"'\"'s here' --resume"
    code, line = stopped_when(lambda path: (path / "pairs.json").exists(), run_dir, signal.SIGTERM)
    assert (code, line.endswith(go_on)) == (143, True), line
    assert line.startswith("spark-rl: stopped by SIGTERM")

    code, line = stopped_when(logged(1), run_dir, signal.SIGHUP, resume=True)
    done = len(facts(run_dir))
    assert code == 129, line
    assert line == f"spark-rl: stopped by SIGHUP at step {done} of 1000, which is saved; {go_on}"
    assert step_names(run_dir)[-1] == done >= 1

    code, line = stopped_when(logged(done + 1), run_dir, signal.SIGINT, signal.SIGINT, resume=True)
    assert (code, line.endswith(go_on)) == (130, True), line
    assert not (run_dir / "summary.json").exists()

    reached = step_names(run_dir)[-1]
    assert reached < STEPS, "the steps of this test are too fast for its signals; give it more of them"
    listener = Listener()
    summary = train(small(run_dir, *DURING), resume=True, watcher=listener)
    assert any(note.startswith(f"goes on at step {reached + 1} of {STEPS}") for note in listener.notes)
    assert facts(run_dir) == facts(straight[0])
    assert json_lines(run_dir / "rollouts.jsonl") == json_lines(straight[0] / "rollouts.jsonl")
    assert json_lines(run_dir / "evaluations.jsonl") == json_lines(straight[0] / "evaluations.jsonl")
    assert weights(run_dir / "model") == weights(straight[0] / "model")
    whole = json.loads((straight[0] / "summary.json").read_text())
    assert {key: summary[key] for key in ("before", "after", "tokens")} == {
        key: whole[key] for key in ("before", "after", "tokens")
    }
    assert summary["best"]["step"] == whole["best"]["step"]
    assert (run_dir / "best").resolve().name == (straight[0] / "best").resolve().name


class Signals(Listener):
    """Sends a signal while something goes on."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self.when = phase

    def progress(self, done: int, total: int) -> None:
        if self.when in self.phases[-1] and done < total:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_during_an_evaluation_saves_the_step_and_evaluates_it_later(
    straight: tuple[Path, Listener], tmp_path: Path
) -> None:
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 4 of 6, which is saved; continue with: ") as caught:
        train(small(tmp_path, *DURING), watcher=Signals("at step 4"))
    assert caught.value.code == 143
    assert isinstance(caught.value, KeyboardInterrupt)
    assert step_names(tmp_path)[-1] == 4
    assert [record["step"] for record in json_lines(tmp_path / "evaluations.jsonl")] == [2]
    train(small(tmp_path, *DURING), resume=True)
    assert json_lines(tmp_path / "evaluations.jsonl") == json_lines(straight[0] / "evaluations.jsonl")
    assert weights(tmp_path / "model") == weights(straight[0] / "model")
    assert (tmp_path / "best").resolve().name == (straight[0] / "best").resolve().name


def test_a_signal_while_loading_says_that_nothing_is_written(tmp_path: Path) -> None:
    class Early(Listener):
        def phase(self, text: str) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="stopped by SIGINT; nothing is written yet; start it again") as caught:
        train(small(tmp_path / "run"), watcher=Early())
    assert caught.value.code == 130
    assert not (tmp_path / "run").exists()


def test_handlers_are_given_back_and_what_was_ignored_stays_ignored() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        control = Control()
        with control.listening():
            with control.listening():
                assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "nohup"
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
            with pytest.raises(Stopped, match="stopped by SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_what_has_begun_is_finished_once_and_a_second_signal_ends_it() -> None:
    said: list[str] = []
    control, finished = Control(said.append), list[int]()

    def work() -> None:
        with control.finishing():
            signal.raise_signal(signal.SIGHUP)
            finished.append(1)
            signal.raise_signal(signal.SIGINT)
            finished.append(2)

    with control.listening():
        with pytest.raises(Stopped) as caught:
            work()
        assert finished == [1]
        assert control.forced
        assert caught.value.code == 129
    for _ in range(200):
        if said:
            break
        time.sleep(0.01)
    assert said == ["stops when this step is done and saved; a second signal ends at once"]


def test_another_thread_hears_no_signals_and_trains(tmp_path: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(train(small(tmp_path, "train.steps=1"))))
    thread.start()
    thread.join()
    assert found[0]["tokens"] > 0


# Numbers that are none


def test_a_run_that_breaks_stops_before_its_last_healthy_checkpoint_is_gone(tmp_path: Path) -> None:
    """From step 3 on the rate is absurd."""
    healthy = ("train.steps=2", "train.save_every=1", "train.keep=1")
    train(small(tmp_path, *healthy))
    whole = weights(checkpoints(tmp_path)[-1] / "model")
    listener = Listener()
    with Run(small(tmp_path, "train.steps=30", *healthy[1:]), resume=True, watcher=listener) as run:
        absurd = run.config.optimiser.model_copy(update={"lr": 1e38})
        run.learner.config = run.config.model_copy(update={"optimiser": absurd})  # type: ignore[attr-defined]
        with pytest.raises(UserError) as caught:
            run.train()
    line = str(caught.value)
    assert f"the last healthy checkpoint is {checkpoints(tmp_path)[-1]}" in line
    assert "Start a new run with a lower optimiser.lr" in line
    assert step_names(tmp_path) == [2]
    assert weights(checkpoints(tmp_path)[-1] / "model") == whole


def test_a_policy_that_is_saturated_is_told_where_nothing_was_saved_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^step 4: all tokens of 3 steps in a row had the probability 1"):
        train(small(tmp_path, "train.steps=9", "train.save_every=100", "optimiser.lr=100"))
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    ("records", "last"),
    [
        ([{"loss": math.nan}] * 9, 3),
        ([{"grad_norm/recycled": math.inf}] * 9, 3),
        ([{"nonfinite": 2.0}, {}, {"nonfinite": 1.0}, {"nonfinite/recycled": 1.0}, {"loss": math.nan}, {}], 5),
        ([{"entropy": math.nan}], 1),
        ([{"entropy": -0.0}] * 9, 3),
        ([{"loss": math.nan}, {"entropy": 0.0}, {"loss": 0.1, "entropy": 0.01}] * 9, None),
    ],
)
def test_trouble_ends_a_run_when_it_lasts(records: list[dict[str, float]], last: int | None, tmp_path: Path) -> None:
    health = Health(tmp_path, load_config("tiny"))
    steps = [{"step": step, **record} for step, record in enumerate(records, start=1)]
    for metrics in steps if last is None else steps[: last - 1]:
        health.check(metrics, [])
    if last is not None:
        with pytest.raises(UserError, match=rf"^step {last}: .*; no checkpoint was saved before\. Start a new run"):
            health.check(steps[last - 1], [])


def test_an_update_that_is_not_finite_is_counted(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"])
    before = [parameter.clone() for parameter in learner.parameters]
    groups = random_groups(2, 4)
    assert "nonfinite" not in learner.update(groups)
    moved = [parameter.clone() for parameter in learner.parameters]
    assert not all(torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    broken = LocalLearner(
        learner.loaded, tiny_config(tiny_models["llama"], objective={"kl": 0.0, "importance_cap": 1.0})
    )
    poisoned = [group_of(g.prompt_ids, [r.completion.token_ids for r in g.rollouts], g.rewards,
                         [[math.nan] * len(r.completion.token_ids) for r in g.rollouts]) for g in groups]  # fmt: skip
    metrics = broken.update(poisoned)
    assert metrics["nonfinite"] == 1
    assert all(torch.equal(a, b) for a, b in zip(moved, learner.parameters, strict=True))


def spoil(run: Run, steps: Sequence[int]) -> None:
    """Make the gradients of some steps NaN, as a kernel that fails or a device that is broken would."""
    learner: Any = run.learner
    for parameter in learner.parameters[:1]:
        parameter.register_hook(lambda gradient: gradient * math.nan if run.loop.step + 1 in steps else None)


ALONE = ("recycle.preset=policy-only", "optimiser.lr=1e-4", "train.save_every=1")


def test_a_gradient_that_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    with Run(small(tmp_path, *ALONE, "train.steps=4", "train.keep=9")) as run:
        spoil(run, [2, 3])
        run.train()
    assert [record.get("nonfinite", 0) for record in json_lines(tmp_path / "metrics.jsonl")] == [0, 1, 1, 0]
    one, two, three, four = (weights(path / "model") for path in checkpoints(tmp_path))
    assert one == two == three != four


def test_gradients_that_stay_so_end_the_run_with_its_last_healthy_weights(tmp_path: Path) -> None:
    with Run(small(tmp_path, *ALONE, "train.steps=2", "train.keep=1")) as run:
        run.train()
    healthy = weights(checkpoints(tmp_path)[-1] / "model")
    with Run(small(tmp_path, *ALONE, "train.steps=9", "train.keep=1"), resume=True) as run:
        spoil(run, range(3, 10))
        with pytest.raises(UserError, match=r"^step 5: loss or gradient were not finite in 3 steps in a row") as caught:
            run.train()
    (last,) = checkpoints(tmp_path)
    assert f"the last healthy checkpoint is {last}" in str(caught.value)
    assert weights(last / "model") == healthy


def test_a_rate_of_100_ends_before_anything_broken_is_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^step 1: the update made the model's own response impossible") as caught:
        train(small(tmp_path, "train.steps=9", "train.save_every=1", "optimiser.lr=100"))
    assert "lower optimiser.lr than 100" in str(caught.value)
    assert not checkpoints(tmp_path)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "summary.json").exists()


# Silence


def test_a_batch_larger_than_the_data_is_said(tmp_path: Path) -> None:
    listener = Listener()
    train(small(tmp_path, "data.limit=4", "train.steps=1", "recycle.preset=policy-only"), watcher=listener)
    assert listener.notes == [
        "rollout.problems asks for 6 problems a step, and the data has 4: a batch holds some of them more than once"
    ]


def test_a_damaged_before_json_is_one_line(tmp_path: Path) -> None:
    train(small(tmp_path, "train.steps=1"))
    for content in ("{", "[]"):
        (tmp_path / "before.json").write_text(content)
        with pytest.raises(ConfigError, match=r"before\.json is damaged; it holds what was measured before training"):
            train(small(tmp_path, "train.steps=2"), resume=True)
