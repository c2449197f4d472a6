"""Each recipe for GPUs, its model shrunk to two layers of the same architecture, takes two steps on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import make_model
from tests.vision import draw_image, make_vlm

from spark_rl.config import Config, load_config
from spark_rl.run import train

TASKS = [f"What is {a} + {a + 1}?" for a in range(1, 7)]
RECIPES = ("qwen2.5-7b", "qwen2.5-vl-7b", "qwen2.5-vl-32b")
SMALL = [
    "model.device=cpu", "model.dtype=float32", "model.attention=sdpa", "model.threads=1", "train.steps=2",
    "rollout.problems=2", "rollout.samples=2", "rollout.max_new_tokens=12", "rollout.max_prompt_tokens=900",
    "recycle.ready=2", "learner.micro_tokens=4096", "data.heldout=null", "data.ranges={}", "data.sample=null",
    "inference.max_new_tokens=12", "verify.workers=1",
]  # fmt: skip


def rows_of(folder: Path, *, pictures: bool) -> Path:
    """Six problems, with a picture each if asked for."""
    file = folder / "rows.jsonl"
    rows = []
    for number, question in enumerate(TASKS):
        row = {"question": question, "answer": str(2 * number + 3)}
        if pictures:
            picture: Image.Image = draw_image(number, 84, 56)
            picture.save(folder / f"{number}.png")
            row = {**row, "question": f"<image>{question}", "image": str(folder / f"{number}.png")}
        rows.append(row)
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def shrunken(recipe: str, folder: Path, *overrides: str) -> Config:
    """The recipe with a model of two layers and data that are made in ``folder``."""
    seeing = "vl" in recipe
    model = make_vlm("qwen2_5_vl", folder / "m") if seeing else make_model("qwen2", folder / "m")
    data = rows_of(folder, pictures=seeing)
    changes = [*SMALL, f"model.path={model}", f"data.train={data}", f"run_dir={folder / 'run'}", "data.layout=auto"]
    if not seeing:
        changes = [*changes, "rollout.max_prompt_tokens=480", "inference.max_new_tokens=12"]
    return load_config(recipe, [*changes, *overrides])


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps_of_the_recipe(recipe: str, tmp_path: Path) -> None:
    config = shrunken(recipe, tmp_path)
    assert config.model.gradient_checkpointing
    assert config.objective.kl == 0.001

    train(config)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["kl"] >= 0 for step in steps), "the reference is asked"
    assert (tmp_path / "run" / "model" / "config.json").exists()
