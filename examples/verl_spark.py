"""SPARK in verl: a data set that recycles, and a reward that verifies. Written against verl's sources, not run with it.

    python -m verl.trainer.main_ppo algorithm.adv_estimator=grpo actor_rollout_ref.rollout.n=8 \\
        data.custom_cls.path=examples/verl_spark.py data.custom_cls.name=SparkDataset data.dataloader_num_workers=0 \\
        reward.custom_reward_function.path=examples/verl_spark.py reward.custom_reward_function.name=compute_score ...

verl calls ``on_batch_end`` of a data set after each step, in the process that draws the next batch from it if there are
no workers. Rows at odd places give way to a recycled problem as long as there is one. verl's checkpoints do not hold
the pool: a run that goes on begins with an empty one. docs/integrations.md says more.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset

from spark_rl import Group, Problem, Rollout, load_config
from spark_rl.problem import Completion
from spark_rl.recycle import Pool, problem_from_dict, problem_to_dict, recycle
from spark_rl.seeds import stream_seed
from spark_rl.verify import verify

SETTINGS = load_config(recycle={"judge_cap": 64, "reflection_cap": 64})


class SparkDataset(RLHFDataset):
    """verl's data set, half of which is recycled from the batches before."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.pool, self.batches = Pool(SETTINGS.recycle.pool_size), 0

    def __getitem__(self, place: int) -> dict[str, Any]:
        row: dict[str, Any] = super().__getitem__(place)
        if place % 2 and len(self.pool):
            problem = self.pool.take(1)[0]
            row["raw_prompt"] = [{"role": "user", "content": problem.prompt}]
            row["data_source"] = f"spark/{problem.task}"
            row["reward_model"] = {"style": "rule", "ground_truth": problem.answer}
        else:
            question, gold = row["raw_prompt"][-1]["content"], str(row["reward_model"]["ground_truth"])
            problem = Problem(id=str(place), question=question, answer=gold)
        row["extra_info"] = {**(row.get("extra_info") or {}), "problem": json.dumps(problem_to_dict(problem))}
        return row

    def on_batch_end(self, batch: Any) -> None:
        """The groups of a batch, found by verl's ``uid``, become problems."""
        texts: dict[str, list[str]] = defaultdict(list)
        asked: dict[str, Problem] = {}
        told = batch.non_tensor_batch
        for row, (uid, info) in enumerate(zip(told["uid"], told["extra_info"], strict=True)):
            ids = batch.batch["responses"][row][batch.batch["response_mask"][row].bool()]
            texts[uid].append(self.tokenizer.decode(ids, skip_special_tokens=True))
            asked[uid] = problem_from_dict(json.loads(info["problem"]))
        groups = []
        for uid, problem in asked.items():
            if problem.task == "policy":
                verdicts = [(text, verify(text, problem.answer, problem.kind)) for text in texts[uid]]
                rollouts = tuple(Rollout(Completion(text, (), (), "stop"), verdict) for text, verdict in verdicts)
                groups.append(Group(problem, rollouts, ()))
        self.pool.add(recycle(groups, SETTINGS, random.Random(stream_seed(0, "recycle", self.batches))))
        self.batches += 1


def compute_score(solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """The reward of a response, to a problem of the data or a recycled one (Eq. 2)."""
    kind = (
        problem_from_dict(json.loads(extra_info["problem"])).kind if extra_info and "problem" in extra_info else "math"
    )
    return verify(solution_str, ground_truth, kind).reward
