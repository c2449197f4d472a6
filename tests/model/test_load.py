"""Loading: what is accepted, what is refused, and that decoder and head together are the model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from conftest import make_model
from spark_rl.config import LoraConfig, ModelConfig
from spark_rl.embedded.build import build_tokenizer
from spark_rl.engine.base import Sampling
from spark_rl.errors import ConfigError
from spark_rl.model.load import check_head, load_model, resolve_device, set_arithmetic
from tiny import engine_of, learner_of, prompts, random_groups, tiny_config

TOKENS = torch.tensor([[1, 5, 6, 7, 80]])


@torch.no_grad()
def test_decoder_and_head_are_the_model(model_path: str) -> None:
    loaded = load_model(tiny_config(model_path))
    stock = AutoModelForCausalLM.from_pretrained(model_path).eval()
    logits = loaded.head(loaded.decoder(input_ids=TOKENS).last_hidden_state)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, stock(TOKENS).logits, atol=1e-5)


def altered(folder: Path, kind: str, **settings: Any) -> Path:
    """A tiny random model of a family that does something to its logits."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.3, **settings,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 1.5}),
        ("granite", {"logits_scaling": 3.0}),
        ("cohere", {"logit_scale": 0.3}),
    ],
)
@torch.no_grad()
def test_caps_and_scales_of_logits_are_applied(tmp_path: Path, kind: str, settings: dict[str, Any], dtype: str) -> None:
    path = altered(tmp_path, kind, **settings)
    loaded = load_model(tiny_config(path, model={"attention": "eager", "dtype": dtype}))
    hidden = loaded.decoder(input_ids=TOKENS, use_cache=False).last_hidden_state
    raw = loaded.causal_lm.get_output_embeddings()(hidden).float()
    assert not torch.allclose(loaded.head(hidden), raw, atol=0.1)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    assert torch.allclose(loaded.head(hidden), loaded.causal_lm(TOKENS).logits.float(), rtol=tolerance, atol=tolerance)


def test_a_model_that_alters_its_logits_otherwise_is_refused(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["llama"]))

    def alter(_module: Any, _args: Any, output: Any) -> Any:
        output.logits = output.logits * 1.1
        return output

    handle = loaded.causal_lm.register_forward_hook(alter)
    with pytest.raises(ConfigError, match="LlamaForCausalLM changes its logits after the output layer"):
        check_head(loaded)
    handle.remove()
    check_head(loaded)


def test_dropout_is_off_though_the_model_has_some(tmp_path: Path) -> None:
    learner = learner_of(altered(tmp_path, "qwen3", attention_dropout=0.9))
    assert not any(module.training for module in learner.loaded.model.modules())
    rows = ([[1, 5, 6, 7, 8, 9]], [[10, 11, 12]])
    assert torch.equal(learner.logprobs(*rows)[0], learner.logprobs(*rows)[0])
    engine = engine_of(learner.loaded)
    learner.update(random_groups(1, 4))
    ((answer,),) = engine.generate(prompts(1), Sampling(max_new_tokens=6))
    again = learner.logprobs([prompts(1)[0].token_ids], [answer.token_ids])[0]
    assert again.tolist() == pytest.approx(answer.logprobs, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_the_settings(tiny_models: dict[str, Path], dtype: str) -> None:
    loaded = load_model(tiny_config(tiny_models["llama"], model={"dtype": dtype}))
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}


# --- gradient checkpointing -----------------------------------------------------------------------------------------


def test_gradient_checkpointing_recomputes_and_changes_nothing(tiny_models: dict[str, Path]) -> None:
    plain = learner_of(tiny_models["qwen3"])
    saving = learner_of(tiny_models["qwen3"], model={"gradient_checkpointing": True})
    calls = {"plain": 0, "saving": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    plain.loaded.decoder.layers[0].self_attn.register_forward_hook(count("plain"))
    saving.loaded.decoder.layers[0].self_attn.register_forward_hook(count("saving"))
    groups = random_groups(2, 4)
    plain.update(groups)
    saving.update(groups)
    assert calls["saving"] == 2 * calls["plain"] > 0
    for a, b in zip(plain.loaded.model.parameters(), saving.loaded.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradient_checkpointing_leaves_the_engine_its_cache(tiny_models: dict[str, Path]) -> None:
    greedy = Sampling(temperature=0.0, max_new_tokens=12)
    found = [
        engine_of(load_model(tiny_config(tiny_models["qwen2"], model=model))).generate(prompts(4), greedy)
        for model in ({}, {"gradient_checkpointing": True})
    ]
    assert found[0] == found[1]


# --- adapters -------------------------------------------------------------------------------------------------------

# peft asks transformers by a name that this version of transformers calls deprecated.
peft_warning = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
LORA = {"lora": {"rank": 2, "alpha": 8.0}}


@peft_warning
def test_adapters_are_all_that_is_trained(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen3"], model=LORA))
    trained = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert loaded.causal_lm is not loaded.model
    assert type(loaded.causal_lm).__name__ == "Qwen3ForCausalLM"


@peft_warning
def test_new_adapters_are_a_function_of_the_seed_alone(tiny_models: dict[str, Path]) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()

    def adapters(seed: int) -> torch.Tensor:
        loaded = load_model(tiny_config(tiny_models["llama"], model=LORA, seed=seed))
        return torch.cat([p.detach().flatten() for p in loaded.model.parameters() if p.requires_grad])

    first = adapters(3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(adapters(3), first)
    assert not torch.equal(adapters(4), first)


@peft_warning
def test_target_modules_choose_what_is_adapted(tiny_models: dict[str, Path]) -> None:
    model = {"lora": {"rank": 2, "target_modules": ["q_proj", "v_proj"]}}
    loaded = load_model(tiny_config(tiny_models["llama"], model=model))
    trained = {name.split(".")[-4] for name, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}


@peft_warning
def test_saved_adapters_are_loaded_and_trained_further(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config(tiny_models["qwen3"], model=LORA, optimiser={"lr": 0.05})
    learner = learner_of(tiny_models["qwen3"], model=LORA, optimiser={"lr": 0.05})
    rows = ([[1, 5, 6]], [[10, 11, 12]])
    fresh = learner.logprobs(*rows)[0]
    learner.update(random_groups(2, 4))
    learner.export(tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()
    loaded = load_model(config, tmp_path / "model")
    assert sum(p.requires_grad for p in loaded.model.parameters()) == len(learner.parameters)
    again = type(learner)(loaded, config).logprobs(*rows)[0]
    assert torch.equal(again, learner.logprobs(*rows)[0])
    assert not torch.allclose(again, fresh, atol=1e-3)
    # transformers alone puts them together too, as ``spark-rl solve`` does with a finished run
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert torch.allclose(stock(TOKENS).logits, loaded.causal_lm(TOKENS).logits, atol=1e-5)


@peft_warning
def test_new_adapters_on_saved_ones_start_from_the_merged_model(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    learner = learner_of(tiny_models["llama"], model=LORA, optimiser={"lr": 0.05})
    learner.update(random_groups(2, 4))
    learner.export(tmp_path)
    loaded = load_model(tiny_config(tmp_path, model=LORA))
    wanted = learner.loaded.causal_lm(TOKENS).logits
    assert torch.allclose(loaded.causal_lm(TOKENS).logits, wanted, atol=1e-5)
    with loaded.model.disable_adapter():  # type: ignore[operator]
        assert torch.allclose(loaded.causal_lm(TOKENS).logits, wanted, atol=1e-5), "the reference of its KL term"


# --- refusals -------------------------------------------------------------------------------------------------------


def refusal(path: str | Path, **model: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_model(tiny_config(path, model=model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_path_is_said_in_one_line(tmp_path: Path) -> None:
    found = refusal(tmp_path / "nothing")
    gone = str(tmp_path / "nothing")
    assert found == f"there is no model at {gone!r}; model.path is a directory, a hub id or an embedded base"


def test_an_unknown_hub_id_is_said_in_one_line() -> None:
    assert refusal("spark-rl/no-such-model").startswith("cannot load the model 'spark-rl/no-such-model': ")


def spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def spoil_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def spoil_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize("spoil", [spoil_config, spoil_type, spoil_weights, drop_weights, spoil_tokenizer])
def test_a_broken_directory_is_said_in_one_line(
    tiny_models: dict[str, Path], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    spoil(folder)
    assert refusal(folder).startswith(f"cannot load the model {str(folder)!r}: ")


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = make_model("llama", tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["eos_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "has no end-of-sequence token, so no response could ever end" in refusal(folder)


@pytest.mark.parametrize("device", ["potato", "meta", "cuda"])
def test_a_device_that_is_not_there_is_refused(tiny_models: dict[str, Path], device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    assert refusal(tiny_models["llama"], device=device).startswith(f"model.device {device!r} can't be used here: ")


@peft_warning
def test_unknown_target_modules_are_refused(tiny_models: dict[str, Path]) -> None:
    found = refusal(tiny_models["llama"], lora=LoraConfig(target_modules=("nope",)).model_dump())
    assert "nope" in found


def test_auto_is_a_device_of_this_machine() -> None:
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
    assert resolve_device("cpu") == torch.device("cpu")


def test_threads_are_the_settings_or_the_cores() -> None:
    before = torch.get_num_threads()
    try:
        set_arithmetic(ModelConfig(threads=1))
        assert torch.get_num_threads() == 1
        set_arithmetic(ModelConfig())
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


def test_deterministic_is_set_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    try:
        set_arithmetic(ModelConfig(threads=1))
        assert not torch.are_deterministic_algorithms_enabled()
        set_arithmetic(ModelConfig(threads=1, deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(mode=False)
