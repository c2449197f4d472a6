"""``engine.dtype``: decoding in another number format than the model is trained in."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from spark_rl.backend import build_learner, frozen_engine, open_backend
from spark_rl.config import Config, load_config
from spark_rl.engine.base import Sampling
from spark_rl.engine.copied import CopiedEngine
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.errors import ConfigError
from spark_rl.model.load import copied, load_model
from spark_rl.model.weights import ModelWeights
from spark_rl.objective import AUTO_CAP, importance_cap
from spark_rl.report.metrics import read_metrics
from spark_rl.run import train
from tiny import prompts, tiny_config
from vision import make_vlm
from windowed import WINDOWED, make_windowed

EXPERTS = ("gpt_oss", "mixtral")
"""Where rounding may send a token to another expert."""


def same_weights(engine: CopiedEngine, model: torch.nn.Module, version: int) -> bool:
    held = dict(ModelWeights(engine.loaded.model, version).named())
    wanted = dict(ModelWeights(model, version).named())
    return held.keys() == wanted.keys() and all(
        torch.equal(held[name], tensor.to(held[name].dtype)) for name, tensor in wanted.items()
    )


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_copy_takes_over_the_weights_and_follows_them(family: str, tiny_models: dict[str, Path]) -> None:
    state = torch.get_rng_state()
    backend = open_backend(tiny_config(tiny_models[family], engine={"dtype": "bfloat16"}))
    assert torch.equal(torch.get_rng_state(), state), "what was drawn for the copy is nobody's business"
    engine = backend.engine
    assert isinstance(engine, CopiedEngine)
    assert engine.loaded.causal_lm.dtype == torch.bfloat16
    assert backend.loaded.causal_lm.dtype == torch.float32
    assert same_weights(engine, backend.loaded.model, 0)
    with torch.no_grad():
        for parameter in backend.loaded.model.parameters():
            parameter.add_(0.125)
    engine.sync(ModelWeights(backend.loaded.model, 3))
    assert engine.version == 3
    assert same_weights(engine, backend.loaded.model, 3)


@pytest.mark.parametrize("family", [*sorted(WINDOWED), "qwen2_5_vl", "idefics3"])
def test_it_samples_the_learners_policy_but_for_rounding(family: str, tmp_path: Path) -> None:
    path = make_windowed(family, tmp_path) if family in WINDOWED else make_vlm(family, tmp_path)
    backend = open_backend(tiny_config(path, engine={"dtype": "bfloat16"}))
    learner = build_learner(backend)
    asked = prompts(6, longest=20)
    found = backend.engine.generate(asked, Sampling(n=2, max_new_tokens=12, seed=1))
    apart = []
    for prompt, completions in zip(asked, found, strict=True):
        scored = learner.logprobs([prompt.token_ids] * len(completions), [one.token_ids for one in completions])
        for one, logprobs in zip(completions, scored, strict=True):
            apart += [abs(a - b) for a, b in zip(one.logprobs, logprobs.tolist(), strict=True)]
    assert 0 < median(apart) < 0.1
    if family not in EXPERTS:
        assert max(apart) < 0.5


def test_the_same_format_shares_the_weights(tiny_models: dict[str, Path]) -> None:
    backend = open_backend(tiny_config(tiny_models["qwen3"], engine={"dtype": "float32"}))
    assert type(backend.engine) is EmbeddedEngine
    assert backend.engine.loaded is backend.loaded


def test_a_copy_is_of_the_same_class(tiny_models: dict[str, Path]) -> None:
    """A model in memory may compute what no class of its architecture does."""
    loaded = load_model(tiny_config(tiny_models["qwen3"]))
    own = type("Own", (type(loaded.causal_lm),), {})
    loaded.causal_lm.__class__ = own
    assert type(copied(loaded, torch.bfloat16).causal_lm) is own


def test_a_frozen_judge_decodes_in_it_too(tiny_models: dict[str, Path]) -> None:
    for dtype, wanted in (("bfloat16", torch.bfloat16), (None, torch.float32)):
        judge = frozen_engine(open_backend(tiny_config(tiny_models["qwen3"], engine={"dtype": dtype})))
        assert isinstance(judge, EmbeddedEngine)
        assert judge.loaded.causal_lm.dtype == wanted


def test_the_importance_weight_is_on_where_the_formats_differ(tiny_models: dict[str, Path]) -> None:
    assert importance_cap(tiny_config(tiny_models["qwen3"])) is None
    assert importance_cap(tiny_config(tiny_models["qwen3"], engine={"dtype": "float32"})) is None
    assert importance_cap(tiny_config(tiny_models["qwen3"], engine={"dtype": "bfloat16"})) == AUTO_CAP


@pytest.mark.parametrize(
    ("name", "said"),
    [("vllm", "engine.dtype is of the embedded engine, and engine.name is vllm; remove it, or set engine.options"),
     ("mine.py:Mine", "engine.dtype is of the embedded engine, and engine.name is mine.py:Mine; remove it")],
)  # fmt: skip
def test_other_engines_have_formats_of_their_own(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config("m", engine={"name": name, "dtype": "bfloat16"})


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "time" not in name and "second" not in name}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["all weights", "adapters"])
def test_a_run_goes_on_to_the_bit(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    def config(folder: str, steps: int) -> Config:
        rollout, train = {"problems": 4, "samples": 4, "max_new_tokens": 16}, {"steps": steps, "save_every": 1}
        return load_config(
            "tiny", run_dir=str(tmp_path / folder), train=train, engine={"dtype": "bfloat16"}, rollout=rollout,
            data={"heldout": None, "transfer": None}, model={"threads": 1, "lora": lora},
        )  # fmt: skip

    train(config("whole", 3))
    train(config("halves", 2))
    train(config("halves", 3), resume=True)
    whole, halves = (read_metrics(tmp_path / folder / "metrics.jsonl") for folder in ("whole", "halves"))
    assert len(whole) == 3
    for one, other in zip(whole, halves, strict=True):
        assert timeless(one) == timeless(other)
    assert all(1e-12 < row["engine_kl"] < 1e-2 for row in whole)
