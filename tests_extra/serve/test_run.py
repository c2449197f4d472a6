"""A run that has ended, its last checkpoint and the folder that it is exported to, as they are served."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import Served

from running import BASE, SMALL, spark_rl_process
from spark_rl.backend import open_reasoner
from spark_rl.config import load_config, saved_settings
from spark_rl.inference import Trace
from spark_rl.problem import Problem
from spark_rl.runs import trained_weights

QUESTION = "5?4?3?9=32"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, and ``exported`` beside it."""
    folder = tmp_path_factory.mktemp("run")
    train = ["train", "--config", "tiny", *SMALL, f"model.path={BASE}", "run_dir=a"]
    for command in (train, ["export", "a", "--out", "exported"]):
        ended = spark_rl_process(*command, cwd=folder)
        assert ended.returncode == 0, ended.stderr
    return folder / "a"


@pytest.fixture(scope="module")
def trace(run: Path) -> Trace:
    """What the trained model says without a server."""
    reasoner = open_reasoner(load_config(None, **saved_settings(run)), trained_weights(run))
    return reasoner.solve([Problem(id="q", question=QUESTION, answer="")])[0]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["a"], "a"),
        (["a/checkpoints/step-000002"], "a"),
        (["exported", "--config", "a/config.json"], "exported"),
    ],
)
def test_what_training_leaves_is_served_in_its_own_prompts(
    run: Path, trace: Trace, options: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    with Served("--model", *options) as server:
        assert [model.id for model in server.client().models.list()] == [name]
        reply = server.post(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": QUESTION}], "spark": {"trace": True}},
        ).json()
    assert [one["response"] for one in reply["spark"]["rounds"]] == [one.response for one in trace.rounds]
    assert [one["judgement"] for one in reply["spark"]["rounds"]] == [one.judgement for one in trace.rounds]
