"""What the tests of engine, learner and loop share: configurations, prompts and groups for the tiny random models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import ChatConfig, Config, parse_config
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict

torch.set_num_threads(1)  # on a busy machine threads wait for each other: models this small get 30 times slower

EOS = 2
VOCABULARY = 200


def tiny_config(path: str | Path, **sections: Any) -> Config:
    """A configuration on the CPU without a KL term, unless ``sections`` say otherwise."""
    model = {"path": str(path), "device": "cpu", "threads": 1, **sections.pop("model", {})}
    return parse_config({"objective": {"kl": 0.0}, **sections, "model": model})


def prompt_of(*token_ids: int) -> Prompt:
    return Prompt("", token_ids, ())


def prompts(count: int, seed: int = 0, longest: int = 12) -> list[Prompt]:
    """Random prompts of different lengths, from 1 token on."""
    rng = random.Random(seed)
    lengths = [1 + (i * 5) % longest for i in range(count)]
    return [prompt_of(*(rng.randrange(3, VOCABULARY) for _ in range(length))) for length in lengths]


def engine_of(loaded: LoadedModel, eos: Sequence[int] = (EOS,), **options: Any) -> EmbeddedEngine:
    return EmbeddedEngine(loaded, eos, ChatFormat(loaded.tokenizer, ChatConfig()).decode, **options)


def learner_of(path: str | Path, **sections: Any) -> LocalLearner:
    config = tiny_config(path, **sections)
    reference = load_model(config) if config.objective.kl > 0 and config.model.lora is None else None
    return LocalLearner(load_model(config), config, reference)


def group_of(
    prompt_ids: Sequence[int],
    responses: Sequence[Sequence[int]],
    rewards: Sequence[float],
    logprobs: Sequence[Sequence[float]] | None = None,
) -> Group:
    """A group with given tokens and rewards; the texts do not matter to the learner."""
    logprobs = logprobs or [[-1.0] * len(r) for r in responses]
    rollouts = tuple(
        Rollout(
            Completion("", tuple(tokens), tuple(logp), "stop"), Verdict(reward, "correct" if reward >= 1 else "wrong")
        )
        for tokens, logp, reward in zip(responses, logprobs, rewards, strict=True)
    )
    return Group(Problem(id="p", question="?", answer="1"), rollouts, tuple(prompt_ids))


def random_groups(count: int, samples: int, seed: int = 0, *, flat: Sequence[int] = ()) -> list[Group]:
    """Groups of random tokens and lengths with mixed rewards; those numbered in ``flat`` are all wrong."""
    rng = random.Random(seed)

    def tokens(least: int, most: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(least, most))]

    return [
        group_of(
            [1, *tokens(0, 8)],
            [tokens(1, 7) for _ in range(samples)],
            [0.0 if number in flat else float(i % 3 == 0) for i in range(samples)],
        )
        for number in range(count)
    ]
