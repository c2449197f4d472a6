"""Problems with images through the whole loop: trained, recycled with their images, resumed, saved and loaded."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText

from spark_rl.backend import open_backend
from spark_rl.config import Config, load_config
from spark_rl.errors import ChatError
from spark_rl.learner.base import Span
from spark_rl.learner.local import LocalLearner
from spark_rl.loop import Loop
from spark_rl.model.places import EMBEDDED
from spark_rl.problem import Group
from spark_rl.report.metrics import read_metrics
from spark_rl.run import train
from spark_rl.runs import checkpoints
from vision import VLM_FAMILIES, draw_image, make_vlm

SETTINGS = (
    "model.threads=1", "model.device=cpu", "rollout.problems=3", "rollout.samples=4", "rollout.max_new_tokens=8",
    "inference.max_new_tokens=8", "inference.rounds=1", "recycle.ready=1",
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
    model = EMBEDDED.get(family, tmp_path / family)
    if not model.exists():
        make_vlm(family, model)
    return load_config(
        None, [*SETTINGS, *more], model={"path": str(model)}, data={"train": str(data)}, run_dir=str(tmp_path / run),
        **sections,
    )  # fmt: skip


BOXES = ("chat.policy=solve {question}", "recycle.templates=terse", "rollout.max_new_tokens=32")
"""For the embedded base, which boxes its answers; random models never do, and nothing can be recycled."""


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
    again = open_backend(settings(family, data, tmp_path, "other"), tmp_path / "run" / "model")
    assert again.loaded.processor is not None, "the processor is saved with the weights"


@pytest.mark.parametrize("periods", ["two", "combined"])
def test_no_pixels_outlive_their_update(
    periods: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step returns lives through the next one: two batches of a million pixels an image would be gigabytes."""
    kept: list[Group] = []
    trained: list[Group] = []
    step, update = Loop.advance, LocalLearner.update

    def watched(loop: Loop) -> Any:
        metrics, groups = step(loop)
        kept.extend(groups)
        return metrics, groups

    def counted(learner: LocalLearner, groups: Sequence[Group], span: Span) -> dict[str, float]:
        trained.extend(groups)
        return update(learner, groups, span)

    monkeypatch.setattr(Loop, "advance", watched)
    monkeypatch.setattr(LocalLearner, "update", counted)
    train(settings("embedded-vl", data, tmp_path, "run", *BOXES, f"train.periods={periods}"))
    assert [group.problem.id for group in kept] == [group.problem.id for group in trained]
    assert {bool(group.vision) for group in trained if group.problem.images} == {True}
    assert {group.problem.task for group in kept} > {"policy"}
    assert not any(group.vision for group in kept)


def test_a_model_that_sees_nothing_is_told_before_the_first_step(tmp_path: Path) -> None:
    """Wherever in the data the image is: not when its batch comes."""
    draw_image(1, 56, 56).save(tmp_path / "one.png")
    rows = [{"question": f"What is {n} plus 1?", "answer": "1"} for n in range(40)]
    rows[-1] |= {"image": "one.png"}
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    overrides = [*SETTINGS, "rollout.problems=1", "data.heldout=null"]
    config = load_config(
        None, overrides, model={"path": "embedded"}, data={"train": str(data)}, run_dir=str(tmp_path / "run")
    )
    with pytest.raises(ChatError, match="problem data-40 has 1 image"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_is_the_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    """With recycled problems in the pool whose images were never files."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        if "image" in row:
            row["image"] = "data:;base64," + base64.b64encode((tmp_path / row["image"]).read_bytes()).decode()
    data.write_text("\n".join(map(json.dumps, rows)))
    more = (*BOXES, "rollout.problems=4", "rollout.samples=8", "recycle.ready=6")
    train(settings("embedded-vl", data, tmp_path, "whole", *more))
    train(settings("embedded-vl", data, tmp_path, "cut", *more, "train.steps=1"))
    (saved,) = checkpoints(tmp_path / "cut")
    pool = json.loads((saved / "state.json").read_text())["pool"]
    assert any(image["path"] == str(data) for problem in pool for image in problem["images"])
    train(settings("embedded-vl", data, tmp_path, "cut", *more), resume=True)
    whole, cut = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut"))
    assert [_timeless(step) for step in whole] == [_timeless(step) for step in cut]
    assert any(name.startswith("reward/") and name != "reward/policy" for name in cut[1])
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]


def _timeless(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if not key.startswith(("seconds", "time", "tokens_per"))}
