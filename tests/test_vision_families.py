"""The tiny vision models of the tests are what they claim: loadable, seeing, and different in their image plumbing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.video_processing_utils import BaseVideoProcessor

from spark_rl.model.vision import load_processor
from vision import VLM_FAMILIES, draw_image, make_vlm

PLACE = {
    "qwen2_5_vl": "<|image_pad|>", "qwen3_vl": "<|image_pad|>", "idefics3": "<image>", "internvl": "<IMG_CONTEXT>",
    "llava_onevision": "<image>",
}  # fmt: skip


class Family:
    """A saved model, loaded the way a user's model is."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.model: Any = AutoModelForImageTextToText.from_pretrained(path).eval()
        self.processor: Any = load_processor(str(path), AutoConfig.from_pretrained(path))
        self.place = self.processor.tokenizer.convert_tokens_to_ids(PLACE[name])

    def encode(self, *parts: Any) -> dict[str, torch.Tensor]:
        """One user turn of strings and pictures."""
        content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in parts]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [p for p in parts if not isinstance(p, str)]
        return dict(self.processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt"))

    def logits(self, *parts: Any) -> torch.Tensor:
        """(V,) of the first response token."""
        with torch.no_grad():
            last: torch.Tensor = self.model(**self.encode(*parts)).logits[0, -1]
        return last

    def places(self, *parts: Any) -> int:
        return int((self.encode(*parts)["input_ids"] == self.place).sum())


@pytest.fixture(scope="module", params=VLM_FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, make_vlm(request.param, tmp_path_factory.mktemp(request.param)))


def test_pil_processors_and_grouped_query_attention(family: Family) -> None:
    assert type(family.processor.image_processor).__name__.endswith("Pil")
    text = family.model.config.get_text_config()
    assert text.num_key_value_heads < text.num_attention_heads
    assert text.vocab_size == len(family.processor.tokenizer) < 300


def test_what_the_picture_shows_matters(family: Family) -> None:
    first, second = (family.logits(draw_image(seed, 84, 56), "?").softmax(-1) for seed in (1, 2))
    assert (first - second).abs().sum() > 0.1
    assert first.max() > 2 / len(first)


def test_order_of_pictures_matters(family: Family) -> None:
    one, two = draw_image(1, 60, 60), draw_image(2, 60, 60)
    assert (family.logits(one, "?", two) - family.logits(two, "?", one)).abs().max() > 1e-2


def test_placeholders_stand_for_features(family: Family) -> None:
    picture = draw_image(1, 84, 56)
    encoded = family.encode("look ", picture)
    features = family.model.base_model.get_image_features(
        **{k: v for k, v in encoded.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")}
    ).pooler_output
    count = sum(feature.numel() for feature in features) // family.model.config.get_text_config().hidden_size
    assert family.places("look ", picture) == count > 1
    assert family.places("look ") == 0


def test_image_parts_stand_where_they_stand_in_the_turn(family: Family) -> None:
    ids = family.encode("x", draw_image(1, 56, 56), "q", draw_image(2, 56, 56), "z")["input_ids"][0].tolist()
    text = "".join(family.processor.tokenizer.convert_ids_to_tokens(ids))
    before, first, second, after = re.split("[xqz]", text)
    assert [PLACE[family.name] in part for part in (before, first, second, after)] == [False, True, True, False]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (640, 480)])
def test_pictures_of_every_size_fit(family: Family, width: int, height: int) -> None:
    assert family.logits(draw_image(1, width, height), "?").isfinite().all()
    assert family.places(draw_image(1, width, height)) <= 64


def test_seeds_give_different_weights_and_equal_seeds_equal_ones(family: Family, tmp_path: Path) -> None:
    shown = (draw_image(1, 56, 56), "?")
    again = Family(family.name, make_vlm(family.name, tmp_path / "again"))
    other = Family(family.name, make_vlm(family.name, tmp_path / "other", seed=1))
    assert torch.equal(again.logits(*shown), family.logits(*shown))
    assert not torch.allclose(other.logits(*shown), family.logits(*shown), atol=1e-2)


def test_dynamic_resolution_of_qwen(tmp_path: Path) -> None:
    qwen = Family("qwen2_5_vl", make_vlm("qwen2_5_vl", tmp_path))
    assert qwen.places(draw_image(1, 84, 56)) == 3 * 2
    assert qwen.places(draw_image(1, 56, 140)) == 2 * 5


def test_windows_of_qwen_hide_distant_patches_from_the_first_block(tmp_path: Path) -> None:
    qwen = Family("qwen2_5_vl", make_vlm("qwen2_5_vl", tmp_path))
    qwen.model.base_model.visual.fullatt_block_indexes = []
    plain, dotted = draw_image(1, 168, 56), draw_image(1, 168, 56)
    dotted.paste((0, 255, 0), (160, 48, 168, 56))  # in the last of three windows

    def features(image: Any) -> torch.Tensor:
        encoded = qwen.encode(image)
        made = qwen.model.base_model.get_image_features(encoded["pixel_values"], encoded["image_grid_thw"])
        return torch.cat(made.pooler_output)

    changed = (features(plain) - features(dotted)).abs().amax(-1).view(2, 6) > 0  # rows and columns of tokens
    assert changed[:, 4:].all()
    assert not changed[:, :4].any()


def test_deepstack_of_qwen3_reaches_the_decoder(tmp_path: Path) -> None:
    qwen = Family("qwen3_vl", make_vlm("qwen3_vl", tmp_path))
    shown = (draw_image(1, 56, 56), "?")
    before = qwen.logits(*shown)
    with torch.no_grad():
        qwen.model.base_model.visual.deepstack_merger_list[0].linear_fc2.weight.zero_()
    assert (qwen.logits(*shown) - before).abs().max() > 1e-2


def test_tiles_of_idefics3_depend_on_the_shape(tmp_path: Path) -> None:
    idefics = Family("idefics3", make_vlm("idefics3", tmp_path))
    tiles = [idefics.encode(draw_image(1, *size))["pixel_values"].shape[1] for size in ((60, 60), (90, 20))]
    assert tiles == [2 * 2 + 1, 2 * 1 + 1]


def test_the_settings_of_the_video_part_are_saved_again(tmp_path: Path) -> None:
    """Without torchvision the part can't be loaded; who loads the trained model with it still finds it."""
    model, run, resumed = make_vlm("qwen2_5_vl", tmp_path / "model"), tmp_path / "run", tmp_path / "resumed"
    settings = {"video_processor_type": "Qwen2VLVideoProcessor", "merge_size": 2, "max_frames": 12}
    (model / "video_preprocessor_config.json").write_text(json.dumps(settings))
    load_processor(str(model), AutoConfig.from_pretrained(model)).save_pretrained(run)
    load_processor(str(run), AutoConfig.from_pretrained(model)).save_pretrained(resumed)
    for saved in (run, resumed):
        assert BaseVideoProcessor.get_video_processor_dict(saved)[0] == settings
