"""Tiny random image-text-to-text models of several families with their processors, and pictures to show them.

The families differ in how images become tokens: ``qwen2_5_vl`` (window attention, M-RoPE, as many tokens as the image
has patches), ``qwen3_vl`` (interleaved M-RoPE, deepstack features added after the first decoder layer), ``idefics3``
(tiles between row and column tokens), ``internvl`` (tiles in one run of tokens) and ``llava_onevision`` (tiles whose
margins are cut away again, a newline vector after each row of patches, no tiles when there are several images).

``idefics3`` stands for SmolVLM, which is the same model with a processor that needs num2words and torchvision.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from transformers import AutoConfig, AutoModelForImageTextToText, Idefics3Processor, PreTrainedTokenizerBase
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from spark_rl.embedded.build import build_tokenizer
from spark_rl.model.vision import stills_only

VLM_FAMILIES = ("qwen2_5_vl", "qwen3_vl", "idefics3", "internvl", "llava_onevision")

HIDDEN = 64
TILE = 32
"""Pixels on a side of a tile, for the families that cut images into tiles."""
PATCH = 8
TILE_TOKENS = (TILE // PATCH // 2) ** 2
CHATML_START, CHATML_END = "<|im_start|>", "<|im_end|>"

_PARTS = (
    "{%% if m['content'] is string %%}{{ m['content'] }}{%% else %%}{%% for part in m['content'] %%}"
    "{%% if part['type'] == 'image' %%}%s{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}{%% endif %%}"
)
_CHATML = (
    "{%% for m in messages %%}<|im_start|>{{ m['role'] }}\n%s<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
_UTTERANCES = (
    "<|im_start|>{%% for m in messages %%}{{ m['role'] | capitalize }}: %s<end_of_utterance>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}Assistant:{%% endif %%}"
)
_TEMPLATES = {
    "qwen2_5_vl": _CHATML % (_PARTS % "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_vl": _CHATML % (_PARTS % "<|vision_start|><|image_pad|><|vision_end|>"),
    "idefics3": _UTTERANCES % (_PARTS % "<image>"),
    "internvl": _CHATML % (_PARTS % "<IMG_CONTEXT>\n"),
    "llava_onevision": _CHATML % (_PARTS % "<image>\n"),
}
_QWEN_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_CELLS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_SPECIAL = {
    "qwen2_5_vl": (CHATML_START, CHATML_END, *_QWEN_VISION),
    "qwen3_vl": (CHATML_START, CHATML_END, *_QWEN_VISION),
    "idefics3": (
        CHATML_START, "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>", *_CELLS,
    ),
    "internvl": (CHATML_START, CHATML_END, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    "llava_onevision": (CHATML_START, CHATML_END, "<image>", "<video>"),
}  # fmt: skip
_NAMED = {
    "internvl": {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
}  # fmt: skip


def make_vlm(family: str, path: Path, seed: int = 0, **text: Any) -> Path:
    """A tiny random model of one of :data:`VLM_FAMILIES` and its processor, saved the way transformers saves any."""
    tokenizer = _tokenizer(family)
    made = _config(family, tokenizer)
    config = AutoConfig.for_model(family, **{**made, "text_config": {**made["text_config"], **text}})
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # position tables and newline vectors too, which transformers starts at zero
                parameter.normal_(std=0.2)
    model.save_pretrained(path)
    _processor(family, tokenizer, config).save_pretrained(path)
    return path


def draw_image(seed: int, width: int, height: int) -> Image.Image:
    """Three coloured shapes on a coloured ground, an RGB image that depends on ``seed`` alone."""
    rng = random.Random(seed)

    def colour() -> tuple[int, int, int]:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    image = Image.new("RGB", (width, height), colour())
    draw = ImageDraw.Draw(image)
    for shape in (draw.rectangle, draw.ellipse, draw.rectangle):
        left, top = rng.randrange(width // 2 + 1), rng.randrange(height // 2 + 1)
        shape((left, top, left + rng.randrange(width // 2 + 1), top + rng.randrange(height // 2 + 1)), fill=colour())
    return image


def _tokenizer(family: str) -> PreTrainedTokenizerBase:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": list(_SPECIAL[family])})
    tokenizer.add_special_tokens({"eos_token": _SPECIAL[family][1]})
    tokenizer._set_model_specific_special_tokens(_NAMED.get(family, {}))
    tokenizer.chat_template = _TEMPLATES[family]
    return tokenizer


def _config(family: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Grouped-query attention, two decoder layers; the vision part two blocks."""

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0,
    }  # fmt: skip
    vision: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48}
    tiled = {**vision, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": TILE, "patch_size": PATCH}
    if family in ("qwen2_5_vl", "qwen3_vl"):
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
        vision |= {"depth": 2, "num_heads": 2, "out_hidden_size": HIDDEN, "patch_size": 14}
        if family == "qwen2_5_vl":  # windows of 2 x 2 tokens in block 0
            vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        else:  # what block 0 saw is added after decoder layer 0
            text |= {"head_dim": 16}
            text["rope_parameters"] |= {"mrope_interleaved": True}
            vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        special = {
            "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
            "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
        }  # fmt: skip
        return {"text_config": text, "vision_config": vision, **special}
    if family == "idefics3":
        return {"text_config": {**text, "model_type": "llama"}, "vision_config": tiled, "scale_factor": 2,
                "image_token_id": token("<image>")}  # fmt: skip
    if family == "internvl":
        return {"text_config": {**text, "model_type": "qwen2"}, "vision_config": tiled, "tie_word_embeddings": False,
                "image_seq_length": TILE_TOKENS, "image_token_id": token("<IMG_CONTEXT>")}  # fmt: skip
    return {
        "text_config": {**text, "model_type": "qwen2"}, "image_token_id": token("<image>"),
        "vision_config": {
            **tiled, "patch_size": TILE // 2, "model_type": "siglip_vision_model", "vision_use_head": False,
        },
        "video_token_id": token("<video>"), "image_grid_pinpoints": _pinpoints(), "vision_aspect_ratio": "anyres_max_9",
    }  # fmt: skip


def _pinpoints() -> list[list[int]]:
    return [[TILE * rows, TILE * columns] for rows in range(1, 4) for columns in range(1, 4)]


def _processor(family: str, tokenizer: PreTrainedTokenizerBase, config: Any) -> Any:
    """Small enough that a picture of 84 x 56 pixels is a handful of tokens."""
    template = tokenizer.chat_template
    if family == "idefics3":
        images = Idefics3ImageProcessorPil(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
        return Idefics3Processor(images, tokenizer, image_seq_len=TILE_TOKENS, chat_template=template)
    make = stills_only(PROCESSOR_MAPPING[type(config)])
    if family == "internvl":
        images = GotOcr2ImageProcessorPil(size={"height": TILE, "width": TILE}, max_patches=4)
        return make(images, tokenizer, image_seq_length=TILE_TOKENS, chat_template=template)
    if family == "llava_onevision":
        images = LlavaOnevisionImageProcessorPil(
            size={"height": TILE, "width": TILE}, image_grid_pinpoints=_pinpoints()
        )
        return make(
            images, tokenizer, num_image_tokens=TILE_TOKENS, vision_feature_select_strategy="full",
            chat_template=template,
        )  # fmt: skip
    images = Qwen2VLImageProcessorPil(patch_size=14, min_pixels=28 * 28, max_pixels=64 * 28 * 28)
    return make(images, tokenizer, chat_template=template)
