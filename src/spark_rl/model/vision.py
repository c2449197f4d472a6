"""Processors of models that see, and the tokens that stand for what they see."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoProcessor, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import VIDEO_PROCESSOR_NAME
from transformers.video_processing_utils import BaseVideoProcessor

VISION_TOKEN = re.compile(r"image|im_patch|img|video|vision|audio|row_\d+_col_\d+|[be]oi_token", re.IGNORECASE)
"""Names of tokens that stand for, or around, what is not text."""


def sees(config: PreTrainedConfig) -> bool:
    """Whether a model of this configuration takes images."""
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and hasattr(config, "vision_config")


def load_processor(source: str, config: PreTrainedConfig, **options: Any) -> Any:
    """The processor of an image-text-to-text model, without its video part where that can't be loaded.

    transformers 5 prepares video with torchvision only, and a processor that was saved without the video part does not
    load with it. We train on images; the settings of the video part are saved again with the processor.
    """
    try:
        return AutoProcessor.from_pretrained(source, **options)
    except (ImportError, OSError, ValueError):
        if type(config) not in PROCESSOR_MAPPING:
            raise
        try:
            video, _ = BaseVideoProcessor.get_video_processor_dict(source)
        except OSError:  # it has none
            video = None
        return stills_only(PROCESSOR_MAPPING[type(config)], video).from_pretrained(source, **options)


def stills_only(kind: Any, video: Mapping[str, Any] | None = None) -> Any:
    """A processor class without its video part, of which it saves the settings, ``video``, beside its own."""

    class Stills(kind):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

        def save_pretrained(self, save_directory: str | Path, **options: Any) -> Any:
            saved = super().save_pretrained(save_directory, **options)
            if video is not None:
                (Path(save_directory) / VIDEO_PROCESSOR_NAME).write_text(json.dumps(video, indent=2) + "\n", "utf-8")
            return saved

    Stills.__name__ = Stills.__qualname__ = kind.__name__  # what a saved processor is called
    return Stills


def vision_tokens(config: PreTrainedConfig, processor: Any) -> list[int]:
    """Ids of the tokens that stand for images, videos and their frames, by every name the family gives them.

    A policy that samples one asks for an image that is not there (trl#3847, ms-swift#9287).
    """
    named = {name: value for name, value in vars(config).items() if VISION_TOKEN.search(name)}
    found = {i for name, i in named.items() if name.endswith(("_token_id", "_token_index")) and isinstance(i, int)}
    for i, token in processor.tokenizer.added_tokens_decoder.items():
        if token.content[:1] in {"<", "["} and VISION_TOKEN.search(token.content):
            found.add(i)
    return sorted(found)
