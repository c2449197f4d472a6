"""Tiny random models whose attention sees a window of tokens in some layers or all, one of each family we claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from spark_rl.embedded.build import build_tokenizer

WINDOW = 8
_EVERY_OTHER = ["sliding_attention", "full_attention"] * 2
_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {},
    "phi3": {},
    "starcoder2": {},
    "mixtral": _EXPERTS,
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3": {"use_sliding_window": True, "layer_types": _EVERY_OTHER},
    "gemma2": {
        "layer_types": _EVERY_OTHER, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {"layer_types": _EVERY_OTHER, "query_pre_attn_scalar": 20, "rope_parameters": _ROPES},
    "gemma3n_text": {
        "layer_types": _EVERY_OTHER, "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * 4,
        "vocab_size_per_layer_input": 200, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
    },
    "cohere2": {"layer_types": _EVERY_OTHER, "logit_scale": 0.3},
    "olmo3": {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "gpt_oss": {"layer_types": _EVERY_OTHER, **_EXPERTS},
}  # fmt: skip
"""Family -> its own settings. Two rope bases are Gemma 3's, layers without positions Cohere 2's, sinks gpt-oss'."""


def make_windowed(family: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Four layers of grouped-query attention with a window of :data:`WINDOW` tokens."""
    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(family, **{
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
        "sliding_window": WINDOW, **WINDOWED[family], **settings,
    })  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):  # which transformers starts at whatever was in memory
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
