"""TRL's ``GRPOTrainer`` with the recycling of SPARK (Sec. 3.2, Eq. 5 to 8) between its generations.

What is seen in ``_calculate_rewards`` becomes problems of :func:`spark_rl.recycle.recycle`, which wait in a
:class:`~spark_rl.recycle.Pool`. Once it holds enough, the next generation batch, as ``_prepare_inputs`` has it made,
gets the oldest as further rows: whole blocks of ``num_generations``, with the columns of their parents. From there on
they are rows like any other: generated, rewarded, normalised by group and trained on by TRL.

Everything random is a function of the seed and of how many generation batches there were, every rank sees all groups,
and so all ranks hold the same pool. It is saved in each checkpoint, before anything else of it.

Departures from :mod:`spark_rl.loop`:

- Policy and recycled rows share an update, as with ``train.periods=combined``; TRL has no second period. The recycled
  rows come on top of TRL's generation batch, so data is drawn as without them, and each micro-batch has more rows.
- TRL's objective, advantage and sampling are TRL's.
- A response is right as the verifier finds it wherever the row has a gold answer that it can use, also beside reward
  functions; otherwise from ``reward.threshold`` on, compared with the weighted mean of the rewards.
- A group is made of the responses of one block of a generation batch, and its id is its place in there.
"""

from __future__ import annotations

import logging
import math
import random
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import Config, parse_config
from spark_rl.data.source import HEAD
from spark_rl.errors import ConfigError, DataError
from spark_rl.files import parse_json, write_json
from spark_rl.integrations.trl.rewards import answers, answers_only
from spark_rl.integrations.trl.rows import COLUMN, Row, Rows
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.recycle import Pool, load_templates, recycle
from spark_rl.rewards.grade import Grader, by_threshold, weighted_mean
from spark_rl.rollout import as_read
from spark_rl.seeds import stream_seed
from spark_rl.verify import Verifier

POOL = "spark_pool.json"
"""The file of a checkpoint that holds the pool."""

SECTIONS = ("data", "recycle", "reward", "verify")
"""What ``spark`` may set; all else is TRL's."""

Graded = tuple[Problem | None, str, Verdict | None]
"""The problem of a row, a response to it, and what the verifier says of that, if it was asked."""

logger = logging.getLogger(__name__)


class SparkGRPOTrainer(GRPOTrainer):
    """``GRPOTrainer`` that trains the same model as its own judge, on what its rollouts are recycled into.

    ::

        trainer = SparkGRPOTrainer(
            "Qwen/Qwen2.5-0.5B-Instruct", None, GRPOConfig("out"), dataset, spark={"recycle": {"balance": True}}
        )
        trainer.train()

    Args:
        model: as for ``GRPOTrainer``.
        reward_funcs: as for ``GRPOTrainer``; they see answers and second attempts, never verdicts. ``None``: the
            verifier, which compares the box of each response with the gold answer of its row.
        args: a ``GRPOConfig``.
        train_dataset: rows with a ``prompt`` and what :mod:`spark_rl.data.layouts` finds: ``question`` (else the user's
            turn) and ``answer``, ``solution``, ``ground_truth`` and so on. Other columns go to the reward functions.
        spark: settings of the sections ``recycle``, ``reward`` (``form``, ``threshold``, ``verifier``), ``verify`` and
            ``data`` (``columns``, ``kind``, ``layout``), as in a YAML file, or a whole ``Config``. ``recycle.ready``
            counts the recycled problems of a generation batch over all ranks; unless it is set there are as many as
            there are policy problems. Of those, unless ``judge_cap`` and ``reflection_cap`` are set, each kind gives
            half at most, the authors' proportions.
        trl: everything else that ``GRPOTrainer`` takes, but for tools and environments.

    Raises:
        UserError: settings or data that can't be used, in one line.
    """

    _tag_names = ("trl", "grpo", "spark")
    reward_weights: torch.Tensor
    """(functions,) TRL's, and the verifier's at the end."""

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: Any = None, train_dataset: Any = None, *,
        spark: Config | Mapping[str, Any] | None = None, **trl: Any,
    ) -> None:  # fmt: skip
        self.spark = settings_of(spark)
        for name in ("tools", "environment_factory"):
            if trl.get(name):
                raise ConfigError(f"SparkGRPOTrainer takes no {name}: a transcript of tools is no response to judge")
        load_templates(self.spark.recycle.templates, self.spark.verify.thinking)
        functions = (
            [] if reward_funcs is None else list(reward_funcs) if isinstance(reward_funcs, list) else [reward_funcs]
        )
        self._verifier_weight = _verifier_weight(self.spark, alone=not functions)
        self._graded: list[Graded] = []
        """The rows of this rank's batch, in the order of their responses."""
        self._verifier = Verifier(self.spark.verify)
        weakref.finalize(self, self._verifier.close)

        def verifier(**_: Any) -> list[float | None]:
            return self._verifier_rewards()

        given = [f if isinstance(f, str | nn.Module) else answers_only(f) for f in functions]
        super().__init__(model, given or verifier, args, train_dataset, **trl)
        if given:
            self.reward_funcs.append(verifier)
            self.reward_func_names.append("verifier")
            self.reward_processing_classes.append(None)
            self.reward_weights = torch.cat([self.reward_weights, torch.tensor([self._verifier_weight or 1.0])])

        chat = ChatFormat(self._tokenizer, self.spark.chat)
        head = list(islice(self.train_dataset, HEAD))
        self._rows = Rows.of(head, self.spark, chat, needs_gold=not given)
        self._generations = 0
        """Generation batches that were recycled."""
        self._count = self._recycled_problems()
        half = -(-self._count // 2)
        self._recycling = self.spark.recycle.model_copy(
            update={cap: half for cap in ("judge_cap", "reflection_cap") if not self._is_set(cap)}
        )
        self.pool = Pool(max(self.spark.recycle.pool_size, self._count))

    def _is_set(self, name: str) -> bool:
        """Whether a setting of ``recycle`` was given."""
        return "recycle" in self.spark.model_fields_set and name in self.spark.recycle.model_fields_set

    def _recycled_problems(self) -> int:
        """Recycled problems of a generation batch, over all ranks.

        Raises:
            ConfigError: their rows can't be divided by ranks and steps.
        """
        n, parts = self.num_generations, self.accelerator.num_processes * self.args.steps_per_generation
        count = self.spark.recycle.ready if self._is_set("ready") else self.args.generation_batch_size // n
        unit = math.lcm(n, parts) // n
        if count % unit:
            raise ConfigError(f"recycle.ready is {count}: {count} x {n} rows can't be divided by {parts}, processes x "
                              f"steps_per_generation; set it to {max(unit, count // unit * unit)}")  # fmt: skip
        return count

    def _generate_and_score_completions(self, inputs: list[Row]) -> Any:
        """A generation batch, with the problems of its rows, and with recycled ones once there are enough."""
        rows = [{**row, COLUMN: self._rows.problem(row)} for row in inputs]
        return super()._generate_and_score_completions(self._mixed(rows) if self.model.training else rows)

    def _mixed(self, rows: list[Row]) -> list[Row]:
        """This rank's rows of the generation batch: blocks of one prompt, policy and recycled ones taking turns."""
        if not self.pool.ready(self._count):
            return rows
        n, world, rank = self.num_generations, self.accelerator.num_processes, self.accelerator.process_index
        policy: list[Row] = gather_object(rows)
        keys = [key for key in rows[0] if key not in {COLUMN, "prompt"}]
        again = [self._rows.row(problem, keys) for problem in self.pool.take(self._count)]
        blocks = [policy[first : first + n] for first in range(0, len(policy), n)]
        more = [[dict(row) for _ in range(n)] for row in again]
        turns = sorted(
            [((place + 0.5) / len(kind), which, block)
             for which, kind in enumerate((blocks, more)) for place, block in enumerate(kind)],
            key=lambda turn: turn[:2],
        )  # fmt: skip
        mixed = [row for *_, block in turns for row in block]
        share = len(mixed) // world
        return mixed[rank * share : (rank + 1) * share]

    def _calculate_rewards(
        self, inputs: list[Row], prompts: list[Any], completions: list[Any], completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        """TRL's rewards of all ranks, (rows, functions), of which the last is the verifier; then recycling."""
        problems: list[Problem | None] = [row[COLUMN] for row in inputs]
        texts = self._texts(prompts, completions)
        self._graded = list(zip(problems, texts, self._verified(problems, texts), strict=True))
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if any(isinstance(function, nn.Module) for function in self.reward_funcs):
            judged = gather(torch.tensor([not answers(p) for p in problems], device=rewards.device))
            for column, function in enumerate(self.reward_funcs):
                if isinstance(function, nn.Module):
                    rewards[judged, column] = torch.nan
        if self.model.training:
            self._recycle(rewards)
        return rewards

    def _texts(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[str]:
        """Responses as they are read: one that goes on a thought which the template began has its opening tag."""
        texts = [text if isinstance(text, str) else str(text[-1].get("content") or "") for text in completions]
        known: dict[str, str] = {}

        def ends(prompt: Any) -> str:
            if isinstance(prompt, str):
                return prompt
            key = repr(prompt)
            if key not in known:
                known[key] = self.processing_class.apply_chat_template(
                    prompt, chat_template=self.chat_template, add_generation_prompt=True, tokenize=False,
                    **self.chat_template_kwargs,
                )  # fmt: skip
            return known[key]

        drawn = [[Completion(text, (), (), "stop")] for text in texts]
        asked = [Prompt(ends(prompt), (), ()) for prompt in prompts]
        return [read.text for (read,) in as_read(drawn, asked, self._rows.chat, self.spark.verify.thinking)]

    def _verified(self, problems: Sequence[Problem | None], texts: Sequence[str]) -> list[Verdict | None]:
        """What the verifier says of responses to problems with a label or gold answer."""
        asked = {
            place: problem for place, problem in enumerate(problems) if problem is not None and self._verifies(problem)
        }
        verdicts = Grader(self._verifier).grade(
            list(asked.values()), [texts[place] for place in asked], form=self.spark.reward.form
        )
        found = dict(zip(asked, verdicts, strict=True))
        return [found.get(place) for place in range(len(problems))]

    def _verifies(self, problem: Problem) -> bool:
        return not answers(problem) or (bool(problem.answer) and self.spark.reward.verifier != 0)

    def _verifier_rewards(self) -> list[float | None]:
        """The verifier's reward for each row of this rank, ``None`` where functions alone give one."""
        return [
            None if verdict is None or (answers(problem) and not self._verifier_weight) else verdict.reward
            for problem, _, verdict in self._graded
        ]

    def _recycle(self, rewards: torch.Tensor) -> None:
        """All groups of a generation batch, on every rank, become problems that wait in the pool.

        Args:
            rewards: (rows of all ranks, functions).
        """
        everything: list[Graded] = gather_object(self._graded)
        scores, weights, n = rewards.tolist(), self.reward_weights.tolist(), self.num_generations
        groups, counts = [], defaultdict[str, list[float]](list)
        for first in range(0, len(everything), n):
            problem, block = everything[first][0], range(first, first + n)
            if problem is None:
                continue
            terms = [[(weight, None if math.isnan(score) else score)
                      for weight, score in zip(weights, scores[row], strict=True)] for row in block]  # fmt: skip
            rollouts = [self._rollout(everything[row], row_terms) for row, row_terms in zip(block, terms, strict=True)]
            counts[problem.task] += [float(rollout.verdict.status == "correct") for rollout in rollouts]
            if problem.task == "policy":
                groups.append(Group(replace(problem, id=f"{self._generations}.{first // n}"), tuple(rollouts), ()))
        rng = random.Random(stream_seed(self.args.seed, "recycle", self._generations))
        made = recycle(groups, self._recycling, rng, self.spark.verify.thinking)
        columns = {group.problem.id: group.problem.columns for group in groups}
        asked = [replace(problem, columns=columns[str(problem.parent)]) for problem in made]
        kept = [problem for problem in asked if self._rows.tokens(problem) <= self._longest]
        self.pool.add(kept)
        self._generations += 1
        logged = self._metrics["train"]
        for task, right in counts.items():
            logged[f"spark/{task}/right"].append(sum(right) / len(right))
        logged["spark/recycled"].append(float(len(kept)))
        logged["spark/too_long"].append(float(len(asked) - len(kept)))
        logged["spark/pool"].append(float(len(self.pool)))

    def _rollout(self, graded: Graded, terms: Sequence[tuple[float, float | None]]) -> Rollout:
        """A response with its verdict: the verifier's, or what the reward functions come to."""
        _, text, verdict = graded
        if verdict is None:
            spark = self.spark
            verdict = by_threshold(text, weighted_mean(terms), spark.reward.threshold, spark.verify.thinking)
        return Rollout(Completion(text, (), (), "stop"), verdict)

    @property
    def _longest(self) -> float:
        """Tokens that a prompt may have, so that a response fits behind it."""
        text = self.model.config.get_text_config()
        bounds = [getattr(text, "max_position_embeddings", None), self.args.vllm_max_model_length]
        room: int = self.max_completion_length
        return min([float(bound) for bound in bounds if bound], default=math.inf) - room

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The pool goes first: no checkpoint that is whole lacks it."""
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            state = {"generations": self._generations, "dropped": self.pool.dropped, "problems": self.pool.state()}
            write_json(folder / POOL, state)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._restore(Path(checkpoint) / POOL)

    def _restore(self, path: Path) -> None:
        """The pool of a checkpoint; of one that ``GRPOTrainer`` saved, an empty one.

        Raises:
            DataError: the file is damaged.
        """
        if not path.exists():
            logger.warning("%s holds no recycled problems: the pool begins empty", path.parent)
            return
        try:
            state = parse_json(path.read_text(encoding="utf-8"))
            self.pool = Pool.from_state(self.pool.size, state["problems"], int(state["dropped"]))
            self._generations = int(state["generations"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} can't be read ({type(error).__name__}: {error}); restore it, or remove it, which "
                            "leaves the pool empty") from None  # fmt: skip


def settings_of(spark: Config | Mapping[str, Any] | None) -> Config:
    """The settings of ``spark``.

    Raises:
        ConfigError: one of them is wrong, or belongs to TRL.
    """
    if spark is not None and not isinstance(spark, Config | Mapping):
        raise ConfigError(f"spark is a {type(spark).__name__}; it must be a mapping of settings or a Config")
    if isinstance(spark, Mapping) and (others := sorted(set(map(str, spark)) - {*SECTIONS})):
        raise ConfigError(f"spark has {others[0]!r}; it takes {', '.join(SECTIONS)}, and GRPOConfig all else")
    config = spark if isinstance(spark, Config) else parse_config(spark or {})
    if config.reward.function is not None or config.reward.self is not None:
        raise ConfigError("spark takes no reward.function and no reward.self; give reward_funcs")
    return config


def _verifier_weight(config: Config, *, alone: bool) -> float:
    """Weight of the verifier in the reward of answers.

    Raises:
        ConfigError: nothing would grade them.
    """
    weight = config.reward.verifier
    if alone and weight == 0:
        raise ConfigError("reward.verifier is 0 and there are no reward_funcs: nothing grades the answers")
    return float(alone) if weight is None else weight
