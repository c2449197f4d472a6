"""``config.json`` of models that recipes name, so that a plan needs no network: what decides shapes, nothing else.

From the Hugging Face repositories of the same names.
"""

from __future__ import annotations

from typing import Any


def _text(hidden: int, inner: int, layers: int, heads: int, kv: int, rows: int, *, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "vocab_size": rows, "tie_word_embeddings": tied, "max_position_embeddings": 32768,
    }  # fmt: skip


def _seeing(text: dict[str, Any], inner: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    tied = text["tie_word_embeddings"]
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": inner, "num_heads": 16, "patch_size": 14,
              "out_hidden_size": text["hidden_size"], "window_size": 112, "spatial_merge_size": 2,
              "temporal_patch_size": 2, "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip
    text = {**text, "max_position_embeddings": 128000, "rope_parameters": rope}
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": tied, "image_token_id": 151655,
            "video_token_id": 151656, "vision_start_token_id": 151652, "vision_end_token_id": 151653}  # fmt: skip


_QWEN = {
    "0.5B": _text(896, 4864, 24, 14, 2, 151936, tied=True),
    "1.5B": _text(1536, 8960, 28, 12, 2, 151936, tied=True),
    "3B": _text(2048, 11008, 36, 16, 2, 151936, tied=True),
    "7B": _text(3584, 18944, 28, 28, 4, 152064, tied=False),
    "14B": _text(5120, 13824, 48, 40, 8, 152064, tied=False),
    "32B": _text(5120, 27648, 64, 40, 8, 152064, tied=False),
    "72B": _text(8192, 29568, 80, 64, 8, 152064, tied=False),
}
_VISION_INNER = {"3B": 3420, "7B": 3420, "32B": 3456, "72B": 3456}

KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"Qwen/Qwen2.5-{size}{kind}": ("qwen2", text) for size, text in _QWEN.items() for kind in ("", "-Instruct")},
    **{
        f"Qwen/Qwen2.5-VL-{size}-Instruct": ("qwen2_5_vl", _seeing(_QWEN[size], inner))
        for size, inner in _VISION_INNER.items()
    },
}
"""Name -> (model type, settings of its configuration)."""
