"""Which architectures run, from configurations and from the proof on a few tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM, MistralForCausalLM
from transformers.models.gpt2.modeling_gpt2 import GPT2Model
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.mistral.modeling_mistral import MistralModel

from spark_rl.embedded.build import build_tokenizer
from spark_rl.errors import ConfigError
from spark_rl.model.architecture import PROOF_WINDOW, check_architecture, prove_decoder
from spark_rl.model.cache import cache_argument
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.sizes import positions_of
from tiny import VOCABULARY, tiny_config
from windowed import WINDOWED, make_windowed

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("t5", {}, "encoder-decoders"),
    ("bart", {}, "encoder-decoders"),
    ("whisper", {}, "encoder-decoders"),
    ("bert", {}, r"encoders, .* \(is_decoder is false\)"),
    ("xlm-roberta", {}, r"encoders, .* \(is_decoder is false\)"),
    ("bloom", {}, "not told the positions of tokens"),
    ("mpt", {}, "ALiBi"),
    ("falcon", {"alibi": True}, "ALiBi"),
    ("llama", {"use_alibi": True}, "ALiBi"),
    ("llama", {"position_embedding_type": "alibi"}, "ALiBi"),
    ("llama4_text", {}, "chunked_attention layers"),
    ("llama4", {}, "chunked_attention layers"),
    ("llama", {"attention_chunk_size": 64}, "in chunks"),
    ("qwen3_next", {}, "linear_attention layers"),
    ("qwen3_5", {}, "linear_attention layers"),
    ("jamba", {}, "linear_attention layers"),
    ("minimax", {}, "linear_attention layers"),
    ("recurrent_gemma", {}, "linear_attention layers"),
    ("mamba", {}, "linear_attention layers"),
    ("falcon_h1", {}, "hybrid layers"),
    ("lfm2", {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}, "have conv layers"),
    ("llama", {"num_hidden_layers": 2, "layer_types": ["full_attention", "indexed_attention"]}, "indexed_attention"),
    ("rwkv", {}, "recurrent layers"),
    ("xlstm", {}, "recurrent layers"),
    ("xlnet", {}, "keep no keys and values"),
    ("llama", {"is_causal": False}, "both directions"),
    ("xlm", {}, "both directions"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "both directions"),
    ("gemma3", {}, "through sliding windows"),
    ("mistral3", {"text_config": {"model_type": "mistral", "sliding_window": 64}}, "through sliding windows"),
    ("paligemma", {}, "both directions"),
]  # fmt: skip
"""Type of model, settings of its configuration, what the line says."""

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    *WINDOWED.items(),
    ("llama", {}), ("mistral", {"sliding_window": None}), ("falcon", {"alibi": False}), ("falcon", {}), ("gpt2", {}),
    ("gptj", {}), ("gpt_neo", {}), ("opt", {}), ("phi", {}), ("bert", {"is_decoder": True}), ("deepseek_v3", {}),
    ("granite", {}), ("smollm3", {}), ("qwen2_vl", {}), ("qwen2_5_vl", {}), ("qwen3_vl", {}), ("internvl", {}),
    ("llava_onevision", {}), ("idefics3", {}),
]  # fmt: skip


def config_of(kind: str, settings: dict[str, Any]) -> Any:
    layers = {"num_hidden_layers": len(settings["layer_types"])} if "layer_types" in settings else {}
    return AutoConfig.for_model(kind, **layers, **{k: v for k, v in settings.items() if k not in layers})


@pytest.mark.parametrize(("kind", "settings", "why"), REFUSED)
def test_what_cannot_run_is_refused_before_any_weight_is_read(
    tmp_path: Path, kind: str, settings: dict[str, Any], why: str
) -> None:
    """The folder holds ``config.json`` and a tokenizer, and no weights that could be missed."""
    config_of(kind, settings).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=why) as caught:
        load_model(tiny_config(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "settings"), ACCEPTED)
def test_what_can_run_is_not_refused(kind: str, settings: dict[str, Any]) -> None:
    check_architecture(config_of(kind, settings))


LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("llama", {"rope_parameters": {**LONG, "original_max_position_embeddings": 64}}, 64),
        ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 70}, 70),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 900),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 1800),
        ("gemma3_text", {"rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {**LONG, "original_max_position_embeddings": 80},
        }}, 80),
    ],
)  # fmt: skip
def test_positions_end_where_rotations_would_change(
    tmp_path: Path, kind: str, settings: dict[str, Any], expected: int
) -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 900}
    AutoConfig.for_model(kind, **sizes, **settings).save_pretrained(tmp_path)
    assert positions_of(AutoConfig.from_pretrained(tmp_path)) == expected


# --- the proof ------------------------------------------------------------------------------------------------------


def passed(decoder: type, cache: Any) -> dict[str, Any]:
    """A cache under the name that the decoder below takes it by: these classes are as code of hub repositories is."""
    return {cache_argument(decoder) or "": cache}


class MasklessModel(LlamaModel):
    """Sees padding."""

    def forward(self, position_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        options.pop("attention_mask", None)
        return super().forward(position_ids=position_ids, **passed(LlamaModel, past_key_values), **options)


class CountingModel(GPT2Model):
    """Counts positions itself, padding included."""

    def forward(self, position_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        return super().forward(**passed(GPT2Model, past_key_values), **options)


class FarsightedModel(MistralModel):
    """Leaves its window away as soon as there is a cache: wrong beyond the window only."""

    def forward(self, position_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        window = self.config.sliding_window
        if past_key_values is not None and past_key_values.get_seq_length():
            self.config.sliding_window = 1000
        found = super().forward(position_ids=position_ids, **passed(MistralModel, past_key_values), **options)
        self.config.sliding_window = window
        return found


class StepwiseModel(LlamaModel):
    """Right for many tokens at once, wrong for one at a time."""

    def forward(self, position_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        found = super().forward(position_ids=position_ids, **passed(LlamaModel, past_key_values), **options)
        found.last_hidden_state = found.last_hidden_state * (1.1 if options["input_ids"].shape[1] == 1 else 1.0)
        return found


class TupleModel(LlamaModel):
    """Reads its cache as code of hub repositories did for years."""

    def forward(self, position_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        past = past_key_values[0][0].shape[-2] if past_key_values is not None else 0
        assert past >= 0
        return super().forward(position_ids=position_ids, **passed(LlamaModel, past_key_values), **options)


class CurrentModel(LlamaModel):
    """Calls its cache as transformers does from 5.24 on, whichever version runs."""

    def forward(self, position_ids: Any = None, cache: Any = None, **options: Any) -> Any:
        return super().forward(position_ids=position_ids, **passed(LlamaModel, cache), **options)


class FormerModel(LlamaModel):
    """Calls its cache as transformers did before 5.24 and code of hub repositories does."""

    def forward(self, position_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        return super().forward(position_ids=position_ids, **passed(LlamaModel, past_key_values), **options)


class PositionlessModel(LlamaModel):
    """Like an ALiBi model of a hub repository."""

    def forward(self, input_ids: Any, attention_mask: Any = None, past_key_values: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError("the proof should stop before")


def loaded_of(whole: Any, kind: str, dtype: str = "float32", decoder: Any = None, **settings: Any) -> LoadedModel:
    """A tiny random model, its decoder of another class if given."""
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, initializer_range=0.3, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    model = whole.from_config(config) if whole is AutoModelForCausalLM else whole(config)
    model = model.to(getattr(torch, dtype)).eval()
    part = model.base_model
    if decoder is not None:
        part.__class__ = decoder
    return LoadedModel(model, None, part, torch.device("cpu"))


@pytest.mark.parametrize(
    ("whole", "kind", "decoder", "settings"),
    [
        (LlamaForCausalLM, "llama", MasklessModel, {}),
        (LlamaForCausalLM, "llama", StepwiseModel, {}),
        (GPT2LMHeadModel, "gpt2", CountingModel, {}),
        (MistralForCausalLM, "mistral", FarsightedModel, {"num_key_value_heads": 2, "sliding_window": 64}),
        (AutoModelForCausalLM, "bert", None, {}),
    ],
)
def test_wrong_numbers_are_refused(whole: Any, kind: str, decoder: Any, settings: dict[str, Any]) -> None:
    loaded = loaded_of(whole, kind, decoder=decoder, **settings)
    with pytest.raises(ConfigError, match="other hidden states behind a shared prompt than alone"):
        prove_decoder(loaded)


@pytest.mark.parametrize("decoder", [LlamaModel, CurrentModel, FormerModel])
def test_a_cache_goes_by_the_name_that_the_decoder_has_for_it(decoder: Any) -> None:
    prove_decoder(loaded_of(LlamaForCausalLM, "llama", decoder=decoder))


def test_a_window_may_be_as_wide_as_that_of_the_proof(tmp_path: Path) -> None:
    path = make_windowed("mistral", tmp_path, sliding_window=PROOF_WINDOW)
    assert load_model(tiny_config(path)).windows == (PROOF_WINDOW,) * 4


def test_a_window_that_the_code_does_not_know_is_none() -> None:
    """As in configurations that were made from those of other families."""
    loaded = loaded_of(LlamaForCausalLM, "llama", sliding_window=4)
    assert loaded.causal_lm.config.sliding_window == 4
    assert prove_decoder(loaded) == (None, None)


def test_code_that_takes_no_cache_of_today_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"does not get through a pass with a shared prompt \(TypeError") as caught:
        prove_decoder(loaded_of(LlamaForCausalLM, "llama", decoder=TupleModel))
    assert "\n" not in str(caught.value)


def test_code_that_asserts_what_is_not_so_here_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"XLMWithLMHeadModel does not get through .* \(AssertionError"):
        prove_decoder(loaded_of(AutoModelForCausalLM, "xlm", causal=True))


def test_a_decoder_of_a_hub_repository_is_asked_for_positions_too() -> None:
    with pytest.raises(ConfigError, match="not told the positions of tokens"):
        prove_decoder(loaded_of(LlamaForCausalLM, "llama", decoder=PositionlessModel))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", WINDOWED)
def test_the_proof_holds_in_every_precision_and_leaves_the_window_alone(
    tmp_path: Path, family: str, dtype: str
) -> None:
    path = make_windowed(family, tmp_path, sliding_window=50)
    loaded = load_model(tiny_config(path, model={"dtype": dtype}))
    kinds = loaded.causal_lm.config.get_text_config().to_dict().get("layer_types") or ["sliding_attention"] * 4
    assert loaded.windows == tuple(50 if kind == "sliding_attention" else None for kind in kinds)
    assert 50 in loaded.windows
    assert prove_decoder(loaded) == loaded.windows
    assert loaded.causal_lm.config.sliding_window == 50
    assert loaded.decoder.config.sliding_window == 50
