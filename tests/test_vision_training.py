"""Problems with images through the whole loop: trained, recycled with their images, resumed, saved and loaded."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText

from spark_rl.actor import open_actor
from spark_rl.config import Config, load_config
from spark_rl.report.metrics import read_metrics
from spark_rl.train import train
from vision import VLM_FAMILIES, draw_image, make_vlm

SETTINGS = (
    "model.threads=1", "model.device=cpu", "rollout.problems=3", "rollout.samples=4", "rollout.max_new_tokens=8",
    "rollout.max_prompt_tokens=2048", "inference.max_new_tokens=8", "inference.rounds=1", "recycle.ready=1",
    "train.steps=2", "train.save_every=1", "optimiser.lr=1e-3", "data.heldout=split:2", "chat.policy={question}",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows with one image, two at their markers, one of them as a data string, and none."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for i in range(8):
        draw_image(i, 56 + 28 * (i % 3), 56).save(folder / f"{i}.png")
        rows.append({"question": "How many?", "answer": str(i), "image": f"images/{i}.png"})
    rows[1] |= {"question": "Is <image> like <image>?", "images": ["images/1.png", "images/2.png"]}
    del rows[1]["image"]
    rows[2] = {"question": "What is 1 plus 1?", "answer": "2"}
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def settings(family: str, data: Path, tmp_path: Path, run: str, *more: str, **sections: Any) -> Config:
    model = tmp_path / family
    if not model.exists():
        make_vlm(family, model)
    return load_config(
        None, [*SETTINGS, *more], model={"path": str(model)}, data={"train": str(data)}, run_dir=str(tmp_path / run),
        **sections,
    )  # fmt: skip


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_every_family_trains_on_a_file_with_images(family: str, data: Path, tmp_path: Path) -> None:
    summary = train(settings(family, data, tmp_path, "run", "objective.kl=0.01"))
    assert summary["after"]["n"] == 2
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["engine_gap"] < 1e-4 for step in steps), "engine and learner must agree in fp32"
    assert all(step["tokens"] > 0 for step in steps)
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "model")
    assert type(trained) is type(AutoModelForImageTextToText.from_pretrained(tmp_path / family))
    again = open_actor(settings(family, data, tmp_path, "other"), tmp_path / "run" / "model")
    assert again.loaded.processor is not None, "the processor is saved with the weights"


def test_a_resumed_run_is_the_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    """With recycled problems in the pool whose images were never files."""
    picture = io.BytesIO()
    draw_image(9, 56, 56).save(picture, "PNG")
    inline = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[4] |= {"image": inline}
    data.write_text("\n".join(map(json.dumps, rows)))
    more = ("rollout.overlong_reward=keep", "recycle.ready=3", "rollout.samples=2")
    train(settings("qwen2_5_vl", data, tmp_path, "whole", *more))
    train(settings("qwen2_5_vl", data, tmp_path, "cut", *more, "train.steps=1"))
    train(settings("qwen2_5_vl", data, tmp_path, "cut", *more), resume=True)
    whole, cut = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut"))
    assert [_timeless(step) for step in whole] == [_timeless(step) for step in cut]


def _timeless(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if not key.startswith(("seconds", "time", "tokens_per"))}
