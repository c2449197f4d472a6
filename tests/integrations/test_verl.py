"""The verl recipe, against what verl's sources say of its data sets: verl itself is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from spark_rl.plugins import load_module

ROOT = Path(__file__).parents[2]


class Characters:
    """A tokenizer of one token a character."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(chr, ids.tolist()))


class Rows:
    """What verl's data set gives of a row, without its files."""

    def __init__(self) -> None:
        self.tokenizer = Characters()

    def __getitem__(self, place: int) -> dict[str, Any]:
        prompt = [{"role": "user", "content": f"{place} + 1 = ?"}]
        return {"raw_prompt": prompt, "data_source": "sums", "reward_model": {"ground_truth": str(place + 1)}}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("verl", "verl.utils", "verl.utils.dataset", "verl.utils.dataset.rl_dataset"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["verl.utils.dataset.rl_dataset"], "RLHFDataset", Rows, raising=False)
    return load_module(ROOT / "examples/verl_spark.py", "examples")


def batch_of(rows: list[dict[str, Any]], responses: list[str]) -> SimpleNamespace:
    """Two responses a row, padded, in the shape of verl's DataProto."""
    ids = torch.zeros(len(responses), 32, dtype=torch.long)
    for row, text in enumerate(responses):
        ids[row, : len(text)] = torch.tensor([ord(character) for character in text])
    infos = np.array([row["extra_info"] for row in rows for _ in (0, 1)], dtype=object)
    uids = np.array([str(number) for number in range(len(rows)) for _ in (0, 1)], dtype=object)
    return SimpleNamespace(
        batch={"responses": ids, "response_mask": (ids > 0).long()},
        non_tensor_batch={"uid": uids, "extra_info": infos},
    )


def test_groups_become_rows_that_the_reward_grades(recipe: ModuleType) -> None:
    data = recipe.SparkDataset()
    rows = [data[0], data[2]]
    data.on_batch_end(batch_of(rows, [r"\boxed{1}", r"\boxed{7}", r"so \boxed{9}", r"\boxed{8}"]))
    made = [data[place] for place in (1, 3, 5)]
    assert {row["data_source"] for row in made} & {"spark/pointwise", "spark/pairwise"}
    assert "spark/reflection" in {row["data_source"] for row in made}
    for row in made:
        right = row["reward_model"]["ground_truth"]
        assert "+ 1 = ?" in row["raw_prompt"][0]["content"]
        for boxed, reward in ((right, 1.0), ("5555", 0.0)):
            given = {"data_source": row["data_source"], "ground_truth": right, "extra_info": row["extra_info"]}
            assert recipe.compute_score(solution_str=rf"\boxed{{{boxed}}}", **given) == reward
    recycled = len(data.pool)
    data.on_batch_end(batch_of(made[:1], [r"\boxed{Yes}", r"\boxed{No}"]))
    assert len(data.pool) == recycled, "recycled groups are not recycled again"
    assert data[0]["data_source"] == "sums"
