"""RM-based RL and SPARK on the same problems, with the same number of steps, one after the other in one process.

RM-based RL has three stages: the base's responses to training problems, graded once, become preference pairs; a reward
model is trained on them; GRPO then takes its score as the reward of every response. SPARK has one: verifiable rewards,
and recycling. Repeats have seeds of their own, and the arms take turns in being first.

What is done is kept: pairs, reward model and arms lie in the folder, and the same command goes on with what is missing.
Reinforcement learning that was cut off begins again, because a process that is gone measured the first part of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spark_rl.backend import open_backend
from spark_rl.chat import chat_of
from spark_rl.config import Config, load_config
from spark_rl.cost.judge import own_verdicts, scored_verdicts, threshold_of
from spark_rl.cost.preferences import Pair
from spark_rl.cost.record import RM, SPARK, Arm, Cost, Stage, arm_facts, read_arm, read_stage, stage_facts
from spark_rl.cost.reward_model import RewardModel, RewardTraining, check_classifier, load_reward_model
from spark_rl.cost.stages import draw_preferences, grading, learning, rm_config, train_reward_model
from spark_rl.errors import ConfigError
from spark_rl.evals.heldout import HeldOutEvaluation, Scores, draw_pairs
from spark_rl.evals.heldout import Pair as HeldOutPair
from spark_rl.files import read_object, write_json
from spark_rl.given import load_all_problems
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.lock import hold
from spark_rl.model.load import describe_model, fitted_to_model, resolve_device
from spark_rl.parts import with_resolved_paths
from spark_rl.plan.memory import Rehearsals
from spark_rl.plan.shape import has_reference, model_config
from spark_rl.report.watch import Silent, Watcher
from spark_rl.rewards import Grader

Pairs = Mapping[str, Sequence[HeldOutPair]]
"""Exam -> pairs of the base's responses, about which every judge is asked."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A trained reward model, and the score from which on it calls a response right."""

    model: RewardModel
    threshold: float


def measure_cost(
    recipe: str | None, overrides: Sequence[str], folder: Path, *, steps: int, repeats: int = 1,
    training: RewardTraining | None = None, watcher: Watcher | None = None,
) -> Cost:  # fmt: skip
    """Train both arms, or read what was measured before, and return what each took and reached.

    Args:
        recipe: a YAML file or a recipe's name.
        overrides: ``key=value`` settings.
        folder: where everything goes; its parts are kept and not made again.
        steps: of reinforcement learning, the same for both arms.
        repeats: how often, with the seeds ``seed``, ``seed + 1``, ...; more of them may be asked for later.
        training: how the reward model is trained.
        watcher: hears of phases and steps.

    Raises:
        ConfigError: a setting is wrong, there is nothing to compare on, the problems have images, transformers has no
            sequence classifier of the base, or ``folder`` holds what was measured with other settings.
        UserError: the base gives no pairs, or the reward model failed.
    """
    training = training or RewardTraining()
    config = cost_config(recipe, overrides, steps)
    settings = {"config": config.model_dump(mode="json"), "reward_model": asdict(training)}
    with hold(folder):
        known = read_object(folder / "settings.json")
        if known and known != settings:
            raise ConfigError(f"{folder} was measured with other settings; choose another --run-dir, or remove it")
        measuring = _Measuring(config, folder, training, watcher or Silent())
        write_json(folder / "settings.json", settings)
        return measuring.run(steps, repeats)


def cost_config(recipe: str | None, overrides: Sequence[str], steps: int) -> Config:
    """The recipe with ``steps`` steps and nothing measured between them, on one thread unless ``overrides`` say more.

    Raises:
        ConfigError: a setting is wrong, or there are no held-out problems.
    """
    config = with_resolved_paths(load_config(recipe, ["model.threads=1", *overrides]))
    if config.data.heldout is None:
        raise ConfigError("without held-out problems there is nothing to compare; set data.heldout")
    train = config.train.model_copy(update={"steps": steps, "eval_every": None, "best": None, "patience": None})
    return config.model_copy(update={"train": train, "run_dir": None})


class _Measuring:
    """The parts of one measurement; :meth:`run` does what is not there yet."""

    def __init__(self, config: Config, folder: Path, training: RewardTraining, watcher: Watcher) -> None:
        self.folder, self.training, self.watcher = folder, training, watcher
        self.config = fitted_to_model(config)
        self.problems, self.exams = load_all_problems(self.config)
        asked = (*self.problems, *(problem for exam in self.exams.values() for problem in exam))
        if any(problem.images for problem in asked):
            raise ConfigError("a reward model of transformers' sequence classification reads text only, and these "
                              "problems have images; choose a recipe without")  # fmt: skip
        found = model_config(config.model.path, trust_remote_code=config.model.trust_remote_code)
        check_classifier(found)
        self.sizes = Rehearsals(found).sizes(config)
        self.multiplied = self.sizes.multiplied + self.sizes.head

    def run(self, steps: int, repeats: int) -> Cost:
        """Both arms of every repeat, the first of them in turn."""
        before, pairs = self._base()
        arms: dict[str, list[Arm]] = {RM: [], SPARK: []}
        for repeat in range(repeats):
            for name in (RM, SPARK) if repeat % 2 == 0 else (SPARK, RM):
                arms[name].append(self._arm(name, repeat, pairs))
        return Cost(steps, before, {name: tuple(done) for name, done in arms.items()})

    def _base(self) -> tuple[Mapping[str, Scores], Pairs]:
        """The base's scores, and its responses about which every judge is asked. It warms the process up too."""
        path = self.folder / "base.json"
        known = read_object(path)
        if not known:
            self.watcher.phase("measuring the base")
            backend = open_backend(self.config)
            try:
                with grading(backend, self.config) as grader:
                    reasoner = build_reasoner(backend.engine, backend.chat, self.config)
                    drawn = {name: draw_pairs(reasoner, grader, exam) for name, exam in self.exams.items()}
                    before = self._examine(reasoner, grader, drawn, None)
            finally:
                backend.close()
            known = {"before": before, "pairs": {name: list(map(asdict, pairs)) for name, pairs in drawn.items()}}
            write_json(path, known)
        return known["before"], {
            name: [HeldOutPair(**pair) for pair in found] for name, found in known["pairs"].items()
        }

    def _arm(self, name: str, repeat: int, pairs: Pairs) -> Arm:
        """One arm of one repeat, all its stages."""
        folder = self.folder / f"repeat{repeat}"
        path, run_dir = folder / f"{name}.json", folder / f"{name}-run"
        if known := read_object(path):
            return read_arm(known)
        folder.mkdir(exist_ok=True)
        if run_dir.exists():  # of a process that was cut off
            shutil.rmtree(run_dir)
        config = self.config.model_copy(update={"seed": self.config.seed + repeat})
        stages, judge = ((), None) if name == SPARK else self._judge(config, folder)
        data = config.data.model_copy(update={"heldout": None, "transfer": None})  # examined here, and held out already
        config = config.model_copy(update={"data": data, "run_dir": str(run_dir)})
        config = config if judge is None else rm_config(config, judge.threshold)
        self.watcher.phase(f"{name}, repeat {repeat}: reinforcement learning")
        model = None if judge is None else judge.model
        with learning(config, self.problems, model, self.multiplied, self.watcher) as (stage, run):
            self.watcher.phase(f"{name}, repeat {repeat}: measuring the trained model")
            with grading(run.backend, self.config) as grader:
                scores = self._examine(run.reasoner, grader, pairs, judge)
        arm = Arm(name, config.seed, (*stages, stage), self._held(config, model), scores)
        write_json(path, arm_facts(arm))
        return arm

    def _judge(self, config: Config, folder: Path) -> tuple[tuple[Stage, ...], Judge]:
        """The two extra stages of RM-based RL, each kept when it is done."""
        path, model_dir, after = folder / "preferences.json", folder / "reward-model", folder / "reward-model.json"
        known = read_object(path)
        if not known:
            self.watcher.phase(f"preferences of {self.training.problems} problems")
            stage, pairs = draw_preferences(config, self.problems, self.training, self.multiplied)
            known = {"stage": stage_facts(stage), "pairs": list(map(asdict, pairs))}
            write_json(path, known)
        pairs = [Pair(**pair) for pair in known["pairs"]]
        trained = read_object(after)
        if not trained:
            self.watcher.phase(f"training the reward model on {len(pairs)} pairs")
            stage = train_reward_model(config, pairs, self.training, model_dir)
            trained = {"stage": stage_facts(stage)}
        described = describe_model(config)
        chat, device = chat_of(config, described), resolve_device(config.model.device)
        model = load_reward_model(model_dir, chat, device, config)
        if "threshold" not in trained:
            trained["threshold"] = threshold_of(model, pairs)
            write_json(after, trained)
        stages = (read_stage(known["stage"]), read_stage(trained["stage"]))
        return stages, Judge(model, trained["threshold"])

    def _examine(self, reasoner: Reasoner, grader: Grader, pairs: Pairs, judge: Judge | None) -> dict[str, Scores]:
        """The scores of each exam, those of the reward model among them where there is one."""
        found = {}
        for name, problems in self.exams.items():
            scores = HeldOutEvaluation(reasoner, grader, problems, pairs[name], self.watcher.progress).run()
            scores |= own_verdicts(reasoner, problems, pairs[name])
            if judge is not None:
                scores |= scored_verdicts(judge.model, judge.threshold, reasoner, grader, problems, pairs[name])
            found[name] = scores
        return found

    def _held(self, config: Config, judge: RewardModel | None) -> dict[str, int]:
        """Models in memory during reinforcement learning -> bytes of their weights, without moments and gradients."""
        own = self.sizes.weights * (2 if config.model.dtype == "bfloat16" else 4)
        held = {"policy": own} | ({"reference": own} if has_reference(config) else {})
        return held if judge is None else held | {"reward model": judge.bytes}
