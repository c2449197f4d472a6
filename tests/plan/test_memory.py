"""The plan beside what the program allocates: every part within a tenth, on real models and the real learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.learner.ranks import on_ranks
from tests.plan.measure import MAPPED, held_by, on_a_rank, peak_of
from tests.tiny import engine_of, prompt_of, tiny_config
from tests.vision import make_vlm
from transformers import AutoConfig, AutoModelForCausalLM

from spark_rl.config import Config
from spark_rl.embedded.build import build_tokenizer
from spark_rl.engine.base import Sampling
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.plan.hardware import gpu_of
from spark_rl.plan.memory import Rehearsals, plan_memory
from spark_rl.plan.shape import Lengths, groups_of, model_config

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
WITHIN = 0.1
SHAPE = {
    "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ROLLOUT = {"problems": 6, "samples": 4, "max_new_tokens": 24}
LENGTHS = Lengths(prompt=40, response=24, judged=40, longest=24)


def model_of(folder: Path, rows: int = 0, **shape: Any) -> Path:
    """A random Qwen2 with a vocabulary of ``rows``."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    settings = {**SHAPE, "tie_word_embeddings": True, "vocab_size": rows or len(tokenizer), **shape}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(path: Path, **sections: Any) -> Config:
    """Without a second period, whose batch would be larger."""
    return tiny_config(path, **{"recycle": {"preset": "policy-only"}, "rollout": ROLLOUT, **sections})


def planned(config: Config, lengths: Lengths = LENGTHS, ranks: int = 1) -> dict[str, float]:
    """Bytes of each phase on a CPU; of a rank, without its engine's copy of the weights."""
    rehearsals = Rehearsals(model_config(config.model.path))
    memory = plan_memory(rehearsals, config, gpu_of("1"), ranks, lengths, cuda=False)
    return {phase: memory.peak(phase) - parts.get("engine", 0) for phase, parts in memory.phases.items()}


def update_peak(config: Config, lengths: Lengths = LENGTHS) -> int:
    """Bytes of the second update of a real learner, with all that it holds."""
    loaded = load_model(config)
    needs_reference = config.objective.kl > 0 and config.model.lora is None
    reference = load_model(config) if needs_reference else None
    learner = LocalLearner(loaded, config, reference)
    groups = groups_of(config.rollout.problems, config.rollout.samples, lengths.judged, lengths.longest,
                       model_config(config.model.path), lengths.image)  # fmt: skip
    assert "nonfinite" not in learner.update(groups)
    models = [loaded.model, *([] if reference is None else [reference.model])]
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    moments = [t for state in learner.optimiser.state.values() for t in state.values()]
    return held_by([*tensors, *learner.masters, *moments]) + peak_of(lambda: learner.update(groups))


SETTINGS: dict[str, dict[str, Any]] = {
    "float32": {},
    "several micro-batches": {"learner": {"micro_tokens": 300}},
    "bfloat16": {"model": {"dtype": "bfloat16"}, "learner": {"micro_tokens": 300}},
    "kl": {"objective": {"kl": 0.001}},
    "checkpointing": {"model": {"gradient_checkpointing": True}},
    "lora": {"model": {"lora": {"rank": 4}}, "objective": {"kl": 0.001}},
    "logits in chunks": {"learner": {"logit_chunk": 32}},
    "frozen": {"model": {"freeze": ["embed_tokens"]}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_update_takes_what_is_planned(name: str, tmp_path: Path) -> None:
    config = config_of(model_of(tmp_path / "model"), **SETTINGS[name])
    assert planned(config)["update"] == pytest.approx(update_peak(config), rel=WITHIN)


@pytest.mark.parametrize(
    ("sections", "models"),
    [({}, 0), ({"reward": {"self": {"judge": "frozen"}}}, 1), ({"engine": {"dtype": "bfloat16"}}, 0.5),
     ({"reward": {"self": {"judge": "frozen"}}, "engine": {"dtype": "bfloat16"}}, 1)],
)  # fmt: skip
def test_what_else_decodes_is_planned(sections: dict[str, Any], models: float, tmp_path: Path) -> None:
    """An engine in a format of its own, and a judge that is frozen, which decodes in that format too."""
    config = config_of(model_of(tmp_path / "model"), **sections)
    memory = plan_memory(Rehearsals(model_config(config.model.path)), config, gpu_of("1"), 1, LENGTHS, cuda=False)
    weights = sum(4.0 * parameter.numel() for parameter in load_model(config).model.parameters())
    for phase in ("rollout", "update"):
        assert memory.phases[phase].get("engine", 0) == pytest.approx(models * weights, rel=0.01)


def test_a_large_vocabulary_is_planned(tmp_path: Path) -> None:
    path = model_of(tmp_path / "model", rows=20_000, tie_word_embeddings=False)
    config = config_of(path, learner={"logit_chunk": 128})
    assert planned(config)["update"] == pytest.approx(update_peak(config), rel=WITHIN)


def test_long_prompts_that_responses_share_are_planned(tmp_path: Path) -> None:
    config = config_of(model_of(tmp_path / "model"), rollout={**ROLLOUT, "problems": 2})
    lengths = Lengths(prompt=300, response=24, judged=300, longest=24)
    assert planned(config, lengths)["update"] == pytest.approx(update_peak(config, lengths), rel=WITHIN)


def test_deep_models_are_planned(tmp_path: Path) -> None:
    path = model_of(tmp_path / "model", num_hidden_layers=10)
    config = config_of(path, model={"gradient_checkpointing": True})
    assert planned(config)["update"] == pytest.approx(update_peak(config), rel=WITHIN)


def test_images_are_planned(tmp_path: Path) -> None:
    path = make_vlm("qwen2_5_vl", tmp_path / "model")
    config = config_of(path, model={"freeze": []}, learner={"micro_tokens": 350})
    lengths = Lengths(prompt=120, response=24, judged=120, longest=24, image=64)
    assert planned(config, lengths)["update"] == pytest.approx(update_peak(config, lengths), rel=WITHIN)


def test_a_rank_takes_what_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_of(tmp_path / "model", rows=3000, hidden_size=256, intermediate_size=768, num_hidden_layers=4)
    rollout = {"problems": 4, "samples": 4, "max_new_tokens": 48}
    lengths = Lengths(prompt=40, response=48, judged=40, longest=48)
    half = {"model": {"dtype": "bfloat16"}, "objective": {"kl": 0.001}}
    configs = [config_of(path, **{"rollout": rollout, "learner": {"micro_tokens": 350}, **sections})
               for sections in ({}, half)]  # fmt: skip
    for name, value in MAPPED.items():
        monkeypatch.setenv(name, value)
    plans = [planned(config, lengths, 2)["update"] for config in configs]
    cases = [(config, groups_of(4, 4, 40, 48)) for config in configs]
    for found in on_ranks(2, on_a_rank, tmp_path / "ranks", cases):
        assert plans == pytest.approx([measured["taken"] for measured in found], rel=WITHIN)


@pytest.mark.parametrize(("prompt", "new"), [(40, 24), (40, 60), (40, 90), (200, 24), (400, 8), (20, 6)])
def test_a_rollout_takes_what_is_planned(prompt: int, new: int, tmp_path: Path) -> None:
    config = config_of(model_of(tmp_path / "model"), rollout={"problems": 8, "samples": 4, "max_new_tokens": new})
    loaded = load_model(config)
    engine = engine_of(loaded, eos=(10**6,))
    asked = [prompt_of(*[5] * prompt) for _ in range(8)]
    sampling = Sampling(4, 1.0, new, 0)
    engine.generate(asked, sampling)
    measured = held_by(list(loaded.model.parameters())) + peak_of(lambda: engine.generate(asked, sampling))
    lengths = Lengths(prompt=prompt, response=new, judged=prompt, longest=new)
    found = planned(config, lengths)["rollout"]
    moments = 8 * sum(p.numel() for p in loaded.model.parameters())
    assert found - moments == pytest.approx(measured, rel=WITHIN)
