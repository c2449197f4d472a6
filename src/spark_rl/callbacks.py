"""transformers' callbacks, hearing of a run: the part of ``Trainer`` that ``TrainerCallback`` is written against.

Called are ``on_init_end``, ``on_train_begin``, ``on_step_begin``, ``on_step_end``, ``on_log``, ``on_evaluate``,
``on_save`` and ``on_train_end``, with ``args`` (a ``TrainingArguments`` of what a run has of it), ``state``,
``control``, ``model`` and ``processing_class``. Of ``control``, ``should_training_stop``, ``should_save`` and
``should_evaluate`` are done after the step. Epochs, substeps and the optimiser's steps are no events of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spark_rl.config import Config
from spark_rl.control import Control
from spark_rl.errors import ConfigError
from spark_rl.report.watch import Watcher


class Callbacks:
    """A watcher that tells callbacks what happens, and another watcher too."""

    def __init__(
        self,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]],
        config: Config,
        watcher: Watcher,
        control: Callable[[], Control | None],
        **objects: Any,
    ) -> None:
        """Tell everyone that the trainer is there.

        Args:
            callbacks: instances, or classes to make them of.
            config: of the run.
            watcher: a :class:`spark_rl.report.watch.Watcher` that hears everything as well.
            control: finds the control of the run that goes on, if one does.
            objects: what callbacks get by name, ``model`` and ``processing_class``.

        Raises:
            ConfigError: one of them is no callback.
        """
        self.watcher, self.objects, self._control_of = watcher, objects, control
        self.args = TrainingArguments(
            output_dir=str(config.run_dir), max_steps=config.train.steps or -1, learning_rate=config.optimiser.lr,
            seed=config.seed, per_device_train_batch_size=config.rollout.problems, logging_steps=1,
            save_steps=config.train.save_every, save_total_limit=config.train.keep, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        self.state = TrainerState(logging_steps=1, save_steps=config.train.save_every)
        self.control = TrainerControl()
        self.callbacks: list[TrainerCallback] = []
        for callback in callbacks:
            self.add(callback)
        self.call("on_init_end")

    def add(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """One callback more. Raises :class:`ConfigError` if it is none."""
        made = callback() if isinstance(callback, type) and issubclass(callback, TrainerCallback) else callback
        if not isinstance(made, TrainerCallback):
            raise ConfigError(f"a callback must be a transformers.TrainerCallback, not a {type(made).__name__}")
        self.callbacks.append(made)

    def call(self, event: str, **more: Any) -> None:
        """Tell all callbacks, and do what they ask for."""
        for callback in self.callbacks:
            answer = getattr(callback, event)(self.args, self.state, self.control, **self.objects, **more)
            self.control = self.control if answer is None else answer
        control = self._control_of()
        if control is None:
            return
        if self.control.should_training_stop:
            control.stop("a callback asked for it")
        if self.control.should_save:
            control.save = True
        if self.control.should_evaluate:
            control.evaluate = True
        self.control.should_save = self.control.should_evaluate = self.control.should_log = False

    def log(self, entry: Mapping[str, Any], step: int) -> None:
        """An entry of ``state.log_history``."""
        self.state.log_history.append({**entry, "step": step})
        self.call("on_log", logs=dict(entry))

    def phase(self, text: str) -> None:
        self.watcher.phase(text)

    def note(self, text: str) -> None:
        self.watcher.note(text)

    def hint(self, text: str) -> None:
        self.watcher.hint(text)

    def progress(self, done: int, total: int) -> None:
        self.watcher.progress(done, total)

    def begin(self, total_steps: int, done: int) -> None:
        self.watcher.begin(total_steps, done)
        self.state.max_steps, self.state.global_step = total_steps, done
        del self.state.log_history[:]
        self.control.should_training_stop = False
        self.call("on_train_begin")
        if done < total_steps:
            self.call("on_step_begin")

    def step(self, metrics: Mapping[str, Any]) -> None:
        self.watcher.step(metrics)
        self.state.global_step = int(metrics["step"])
        self.call("on_step_end")
        self.log({name: value for name, value in metrics.items() if name != "step"}, self.state.global_step)
        if self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            self.call("on_step_begin")

    def evaluated(self, step: int, scores: Mapping[str, Any]) -> None:
        self.watcher.evaluated(step, scores)
        self.examined(flat_scores({"heldout": scores}), step)

    def examined(self, metrics: Mapping[str, Any], step: int) -> None:
        """Held-out problems were answered: ``metrics`` by flat names."""
        self.log(metrics, step)
        self.call("on_evaluate", metrics=dict(metrics))

    def saved(self, path: Path) -> None:
        self.watcher.saved(path)
        self.call("on_save")

    def end(self) -> None:
        self.watcher.end()
        self.call("on_train_end")


def flat_scores(
    scores: Mapping[str, Any], prefix: str = "eval", names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The scores of exams under flat names: ``eval_policy_accuracy`` of the held-out problems, ``eval_transfer_...`` of
    others. ``names`` gives exams other names.
    """
    flat: dict[str, Any] = {}
    for exam, found in scores.items():
        name = (names or {}).get(exam, "" if exam == "heldout" else exam)
        start = f"{prefix}_{name}_" if name else f"{prefix}_"
        flat |= {f"{start}{key}": value for key, value in found.items()}
    return flat
