"""What is trained and what is not: ``model.freeze`` on models of every family, with adapters and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spark_rl.config import load_config
from spark_rl.errors import ConfigError
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from tiny import learner_of, random_groups, tiny_config
from vision import VLM_FAMILIES, make_vlm

peft_warning = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

PARTS = {
    "qwen2_5_vl": (("model.visual.blocks.", "model.visual.patch_embed."), ("model.visual.merger.",)),
    "qwen3_vl": (
        ("model.visual.blocks.", "model.visual.patch_embed.", "model.visual.pos_embed."),
        ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    ),
    "idefics3": (("model.vision_model.",), ("model.connector.",)),
    "internvl": (("model.vision_tower.",), ("model.multi_modal_projector.",)),
    "llava_onevision": (("model.vision_tower.",), ("model.multi_modal_projector.", "model.image_newline")),
}
"""Family -> beginnings of the names of its tower's weights, and of its projector's."""


@pytest.fixture(scope="module")
def vlms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_vlm(family, tmp_path_factory.mktemp(family)) for family in VLM_FAMILIES}


def frozen(loaded: LoadedModel) -> set[str]:
    return {name for name, weight in loaded.causal_lm.named_parameters() if not weight.requires_grad}


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_the_tower_is_frozen_and_the_projector_is_not_unless_it_is_named(vlms: dict[str, Path], family: str) -> None:
    tower, projector = PARTS[family]
    everything = {name for name, _ in load_model(tiny_config(vlms[family])).causal_lm.named_parameters()}
    for setting, beginnings in (
        ({}, tower),
        ({"freeze": ["projector"]}, projector),
        ({"freeze": ["vision", "projector"]}, tower + projector),
        ({"freeze": []}, ("nothing",)),
    ):
        wanted = {name for name in everything if name.startswith(beginnings)}
        assert bool(wanted) == (setting != {"freeze": []})
        assert frozen(load_model(tiny_config(vlms[family], model=setting))) == wanted


def test_nothing_of_a_model_that_sees_nothing_is_frozen_by_default(model_path: str) -> None:
    assert frozen(load_model(tiny_config(model_path, model={"freeze": ["vision", "projector"]}))) == set()


@pytest.mark.parametrize(
    ("name", "beginnings"),
    [
        ("model.layers.0", ("model.layers.0.",)),
        ("layers.1", ("model.layers.1.",)),
        ("embed_tokens", ("model.embed_tokens.",)),
        ("model.layers.*.mlp", ("model.layers.0.mlp.", "model.layers.1.mlp.")),
        ("lm_head.weight", ("lm_head.",)),
    ],
)
def test_names_mean_modules_and_all_in_them(tiny_models: dict[str, Path], name: str, beginnings: tuple[str]) -> None:
    found = frozen(load_model(tiny_config(tiny_models["llama"], model={"freeze": [name]})))
    assert found
    assert all(weight.startswith(beginnings) for weight in found)
    assert all(any(weight.startswith(begin) for weight in found) for begin in beginnings)


def test_tied_weights_are_one_weight(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen2"], model={"freeze": ["embed_tokens"]}))
    assert not loaded.causal_lm.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize("model", [{}, {"gradient_checkpointing": True}, {"dtype": "bfloat16"}])
def test_an_update_leaves_what_is_frozen(tiny_models: dict[str, Path], model: dict[str, Any]) -> None:
    learner = learner_of(tiny_models["qwen3"], model={**model, "freeze": ["layers.0"]}, optimiser={"lr": 0.05})
    before = {name: weight.clone() for name, weight in learner.loaded.causal_lm.named_parameters()}
    assert learner.update(random_groups(2, 4))["grad_norm"] > 0
    changed = {
        name for name, weight in learner.loaded.causal_lm.named_parameters() if not torch.equal(weight, before[name])
    }
    assert changed
    assert not any(name.startswith("model.layers.0.") for name in changed)
    assert {name for name in before if name.startswith("model.layers.1.")} <= changed
    assert len(learner.parameters) == len(before) - sum(name.startswith("model.layers.0.") for name in before)


@peft_warning
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_adapters_keep_off_the_tower(vlms: dict[str, Path], family: str, tmp_path: Path) -> None:
    tower, projector = PARTS[family]

    def adapted(**setting: Any) -> set[str]:
        config = tiny_config(vlms[family], model={"lora": {"rank": 2}, **setting})
        loaded = load_model(config)
        names = {name for name, weight in loaded.causal_lm.named_parameters() if weight.requires_grad}
        assert all("lora_" in name for name in names)
        LocalLearner(loaded, config).export(tmp_path)
        again = load_model(config, tmp_path)
        assert names == {name for name, weight in again.causal_lm.named_parameters() if weight.requires_grad}
        return names

    by_default, with_tower = adapted(), adapted(freeze=[])
    assert not any(name.startswith(tower) for name in by_default)
    assert any(name.startswith(projector) for name in by_default)
    assert {name for name in with_tower if not name.startswith(tower)} == by_default < with_tower


@peft_warning
def test_a_target_that_is_also_in_the_tower_is_adapted_elsewhere_only(vlms: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(vlms["internvl"], model={"lora": {"rank": 2, "target_modules": ["q_proj"]}}))
    names = [name for name, weight in loaded.causal_lm.named_parameters() if weight.requires_grad]
    assert len(names) == 4
    assert all(name.startswith("model.language_model.") for name in names)


# --- refusals -------------------------------------------------------------------------------------------------------


@peft_warning
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"freeze": ["model.layer.0"]}, "no module 'model.layer.0'; did you mean model.layers.0"),
        ({"freeze": ["potato"]}, "has no module 'potato'; known: model, embed_tokens, layers, self_attn and"),
        ({"freeze": ["model", "lm_head"]}, "freezes every weight of LlamaForCausalLM, so nothing would be trained"),
        ({"freeze": ["*"]}, "freezes every weight"),
        ({"lora": {"target_modules": ["q_prj"]}}, "LlamaForCausalLM has no module 'q_prj'; did you mean q_proj"),
        ({"lora": {"target_modules": ["q_proj", "nope"]}}, "has no module 'nope'; known: embed_tokens, q_proj"),
        ({"lora": {"target_modules": ["mlp"]}}, "'mlp' is no layer with weights of its own; name those in it: gate"),
        ({"lora": {"target_modules": ["mlp.up_proj"]}, "freeze": ["*.mlp"]}, "model.freeze keeps 'mlp.up_proj' as"),
    ],
)  # fmt: skip
def test_names_that_can_not_be_meant_are_refused_in_one_line(
    tiny_models: dict[str, Path], model: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_model(tiny_config(tiny_models["llama"], model=model))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_recipes_of_models_that_see_say_what_they_freeze() -> None:
    for recipe in ("tiny-vl", "qwen2.5-vl-7b", "qwen2.5-vl-32b"):
        assert load_config(recipe).model.freeze == ()
    assert load_config(None).model.freeze == ("vision",)
