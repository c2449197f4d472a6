"""SparkGRPOTrainer on the embedded base, with the real TRL."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small import BASE, SPARK, arguments, logged, rows, trainer

from spark_rl.errors import ConfigError, DataError, UserError
from spark_rl.integrations.trl import SparkGRPOTrainer
from spark_rl.integrations.trl.rewards import answers_only
from spark_rl.integrations.trl.rows import COLUMN
from spark_rl.integrations.trl.trainer import POOL
from spark_rl.problem import Problem

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SparkGRPOTrainer:
    """Four steps in one go, with a checkpoint after the second."""
    made = trainer(tmp_path_factory.mktemp("whole"), save_strategy="steps", save_steps=2)
    made.train()
    return made


def test_what_waits_is_asked_and_rewarded(whole: SparkGRPOTrainer) -> None:
    assert logged(whole, "spark/policy/right"), "the verifier graded answers"
    judged = logged(whole, "spark/pointwise/right") + logged(whole, "spark/pairwise/right")
    assert judged, "judge problems were asked"
    assert logged(whole, "spark/reflection/right")
    assert max(logged(whole, "spark/pool")) > 0
    assert all(0 <= share <= 1 for share in judged)


def test_policy_data_is_drawn_as_without_recycling(whole: SparkGRPOTrainer) -> None:
    assert whole.state.epoch == pytest.approx(4 * 3 / 24)


def test_a_resumed_run_ends_with_the_same_pool_and_weights(whole: SparkGRPOTrainer, tmp_path: Path) -> None:
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    saved = json.loads((checkpoint / POOL).read_text())
    assert saved["problems"], "the pool held something when it was saved"
    again = trainer(tmp_path)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert again.pool.state() == whole.pool.state()
    assert again._generations == whole._generations
    for (name, one), (_, other) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_checkpoint_of_grpo_leaves_the_pool_empty_and_a_damaged_one_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tmp_path)
    with caplog.at_level(logging.WARNING):
        made._restore(tmp_path / "checkpoint-9" / POOL)
    assert "begins empty" in caplog.text
    assert len(made.pool) == 0
    (tmp_path / POOL).write_text('{"problems": [{"id"', encoding="utf-8")
    with pytest.raises(DataError, match=r"spark_pool\.json can't be read"):
        made._restore(tmp_path / POOL)


def test_functions_see_answers_with_their_columns_and_no_verdicts(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def half(prompts: Any, number: list[int], **columns: Any) -> list[float]:
        assert COLUMN not in columns
        assert len(columns["completions"]) == len(prompts)
        asked.extend((prompt[-1]["content"], n) for prompt, n in zip(prompts, number, strict=True))
        return [float(n % 2) for n in number]

    made = trainer(tmp_path, half, rows(24))
    made.train()
    assert made.reward_func_names == ["half", "verifier"]
    numbers = {row["prompt"][0]["content"]: row["number"] for row in rows(24)}
    assert any(content not in numbers for content, _ in asked), "reflections are answers too"
    judge = [content for content, _ in asked if content.startswith(("judge", "pair"))]
    assert not judge
    assert logged(made, "spark/pointwise/right") + logged(made, "spark/pairwise/right")


def test_without_gold_answers_the_rewards_say_what_is_right(tmp_path: Path) -> None:
    data = [{"prompt": row["prompt"], "number": row["number"]} for row in rows()]

    def short(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return [float(len(turns[-1]["content"]) % 2) for turns in completions]

    made = trainer(tmp_path, short, data, max_steps=1)
    made.train()
    assert {problem["task"] for problem in made.pool.state()} <= {"pointwise", "pairwise", "reflection"}
    assert len(made.pool) > 0


def test_plain_text_is_asked_as_plain_text(tmp_path: Path) -> None:
    data = [
        {"prompt": f"solve {row['question']}\n", "question": row["question"], "answer": row["answer"]} for row in rows()
    ]
    made = trainer(tmp_path, None, data, max_steps=1)
    made.train()
    problem = made.pool.take(1)[0]
    row = made._rows.row(problem, ["question", "answer"])
    assert row["prompt"] == f"{problem.prompt}\n"
    assert set(row) == {"prompt", "question", "answer", COLUMN}


def test_the_system_turn_is_asked_again_and_gold_answers_never_are(tmp_path: Path) -> None:
    system = {"role": "system", "content": "be careful"}
    made = trainer(tmp_path, None, [{**row, "prompt": [system, *row["prompt"]]} for row in rows()], max_steps=1)
    row = rows()[0]
    parent = made._rows.read({**row, "prompt": [system, *row["prompt"]], "answer": "77777"})
    again = Problem("a", parent.question, "No", task="pointwise", prompt="is <eos> it?", columns=parent.columns)
    written = made._rows.row(again, ["question", "answer"])
    assert written["prompt"][0] == system
    assert written["prompt"][1] == {"role": "user", "content": "is < eos> it?"}
    assert "77777" not in str(written["prompt"])


def test_an_evaluation_changes_nothing_of_the_pool(tmp_path: Path) -> None:
    from datasets import Dataset

    args = arguments(tmp_path, per_device_eval_batch_size=12)
    made = SparkGRPOTrainer(
        BASE, None, args, Dataset.from_list(rows()), spark=SPARK, eval_dataset=Dataset.from_list(rows(3))
    )
    scores = made.evaluate()
    assert 0 <= scores["eval_rewards/verifier/mean"] <= 1
    assert (len(made.pool), made._generations) == (0, 0)


def test_two_processes_hold_the_same_pool_and_whole_blocks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         str(HERE / "two_ranks.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["pool"] == second["pool"]
    assert first["generations"] == second["generations"] == 3
    grown = 0
    for here, there in zip(first["batches"], second["batches"], strict=True):
        together = here + there
        assert len(here) == len(there)
        assert all(len(set(together[at : at + 4])) == 1 for at in range(0, len(together), 4)), "blocks of one prompt"
        grown += len(together) > 12
    assert grown, "recycled rows were mixed in"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"spark": {"rollout": {"samples": 2}}}, "GRPOConfig all else"),
        ({"spark": {"recycle": {"redy": 2}}}, "ready"),
        ({"spark": {"reward": {"verifier": 0}}}, "nothing grades"),
        ({"spark": {"recycle": {"ready": 3}}, "steps_per_generation": 8}, "set it to 2"),
        ({"data": [{"prompt": "1+1?"}] * 24}, "answer"),
        ({"data": [{"prompt": "1+1?", "answer": ""}] * 24}, "none of the first 24 rows"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        trainer(tmp_path, **given)
    assert "\n" not in str(caught.value)


def test_tools_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no tools"):
        SparkGRPOTrainer(BASE, None, arguments(tmp_path), None, tools=[print])


def test_async_functions_and_their_log_are_spread_over_all_rows() -> None:
    table: dict[str, list[Any]] = {}

    async def lengths(completions: list[str], log_extra: Any, **_: Any) -> list[float]:
        log_extra("seen", completions)
        return [float(len(text)) for text in completions]

    graded = answers_only(lengths)
    problems = [None, Problem("j", "q", "Yes", task="pointwise"), Problem("r", "q", "1", task="reflection")]
    found = graded(**{"completions": ["a", "bb", "ccc"], COLUMN: problems, "log_extra": table.__setitem__})
    assert asyncio.run(found) == [1.0, None, 3.0]
    assert table == {"seen": ["a", None, "ccc"]}
    assert graded.__name__ == "lengths"
