"""Reading weights: what is missing, misread or left out is refused or said, and what a wrapper left is mended."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from running import complaints, spark_rl_process
from spark_rl.errors import ConfigError
from spark_rl.model.load import load_model
from spark_rl.model.restore import restore_weights
from tiny import learner_of, tiny_config

Weights = dict[str, Tensor]

peft_warning = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def changed(source: Path, folder: Path, change: Callable[[Weights], Weights], file: str = "model.safetensors") -> Path:
    """A copy of a model or of adapters with its weights changed."""
    shutil.copytree(source, folder)
    weights = change(load_file(folder / file))
    save_file({name: w.clone().contiguous() for name, w in weights.items()}, folder / file, metadata={"format": "pt"})
    return folder


def renamed(change: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {change(name): w for name, w in weights.items()}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: w for name, w in weights.items() if part not in name}


def with_(name: str, *shape: int) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {name: torch.zeros(*shape)}


def spoilt(part: str, value: float) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        for name, weight in weights.items():
            if part in name:
                weight.view(-1)[3] = value
        return weights

    return change


def refusal(path: Path, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_model(tiny_config(path, **sections))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # without and with an output layer tied to the embedding
@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}",
        lambda name: name.replace("model.", "model._orig_mod.", 1),
        lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
        lambda name: name.replace("layers.1.", "layers.1._fsdp_wrapped_module."),
    ],
)
def test_a_wrappers_prefix_is_left_out_and_said(
    tiny_models: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, family: str,
    wrap: Callable[[str], str],
) -> None:  # fmt: skip
    plain = load_model(tiny_config(tiny_models[family])).model.state_dict()
    folder = changed(tiny_models[family], tmp_path / "wrapped", renamed(wrap))
    with caplog.at_level(logging.WARNING, "spark_rl"):
        learner = learner_of(folder)
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("spark_rl")]
    assert "weights have a wrapper's prefix, such as " in said
    assert "\n" not in said
    found = learner.loaded.model.state_dict()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    learner.export(tmp_path / "saved")
    assert (
        load_file(tmp_path / "saved" / "model.safetensors").keys()
        == load_file(tiny_models[family] / "model.safetensors").keys()
    ), "what is saved has plain names"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("lm_head"), "lacks weights of LlamaForCausalLM: lm_head.weight"),
        (without("layers.1."), "lacks weights of LlamaForCausalLM: model.layers.1.input_layernorm.weight, "),
        (without("layers.1."), " and 6 more"),
        (without("layers.0.self_attn.k_proj"), "lacks weights of LlamaForCausalLM: model.layers.0.self_attn.k_proj"),
        (without("embed_tokens"), "lacks weights of LlamaForCausalLM: model.embed_tokens.weight"),
        (renamed(lambda name: f"policy.{name}"), "it holds policy.lm_head.weight, "),
        (lambda weights: {n: w[:50] if "embed" in n else w for n, w in weights.items()}, "([50, 32] instead of [200"),
        (lambda weights: {n: w.T if "down" in n else w for n, w in weights.items()}, "weights of other shapes"),
        (lambda weights: with_("score.weight", 1, 32)(without("lm_head")(weights)), "the head of a reward model"),
        (with_("score.weight", 1, 32), "the head of a reward model or a classifier"),
        (with_("model.layers.2.mlp.up_proj.weight", 48, 32), "has no place for: model.layers.2.mlp.up_proj.weight"),
        (with_("model.layers.0.self_attn.q_norm.weight", 8), "has no place for: model.layers.0.self_attn.q_norm"),
        (with_("model.layers.0.self_attn.q_proj.bias", 32), "has no place for: model.layers.0.self_attn.q_proj.bias"),
        (with_("lm_head.bias", 200), "has no place for: lm_head.bias"),
        (spoilt("layers.1.mlp.up_proj", float("nan")), "NaN or infinity in model.layers.1.mlp.up_proj.weight"),
        (spoilt("model.norm", float("inf")), "holds NaN or infinity in model.norm.weight"),
        (spoilt("layernorm", -float("inf")), "NaN or infinity in model.layers.0.input_layernorm.weight, "),
    ],
)  # fmt: skip
def test_weights_that_are_not_the_models_are_refused_by_name(
    tiny_models: dict[str, Path], tmp_path: Path, change: Callable[[Weights], Weights], said: str
) -> None:
    assert said in refusal(changed(tiny_models["llama"], tmp_path / "model", change))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 80_000}, "holds weights of other shapes than its config.json says"),
        ({"vocab_size": 10**10}, "holds weights of other shapes than its config.json says"),
        ({"hidden_size": None}, "holds weights of other shapes than its config.json says"),
        ({"num_hidden_layers": 100_000}, "its config.json says 100,000 layers, but its files hold "),
    ],
)
def test_a_size_that_the_files_cannot_have_is_refused_before_memory_is_taken(
    tiny_models: dict[str, Path], tmp_path: Path, settings: dict[str, int | None], said: str
) -> None:
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    told = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({name: value for name, value in told.items() if value is not None}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in refusal(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000, "kilobytes"


def test_a_checkpoint_is_asked_for_its_size_too(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load_model(tiny_config(tiny_models["llama"]))
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    restore_weights(loaded, folder)
    told = json.loads((folder / "config.json").read_text()) | {"hidden_size": 80_000}
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"other shapes than its config\.json says: .* bytes"):
        restore_weights(loaded, folder)


def test_a_tied_output_layer_is_not_missing_and_an_untied_one_is(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    assert "lm_head.weight" not in load_file(tiny_models["qwen2"] / "model.safetensors")
    load_model(tiny_config(tiny_models["qwen2"]))
    folder = shutil.copytree(tiny_models["qwen2"], tmp_path / "untied")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": False}))
    assert "lacks weights of Qwen2ForCausalLM: lm_head.weight" in refusal(folder)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_reward_model_is_refused_from_its_config_alone(
    tiny_models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_models[family])
    kind: Any = AutoModelForSequenceClassification
    kind.from_config(plain.config).save_pretrained(tmp_path)
    for file in tiny_models[family].glob("token*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "ForSequenceClassification: it gives scores or labels and writes no text" in refusal(tmp_path)


def test_what_belongs_to_nothing_of_the_model_is_said(
    tiny_models: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = changed(tiny_models["llama"], tmp_path / "model", with_("v_head.summary.weight", 1, 32))
    with caplog.at_level(logging.WARNING, "spark_rl"):
        load_model(tiny_config(folder))
    assert "v_head.summary.weight is not part of LlamaForCausalLM and is not read" in caplog.text


def test_the_reference_and_a_checkpoint_are_read_whole_too(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    broken = changed(tiny_models["llama"], tmp_path / "broken", without("layers.1.mlp"))
    with pytest.raises(ConfigError, match="lacks weights"):  # the base, which is the reference of a resumed run
        load_model(tiny_config(broken, objective={"kl": 0.1}))
    with pytest.raises(ConfigError, match="lacks weights"):
        load_model(tiny_config(tiny_models["llama"]), broken)


@peft_warning
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("layers.1."), "lacks weights of its adapters: base_model.model.model.layers.1."),
        (renamed(lambda name: name.replace("layers.1", "layers.7")), "lacks weights of its adapters: "),
        (with_("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", 2, 32), "has no place for: base_model"),
        (spoilt("lora_A", float("nan")), "NaN or infinity in"),
        (lambda weights: {n: w[:, :5] if "lora_A" in n else w for n, w in weights.items()}, "cannot load the model"),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_adapters_are_read_whole_too(
    tiny_models: dict[str, Path], tmp_path: Path, change: Callable[[Weights], Weights], said: str, resumed: bool
) -> None:
    lora = {"lora": {"rank": 2}}
    learner_of(tiny_models["qwen3"], model=lora).export(tmp_path / "whole")
    folder = changed(tmp_path / "whole", tmp_path / "changed", change, "adapter_model.safetensors")
    config = tiny_config(tiny_models["qwen3"], model=lora) if resumed else tiny_config(folder)
    with pytest.raises(ConfigError) as caught:
        load_model(config, folder if resumed else None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@peft_warning
def test_adapters_without_their_weights_never_go_to_the_hub(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    learner_of(tiny_models["qwen3"], model={"lora": {"rank": 2}}).export(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    assert "has an adapter_config.json and no adapter_model.safetensors" in refusal(tmp_path)


def test_the_command_line_says_it_in_one_line(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    changed(tiny_models["llama"], tmp_path / "model", without("lm_head"))
    done = spark_rl_process("solve", "--model", "model", "1+1?", "model.threads=1", cwd=tmp_path)
    assert done.returncode == 2
    assert complaints(done.stderr) == (
        f"spark-rl: '{tmp_path / 'model'}' lacks weights of LlamaForCausalLM: lm_head.weight; they would be random, so "
        "save the whole model again\n"
    )
