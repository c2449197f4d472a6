"""SPARK from a script: :class:`SparkTrainer`, with the names that someone knows from TRL's ``GRPOTrainer``.

It is the same run as ``spark-rl train``: the same settings, seeds, numbers and files. ``docs/trainer.md`` has the table
of what differs from TRL.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, overload

from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging as transformers_logging

from spark_rl.arguments import check_given, exam_of, load_described, named_sets, read_arguments
from spark_rl.backend import open_backend
from spark_rl.callbacks import Callbacks, flat_scores
from spark_rl.config import IN_MEMORY, Config
from spark_rl.data.memory import asked
from spark_rl.errors import ConfigError, DataError
from spark_rl.evals.heldout import HeldOutEvaluation, draw_pairs
from spark_rl.export import push
from spark_rl.files import resolved
from spark_rl.given import Given, load_all_problems
from spark_rl.inference import Judgement, Reasoner, Trace, build_reasoner, judge
from spark_rl.learner.policy import first_not_finite
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.restore import frozen_copy
from spark_rl.model.weights import ModelWeights
from spark_rl.problem import Problem
from spark_rl.recycle import load_templates
from spark_rl.report.card import CARD, model_card
from spark_rl.report.live import OneByOne
from spark_rl.report.watch import ConsoleWatcher, Silent
from spark_rl.rewards import Reward, open_rewards
from spark_rl.rollout import build_grader
from spark_rl.run import Run
from spark_rl.runs import checkpoints, find_run, is_checkpoint, is_run, new_run_dir, placed
from spark_rl.verify import Verifier


class SparkTrainer:
    """Trains one model to solve and to judge, and asks it before and after.

    ::

        trainer = SparkTrainer(
            model="Qwen/Qwen2.5-0.5B-Instruct",
            args=load_config(rollout={"problems": 16}),
            train_dataset=[{"question": "What is 6 times 7?", "answer": "42"}, ...],
        )
        trainer.train()
        trainer.solve("What is 7 times 8?").answer

    Everything is checked when it is made: data, settings, and that the model can be trained here.
    """

    def __init__(
        self,
        model: Any = None,
        reward_funcs: str | Reward | Sequence[str | Reward] | None = None,
        args: Config | Mapping[str, Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        reward_weights: Sequence[float] | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
        peft_config: Any = None,
        progress: bool = True,
    ) -> None:
        """Read the data and load the model.

        Args:
            model: a name or path as ``model.path`` takes it, or a loaded model of transformers or peft, which stays
                in its number format and on its device; ``None`` takes ``model.path`` of ``args``.
            reward_funcs: functions of the completions and the columns of their rows, or ``file.py:name``; beside the
                verifier or in its place, as ``reward.verifier`` says.
            args: the settings: a :class:`Config` (:func:`load_config`), or nested mappings that differ from the
                defaults. Without ``run_dir`` a run is written to ``runs/<time>-seed<seed>``.
            train_dataset: a ``datasets.Dataset``, a list of dicts or of :class:`Problem`, or a stream: an iterable that
                can be gone through again, or a function that returns one; a text is read as ``data.train`` is.
            eval_dataset: problems that are never trained on, of the same kinds, or up to two sets of them by name.
            processing_class: the tokenizer of a loaded model, or its processor if it sees; ``None`` loads it from where
                the model came from.
            reward_weights: one weight for each of ``reward_funcs``; 1 each without.
            callbacks: of transformers, instances or classes (:mod:`spark_rl.callbacks`).
            peft_config: adapters to train in place of the whole model, as ``model.lora`` has them or others.
            progress: whether phases and steps are shown.

        Raises:
            UserError: one line that says what can't be used, and how to mend it.
        """
        if callbacks is not None and not isinstance(callbacks, list | tuple):
            raise ConfigError(f"callbacks is a {type(callbacks).__name__}; it must be a list of callbacks")
        transformers_logging.disable_progress_bar()  # a bar for each file that is loaded or saved
        self._arguments = read_arguments(
            model, args, train_dataset, eval_dataset, reward_funcs, reward_weights, peft_config
        )
        config = self._arguments.config
        load_templates(config.recycle.templates, config.verify.thinking)  # what is wrong with them is told first
        self._loaded, self.args = load_described(model, processing_class, config, peft_config)
        self._reference: LoadedModel | None = None
        self._run: Run | None = None
        self._begun = False
        """Whether the model in memory may have been trained."""
        self._watcher = ConsoleWatcher(OneByOne()) if progress else Silent()
        self._callbacks = Callbacks(
            callbacks or (), self.args, self._watcher, lambda: None if self._run is None else self._run.control,
            model=self.model, processing_class=self.processing_class,
        )  # fmt: skip

    @property
    def model(self) -> Any:
        """The model that is trained: transformers', or its peft wrapper."""
        return self._loaded.model

    @property
    def processing_class(self) -> Any:
        """The processor of a model that sees, the tokenizer of any other."""
        return self._loaded.processor or self._loaded.tokenizer

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self._loaded.tokenizer

    @property
    def state(self) -> TrainerState:
        """``state.log_history`` has the metrics of every step, ``state.global_step`` counts them."""
        return self._callbacks.state

    @property
    def run_dir(self) -> Path:
        """Where the run is written: settings, metrics, checkpoints, the trained model and ``report.html``."""
        return Path(str(self.args.run_dir))

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """One callback more, an instance or a class."""
        self._callbacks.add(callback)

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """Train to the end, and evaluate before and after if there are problems for it.

        Args:
            resume_from_checkpoint: ``True`` goes on in ``run_dir`` from its last checkpoint; a path names the run, or
                its last checkpoint.

        Returns:
            ``global_step``, ``training_loss`` (the mean over the steps) and ``metrics``, what ``summary.json`` holds.

        Raises:
            UserError: the run can't begin or go on, in one line.
        """
        resume = resume_from_checkpoint is not None and resume_from_checkpoint is not False
        if resume:
            self._go_on(resume_from_checkpoint)
            if self._begun and not checkpoints(self.run_dir):
                raise ConfigError(f"{self.run_dir} has no checkpoint, and the model in memory has been trained since; "
                                  "begin again with a new SparkTrainer")  # fmt: skip
        elif is_run(self.run_dir) and not self._begun and self._arguments.names_run_dir:
            self.args = self.args.model_copy(update={"run_dir": new_run_dir(self.args.seed)})
        elif is_run(self.run_dir):
            raise ConfigError(f"{self.run_dir} already holds a run; go on with train(resume_from_checkpoint=True), or "
                              "give args another run_dir")  # fmt: skip
        with ExitStack() as stack:
            if isinstance(self._watcher, ConsoleWatcher):
                self._watcher.run_dir = self.run_dir
                stack.enter_context(self._watcher)
            self._watcher.note(f"run     {self.run_dir}")
            run = stack.enter_context(Run(self.args, resume=resume, watcher=self._callbacks, given=self._given()))
            self._run, self._begun = run, True
            try:
                summary = run.train()
            finally:
                self._run = None
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        mean = sum(losses) / len(losses) if losses else 0.0
        return TrainOutput(self.state.global_step, mean, summary)

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, Any]:
        """The scores of the model as it is on held-out problems: answering, judging, comparing, reflecting.

        ``eval_policy_accuracy``, ``eval_judge_accuracy``, ``eval_tts_accuracy`` and so on (docs/evaluation.md), each
        with the ends of its interval in ``_low`` and ``_high``; a second set has its name in front.

        Args:
            eval_dataset: problems in place of those the trainer was made with.
            metric_key_prefix: what the names of the scores begin with.

        Raises:
            UserError: there are no problems to evaluate.
        """
        names, rewards = self._arguments.names, self._arguments.rewards
        if eval_dataset is None:
            exams = load_all_problems(self.args, self._given())[1]
        else:
            names, sets = named_sets(eval_dataset)
            exams = {}
            for key, data in sets.items():
                check_given(data, "eval_dataset")
                exams[key] = exam_of(data, self.args, rewards)[: self.args.evaluation.problems]
        if not exams:
            raise DataError("there is nothing to evaluate; give eval_dataset")
        scores: dict[str, Any] = {}
        with self._reasoner() as reasoner, Verifier(self.args.verify) as verifier, ExitStack() as stack:
            functions = open_rewards(self.args.reward, rewards, self._callbacks.note)
            if functions is not None:
                stack.callback(functions.close)
            grader = build_grader(reasoner.chat, verifier, self.args.reward, functions)
            for key, problems in exams.items():
                self._callbacks.phase(f"evaluating {len(problems)} {names.get(key, key)} problems")
                pairs = draw_pairs(reasoner, grader, problems)
                scores[key] = HeldOutEvaluation(reasoner, grader, problems, pairs, self._callbacks.progress).run()
            self._watcher.end()
        metrics = flat_scores(scores, metric_key_prefix, names)
        self._callbacks.examined(metrics, self.state.global_step)
        return metrics

    @overload
    def solve(self, question: str | Problem, images: Any = ()) -> Trace: ...  # type: ignore[overload-overlap]
    @overload
    def solve(self, question: Sequence[str | Problem], images: Any = ()) -> list[Trace]: ...
    def solve(self, question: str | Problem | Sequence[str | Problem], images: Any = ()) -> Trace | list[Trace]:
        """Answer, let the model judge its answer, and reflect where it rejects it (Eq. 9 to 11), as ``inference`` says.

        Args:
            question: one question or problem, or a list.
            images: of one question, one or several; of a list, one list of images for each question. Paths, bytes, or
                pictures.

        Returns:
            A :class:`spark_rl.inference.Trace` with every round; ``trace.answer`` is the final answer.
        """
        problems = self._asked(question, images)
        with self._reasoner() as reasoner:
            traces = reasoner.solve(problems)
        return traces[0] if isinstance(question, str | Problem) else traces

    @overload
    def judge(  # type: ignore[overload-overlap]
        self, question: str | Problem, response: str, other: str | None = None, images: Any = ()
    ) -> Judgement: ...
    @overload
    def judge(
        self, question: Sequence[str | Problem], response: Sequence[str], other: Sequence[str] | None = None,
        images: Any = (),
    ) -> list[Judgement]: ...  # fmt: skip
    def judge(
        self, question: str | Problem | Sequence[str | Problem], response: str | Sequence[str],
        other: str | Sequence[str] | None = None, images: Any = (),
    ) -> Judgement | list[Judgement]:  # fmt: skip
        """What the model says of a response (Eq. 10), or with ``other`` of which of the two is right (Eq. 6).

        Args:
            question: one question or problem, or a list.
            response: what is judged, of a list one for each question.
            other: the second response, of a list one for each question.
            images: as for :meth:`solve`.

        Returns:
            A :class:`spark_rl.inference.Judgement`: ``verdict`` is ``Yes`` or ``No``, or ``A`` or ``B``.
        """
        problems, single = self._asked(question, images), isinstance(question, str | Problem)
        responses = _texts(response, "response", len(problems), single)
        others = None if other is None else _texts(other, "other", len(problems), single)
        with self._reasoner() as r:
            judged = judge(problems, responses, r.engine, r.chat, r.templates, r.config, r.seed, others=others)
        return judged[0] if single else judged

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write weights (or adapters) and tokenizer or processor, loadable with ``from_pretrained``.

        Args:
            output_dir: the folder; ``None`` is ``model`` in the run's directory, where ``train`` writes them too.
        """
        folder = self.run_dir / "model" if output_dir is None else Path(output_dir)
        if (broken := first_not_finite(self.model.named_parameters())) is not None:
            raise ConfigError(f"the weights are not finite ({broken[1]} is the first), so they are not written; the "
                              f"last healthy ones are those of the checkpoints of {self.run_dir}")  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._loaded.save(folder)
        except OSError as error:
            raise ConfigError(f"cannot write the model to {folder}: {error.strerror or error}") from None

    def push_to_hub(
        self, repo_id: str, commit_message: str = "End of training", *, private: bool | None = None,
        token: str | None = None, revision: str | None = None,
    ) -> str:  # fmt: skip
        """Put what :meth:`save_model` writes, with a model card after training, into a repository of the hub.

        The repository is made if there is none.

        Args:
            repo_id: ``name`` or ``owner/name``.
            commit_message: of the commit.
            private: whether a new repository is; ``None`` is what your account says.
            token: ``None`` takes the one that you logged in with.
            revision: the branch.

        Returns:
            The address of the repository.

        Raises:
            ConfigError: the hub can't be reached or says no.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._loaded.save(Path(folder))
            if (self.run_dir / "summary.json").is_file():
                (Path(folder) / CARD).write_text(model_card(self.run_dir), encoding="utf-8")
            return push(folder, repo_id, private, token=token, message=commit_message, revision=revision)

    def _given(self) -> Given:
        """What a run gets in place of what its settings name."""
        in_memory_model = self.args.model.path.startswith(IN_MEMORY)
        if in_memory_model and self.args.objective.kl > 0 and not hasattr(self.model, "disable_adapter"):
            self._reference = self._reference or frozen_copy(self._loaded)
        given = self._arguments
        return Given(
            model=self._loaded, reference=self._reference, train=given.train, batches=given.stream,
            heldout=given.heldout, transfer=given.transfer, rewards=given.rewards,
        )  # fmt: skip

    def _go_on(self, checkpoint: bool | str | Path | None) -> None:
        """Settle where a run goes on. Raises :class:`ConfigError` if there is no checkpoint."""
        run_dir = self.run_dir
        if not isinstance(checkpoint, str | Path | bool):
            raise ConfigError(
                f"resume_from_checkpoint is a {type(checkpoint).__name__}; it must be True, or name a run"
            )
        if not isinstance(checkpoint, bool):
            named = placed(checkpoint)
            run_dir = find_run(checkpoint) or named
            last = next(reversed(checkpoints(run_dir)), None)
            if is_checkpoint(named) and last is not None and resolved(named) != resolved(last):
                raise ConfigError(f"{named} is not the last checkpoint of {run_dir}; a run goes on from its last, "
                                  f"{last.name}: remove it to go on from one before")  # fmt: skip
        if not is_run(run_dir):
            raise ConfigError(f"{run_dir} holds no run to go on with; give args its run_dir, or call train() to begin")
        self.args = self.args.model_copy(update={"run_dir": str(run_dir)})

    @contextmanager
    def _reasoner(self) -> Iterator[Reasoner]:
        """The model as it is now, in its three roles."""
        if self._run is not None:
            yield self._run.reasoner
            return
        backend = open_backend(self.args, loaded=self._loaded)
        try:
            backend.engine.sync(ModelWeights(self._loaded.model, 0))
            yield build_reasoner(backend.engine, backend.chat, self.args)
        finally:
            backend.engine.close()

    def _asked(self, question: Any, images: Any) -> list[Problem]:
        settings = self.args.data.images
        if isinstance(question, str | Problem):
            return [asked(question, images, settings)]
        if not isinstance(question, list | tuple):
            raise DataError(f"question is a {type(question).__name__}; it must be a text, a Problem, or a list of them")
        shown = images or [()] * len(question)
        if not isinstance(shown, list | tuple) or len(shown) != len(question):
            raise DataError(f"images must be one list of images for each of the {len(question)} questions")
        return [asked(each, its, settings) for each, its in zip(question, shown, strict=True)]


def _texts(given: Any, name: str, count: int, single: bool) -> list[str]:
    """Responses as a list, one for each question."""
    texts = [given] if single else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{name} must be {'text' if single else 'a list of texts, one for each question'}")
    if len(texts) != count:
        raise DataError(f"{name} has {len(texts)} texts for {count} questions; give one for each")
    return list(texts)
