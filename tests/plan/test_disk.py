"""What a checkpoint is said to take beside the files that a learner writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.plan.test_memory import LENGTHS, config_of, model_of

from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.plan.disk import checkpoint_bytes, run_bytes
from spark_rl.plan.shape import groups_of, sizes_of

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
ADAPTED = {"rank": 8}
WIDE = {"hidden_size": 256, "intermediate_size": 512}


@pytest.mark.parametrize(
    ("settings", "bytes_a_weight"),
    [
        ({}, 12),
        ({"dtype": "bfloat16"}, 14),
        ({"lora": ADAPTED}, 12),
        ({"freeze": ["embed_tokens"]}, None),
    ],
)
def test_a_checkpoint_takes_what_is_said(tmp_path: Path, settings: dict[str, Any], bytes_a_weight: int | None) -> None:
    config = config_of(model_of(tmp_path / "base", **WIDE), model=settings)
    loaded = load_model(config)
    learner, sizes = LocalLearner(loaded, config), sizes_of(loaded)
    learner.update(groups_of(2, 4, LENGTHS.prompt, LENGTHS.response))
    saved = tmp_path / "saved"
    saved.mkdir()
    learner.save(saved)

    said = checkpoint_bytes(config, sizes)
    held = sum(file.stat().st_size for file in saved.rglob("*.safetensors"))
    assert held == pytest.approx(said, rel=0.03), "beside the tensors a file holds their names"
    if bytes_a_weight is not None:
        assert said == bytes_a_weight * sizes.trained


def test_a_run_keeps_its_checkpoints_one_that_is_written_and_its_best(tmp_path: Path) -> None:
    base = model_of(tmp_path / "base")
    plain = config_of(base, train={"keep": 3})
    best = config_of(base, train={"keep": 3, "eval_every": 1, "best": "tts_accuracy"})
    sizes = sizes_of(load_model(plain))
    one = checkpoint_bytes(plain, sizes)
    assert run_bytes(plain, sizes) == 4 * one + 4 * sizes.weights
    assert run_bytes(best, sizes) == 5 * one + 4 * sizes.weights
