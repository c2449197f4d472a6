"""Weights: the names and tensors that an engine takes over are those that a checkpoint of the model holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from conftest import FAMILIES
from spark_rl.errors import ConfigError
from spark_rl.model.load import load_model
from spark_rl.model.places import EMBEDDED
from spark_rl.model.score import Scorer, make_rows
from spark_rl.model.weights import ModelWeights, take_over
from tiny import group_of, learner_of, tiny_config
from vision import VLM_FAMILIES, make_vlm


def written(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def check(model: nn.Module, folder: Path) -> None:
    """Same names, same values, and no name twice."""
    named = [(name, tensor.clone()) for name, tensor in ModelWeights(model, 0).named()]
    saved = written(folder)
    assert len(named) == len(dict(named))
    assert dict(named).keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in named)


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_what_save_pretrained_writes(family: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load_model(tiny_config(tiny_models[family]))
    loaded.causal_lm.save_pretrained(tmp_path)
    check(loaded.model, tmp_path)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_so_are_those_of_models_that_see(family: str, tmp_path: Path) -> None:
    loaded = load_model(tiny_config(make_vlm(family, tmp_path / "model")))
    loaded.causal_lm.save_pretrained(tmp_path / "saved")
    check(loaded.model, tmp_path / "saved")


def test_the_embedded_bases_too() -> None:
    for base in EMBEDDED.values():
        check(load_model(tiny_config(base)).model, base)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of peft
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_adapters_are_merged_one_layer_at_a_time(family: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load_model(tiny_config(tiny_models[family], model={"lora": {"rank": 2, "alpha": 16.0}}))
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    named = {name: tensor.clone() for name, tensor in ModelWeights(loaded.model, 0).named()}
    plain = load_model(tiny_config(tiny_models[family])).causal_lm.state_dict()
    model: Any = loaded.model
    model.merge_and_unload().save_pretrained(tmp_path)
    merged = written(tmp_path)
    assert named.keys() == merged.keys()
    assert all(torch.allclose(named[name], merged[name], atol=1e-6) for name in merged)
    assert not all(torch.equal(named[name], plain[name]) for name in merged), "the adapters change something"


def test_the_version_counts_updates_and_the_old_weights_stay_named(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"])
    assert learner.weights().version == 0
    learner.update([group_of([1, 5], [[7, 2], [8, 9, 2]], [1.0, 0.0])])
    assert learner.weights().version == 1


def test_a_scorer_is_one_module_with_the_parameters_of_the_model(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen3"]))
    scorer = Scorer(loaded, 0.7, 2)
    assert isinstance(scorer, nn.Module)
    assert {id(p) for p in scorer.parameters()} == {id(p) for p in loaded.model.parameters()}
    prompt, response = [1, 5, 9], [7, 11, 2]
    logp_BT = scorer(make_rows(loaded, [prompt], [{}], [0], [response]))
    whole = loaded.causal_lm(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.7
    expected = whole.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0]
    assert torch.allclose(logp_BT[0], expected, atol=1e-5)


def check_taken(mine: Any, other: Any) -> None:
    """After it takes over the weights of ``other``, each weight of ``mine`` is equal."""
    assert not all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True))
    take_over(mine, ModelWeights(other, 3))
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_another_model_takes_them_over(family: str, tiny_models: dict[str, Path]) -> None:
    mine, other = (load_model(tiny_config(tiny_models[family])).model for _ in range(2))
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    check_taken(mine, other)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_so_does_one_that_sees(family: str, tmp_path: Path) -> None:
    path = make_vlm(family, tmp_path / "model")
    mine, other = (load_model(tiny_config(path)).model for _ in range(2))
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    check_taken(mine, other)


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "phi3", "gpt_oss", "glm4", "deepseek_v3", "minimax"])
def test_so_does_one_whose_checkpoints_are_laid_out_in_another_way(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_local_experts=4,
        n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1,
        q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    mine, other = (AutoModelForCausalLM.from_pretrained(tmp_path) for _ in range(2))
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    check_taken(mine, other)


def test_a_weight_that_is_missing_or_of_another_model_is_one_line(tiny_models: dict[str, Path]) -> None:
    class Some:
        version = 1

        def __init__(self, *named: tuple[str, Tensor]) -> None:
            self.given = named

        def named(self) -> Iterator[tuple[str, Tensor]]:
            yield from self.given

    model = load_model(tiny_config(tiny_models["llama"])).model
    with pytest.raises(ConfigError, match="21 weights were not handed over, the first is lm_head"):
        take_over(model, Some())
    with pytest.raises(ConfigError, match=r"weight lm_head.weight \[2\] can't be taken over: the model holds \["):
        take_over(model, Some(("lm_head.weight", torch.zeros(2))))
    with pytest.raises(ConfigError, match="the model has no place for it"):
        take_over(model, Some(("other", torch.zeros(2))))
