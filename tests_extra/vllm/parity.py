"""What the tests of vLLM share: an engine beside a learner, how far they are apart, and servers in other processes."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import torch

import spark_rl
from spark_rl.backend import build_learner, open_backend
from spark_rl.chat import Prompt
from spark_rl.config import Config, load_config
from spark_rl.engine.base import Engine, Sampling
from spark_rl.engine.vllm import VllmEngine, VllmServers
from spark_rl.errors import EngineError
from spark_rl.learner.base import Learner
from spark_rl.learner.local import LocalLearner
from spark_rl.problem import Problem
from vision import draw_image, make_vlm

SAMPLED = Sampling(4, 1.0, 40, seed=3)
QUESTIONS = [f"{a}?{b}?7={a + b + 7}" for a in range(1, 9) for b in range(1, 9)]


def tiny(*overrides: str, model: str | Path = "embedded") -> Config:
    settings = ("model.threads=1", "objective.kl=0", "inference.max_new_tokens=48", *overrides)
    return load_config("tiny", list(settings), model={"path": str(model)})


def pair(config: Config, **options: Any) -> tuple[LocalLearner, VllmEngine, list[Prompt]]:
    backend = open_backend(config, engine=VllmEngine(config, **options))
    learner = build_learner(backend)
    assert isinstance(learner, LocalLearner)
    assert isinstance(backend.engine, VllmEngine)
    return learner, backend.engine, [backend.chat.encode(Problem("p", text, "")) for text in QUESTIONS]


def gap(engine: Engine, learner: Learner, prompts: Sequence[Prompt], sampling: Sampling = SAMPLED) -> float:
    """The largest difference of any token's log-probability, in nats."""
    groups = engine.generate(prompts, sampling)
    drawn = [(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]
    scored = learner.logprobs(
        [p.token_ids for p, _ in drawn], [c.token_ids for _, c in drawn], [p.vision for p, _ in drawn]
    )
    return max(float((at_T - torch.tensor(c.logprobs)).abs().max()) for at_T, (_, c) in zip(scored, drawn, strict=True))


def shake(learner: LocalLearner, size: float = 0.2) -> None:
    """Other weights, as after a large update: all that is trained, the embedding too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in learner.parameters:
            weight.add_(torch.randn(weight.shape, generator=generator) * weight.std() * size)
    learner.updates += 1


class Server:
    """``vllm serve`` in a process of its own, started in the way that the engine asks for where it finds none."""

    def __init__(self, config: Config, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        engine = {"name": "vllm", "servers": (self.url,), "max_rows": 128}
        self.config = config.model_copy(update={"engine": config.engine.model_copy(update=engine)})
        """The configuration that samples with it."""
        with pytest.raises(EngineError, match=r"no connection .* start it with: VLLM_SERVER_DEV_MODE=1 ") as caught:
            VllmServers(self.config)
        setting, *words = shlex.split(str(caught.value).partition("start it with: ")[2])
        words[0] = sys.executable  # for python
        name, _, value = setting.partition("=")
        environment = os.environ | {name: value, "PYTHONPATH": str(Path(spark_rl.__file__).parents[1])}
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                words, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + 300
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        pytest.fail(f"the server did not start: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """It and its processes, at once."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


class Servers(NamedTuple):
    """What runs for the whole session."""

    text: Server
    sees: Server


SIGHTED = (
    "model.threads=1", "model.device=cpu", "rollout.problems=3", "rollout.samples=4", "rollout.max_new_tokens=8",
    "inference.max_new_tokens=8", "recycle.ready=1", "train.steps=2", "optimiser.lr=1e-3", "data.heldout=split:2",
    "chat.policy={question}", "objective.kl=0.01",
)  # fmt: skip


def sighted(folder: Path) -> Config:
    """Of a tiny model that sees, with heads of the width that vLLM's attention on a CPU has, and a file of images."""
    model = make_vlm("idefics3", folder / "idefics3", num_attention_heads=2, num_key_value_heads=1)
    rows = [f'{{"question": "How many?", "answer": "{i}", "image": "{folder / str(i)}.png"}}' for i in range(8)]
    for i in range(8):
        draw_image(i, 56 + 28 * (i % 3), 56).save(folder / f"{i}.png")
    (folder / "data.jsonl").write_text("\n".join(rows))
    return load_config(
        None, list(SIGHTED), model={"path": str(model)}, data={"train": str(folder / "data.jsonl")},
        run_dir=str(folder / "run"),
    )  # fmt: skip


def shown(backend: Any) -> list[Prompt]:
    """Prompts with one image and with two."""
    images = [
        (draw_image(i, 84, 56),) if i % 2 else (draw_image(i, 84, 56), draw_image(i + 1, 56, 56)) for i in range(6)
    ]
    return [backend.chat.encode(Problem(str(i), f"What is {i}?", "", images=each)) for i, each in enumerate(images)]
