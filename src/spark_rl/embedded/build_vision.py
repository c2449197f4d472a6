"""Makes the embedded vision base: ``python -m spark_rl.embedded.build_vision --seed 0`` writes ``embedded/vision``.

A Qwen2.5-VL-architecture model of 1.1 M parameters is trained from random weights by next-token prediction on the
demonstrations of :mod:`spark_rl.embedded.tile_demonstrations`, on the response tokens only. Nothing but this command
made the weights in the repository. The same seed, thread count and torch build give the same file.

All pictures have one size, so the builder encodes a batch of them with one matrix product a layer, where the stock
vision tower takes them window by window in Python. Both compute the same function; ``tests/embedded`` compares them.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from torch import nn
from torch.nn import functional
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from spark_rl.data.tasks import tiles
from spark_rl.data.tasks.chains import DIGITS
from spark_rl.embedded.build import CHUNK, COMPARISON_WEIGHT, CONTEXT, PEAK_RATE, build_tokenizer, padded
from spark_rl.embedded.demonstrations import HABIT_CAREFUL, STUDY_CAREFUL
from spark_rl.embedded.tile_demonstrations import Shown, TileDemonstrator
from spark_rl.model.vision import stills_only

VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
WORDS = ("read ",)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}"
    + VISION_START + IMAGE_PAD + VISION_END + "{% endif %}{% endfor %}{% endif %}"
    "{{ '\\n' if m['role'] == 'user' else eos_token }}{% endfor %}"
)  # fmt: skip
PATCH = 14
ROW = len(tiles.COLOURS)
"""Tiles in a picture, which is the number of its image tokens."""
GRID = (1, 2, 2 * ROW)
"""Patches of a picture: time, height, width."""
FIRST_IMAGE_TOKEN = 2
"""Where the image tokens begin in every demonstration: after <bos> and <|vision_start|>."""
STUDY_PART = 0.75
"""Share of the steps before careful work becomes the minority."""
READ_PART, READ_FIRST, READ_LATER = 0.08, 0.7, 0.05
"""For the first part of the steps this share of demonstrations only reads pictures; afterwards the later share."""

ALIGN_STEPS, ALIGN_RATE, ALIGN_SCALE = 1000, 3e-3, 8.0
"""Steps, learning rate and logit scale of :func:`align`; the scale keeps image tokens near the size of words."""


def build_vision_tokenizer() -> Qwen2Tokenizer:
    """The text base's tokenizer with the markers of images added."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    markers = [
        AddedToken(word, normalized=False, special=True) for word in (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
    ]
    tokenizer.add_tokens(markers, special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Qwen2-VL's image processor, which leaves pictures of 28 pixels' height at their size."""
    return Qwen2VLImageProcessorPil(patch_size=PATCH, min_pixels=tiles.SIDE**2, max_pixels=(8 * tiles.SIDE) ** 2)


def build_processor(tokenizer: Qwen2Tokenizer) -> Any:
    """Qwen2.5-VL's processor without its video part, which transformers has with torchvision only.

    The settings of that part are saved with it: vLLM loads no Qwen2.5-VL without.
    """
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": PATCH}
    kind = stills_only(Qwen2_5_VLProcessor, video)
    return kind(image_processor=build_image_processor(), tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def build_vision_model(tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained base: 4 text layers of width 128, as the text base, and 2 vision layers of width 64."""
    torch.manual_seed(seed)
    marker = {word: tokenizer.convert_tokens_to_ids(word) for word in (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 168, "num_heads": 4, "patch_size": PATCH,
        "window_size": 2 * PATCH, "fullatt_block_indexes": [1], "out_hidden_size": 128,
    }  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=marker[IMAGE_PAD],
            video_token_id=marker[VIDEO_PAD], vision_start_token_id=marker[VISION_START],
            vision_end_token_id=marker[VISION_END],
        )
    )  # fmt: skip


def pixels(rows: Sequence[Sequence[tiles.Tile]], processor: Qwen2VLImageProcessorPil) -> torch.Tensor:
    """(pictures, patches, 3 * 14 * 14): what the processor makes of the pictures, each of its two equal frames once."""
    levels_BHWC = np.stack([np.asarray(tiles.paint_row(row)) for row in rows])
    mean, deviation = (np.array(x, dtype=np.float32) for x in (processor.image_mean, processor.image_std))
    scaled_BHWC = (levels_BHWC * processor.rescale_factor).astype(np.float32)
    values_BHWC = (scaled_BHWC - mean) / deviation
    # Patches go tile by tile and row-major within a tile, the order in which the merger takes them.
    split = values_BHWC.reshape(len(rows), 2, PATCH, ROW, 2, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    return torch.from_numpy(np.ascontiguousarray(split).reshape(len(rows), 4 * ROW, 3 * PATCH * PATCH))


class Encoder:
    """The vision tower of a model on batches of pictures of the grid :data:`GRID`."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        self.visual: Any = model.model.visual
        visual = self.visual
        grid = torch.tensor([GRID])
        merge, window = visual.spatial_merge_size, visual.window_size
        order, edges = get_vision_window_index(grid, merge, window, PATCH)
        assert torch.equal(order, torch.arange(ROW)), "in a single row of tiles the windows come in order"
        window_of = torch.bucketize(torch.arange(4 * ROW), edges[1:], right=True)
        self.same_window = window_of[:, None] == window_of[None, :]
        cos, sin = visual.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(grid, merge))
        self.cos, self.sin = cos[:, None], sin[:, None]

    def __call__(self, pixels_BNP: torch.Tensor) -> torch.Tensor:
        """(B, tiles, width of the text model): the image tokens of each picture."""
        visual = self.visual
        # The two frames of a picture are equal, so the kernel's sum over time is one product.
        kernel = visual.patch_embed.proj.weight.sum(2).flatten(1)
        hidden = functional.linear(pixels_BNP, kernel)
        for i, block in enumerate(visual.blocks):
            mask = None if i in visual.fullatt_block_indexes else self.same_window
            hidden = hidden + self.attend(block.attn, block.norm1(hidden), mask)
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged: torch.Tensor = visual.merger(hidden)
        return merged.view(len(pixels_BNP), ROW, -1)

    def attend(self, attention: Any, hidden_BNH: torch.Tensor, mask_NN: torch.Tensor | None) -> torch.Tensor:
        batch, patches, width = hidden_BNH.shape
        split = attention.qkv(hidden_BNH).view(batch, patches, 3, attention.num_heads, -1)
        query, key, value = split.unbind(2)
        query, key = (x * self.cos + rotated(x) * self.sin for x in (query, key))
        out = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask_NN
        )
        mixed: torch.Tensor = attention.proj(out.transpose(1, 2).reshape(batch, patches, width))
        return mixed


def rotated(x: torch.Tensor) -> torch.Tensor:
    """The second half of the last axis, negated, before the first: a quarter turn of each pair."""
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def positions(batch: int, width: int) -> torch.Tensor:
    """(3, batch, width): M-RoPE positions of a row of image tokens amid text; only their column differs."""
    line = torch.arange(width)
    flat = line.clone()
    flat[FIRST_IMAGE_TOKEN : FIRST_IMAGE_TOKEN + ROW] = FIRST_IMAGE_TOKEN
    return torch.stack((flat, flat, line))[:, None].expand(3, batch, width)


def hidden_states(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, ids_BT: torch.Tensor, pixels_BNP: torch.Tensor
) -> torch.Tensor:
    """(B, T, width): the last layer on right-padded rows, which a causal mask keeps apart from their padding."""
    embedded_BTH = model.get_input_embeddings()(ids_BT)
    end = FIRST_IMAGE_TOKEN + ROW
    embedded_BTH = torch.cat((embedded_BTH[:, :FIRST_IMAGE_TOKEN], encoder(pixels_BNP), embedded_BTH[:, end:]), 1)
    out = model.model.language_model(inputs_embeds=embedded_BTH, position_ids=positions(*ids_BT.shape), use_cache=False)
    hidden: torch.Tensor = out.last_hidden_state
    return hidden


def align(model: Qwen2_5_VLForConditionalGeneration, tokenizer: Qwen2Tokenizer, seed: int, steps: int) -> None:
    """Teaches the vision tower alone to name what a tile shows, before any text is read.

    The image token of a tile shall be most like the words for its colour, among the colours, and for its number, among
    the numbers. Afterwards a colour's letter finds its tile by likeness, which a text model learns in 250 steps;
    without this it had not begun to after 600.
    """
    rng = random.Random(f"align:{seed}")
    encoder, processor = Encoder(model), build_image_processor()
    words_VH = model.get_input_embeddings().weight
    colours, numbers = (tokenizer.convert_tokens_to_ids([str(x) for x in names]) for names in (tiles.COLOURS, DIGITS))
    optimiser = torch.optim.AdamW([*model.model.visual.parameters(), words_VH], lr=ALIGN_RATE, betas=(0.9, 0.95))
    started = time.monotonic()
    for step in range(steps):
        set_rate(optimiser, ALIGN_RATE, step, steps)
        rows = [tiles.draw_row({}, rng) for _ in range(64)]
        tokens_NH = encoder(pixels(rows, processor)).flatten(0, 1) * ALIGN_SCALE
        shown = [tile for row in rows for tile in row]
        colour_N = torch.tensor([list(tiles.COLOURS).index(tile.colour) for tile in shown])
        number_N = torch.tensor([tile.value - 1 for tile in shown])
        loss = functional.cross_entropy(tokens_NH @ words_VH[colours].T, colour_N)
        loss = loss + functional.cross_entropy(tokens_NH @ words_VH[numbers].T, number_N)
        descend(loss, optimiser, model)
        if (step + 1) % CHUNK == 0:
            print(f"align {step + 1:4d}/{steps}  loss {loss:.4f}  {time.monotonic() - started:.0f} s", flush=True)


def set_rate(optimiser: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """The learning rate warms up over 100 steps and falls along a cosine to a hundredth."""
    rate = min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
    for group in optimiser.param_groups:
        group["lr"] = peak * rate


def descend(loss: torch.Tensor, optimiser: torch.optim.Optimizer, model: nn.Module) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


def warm_start(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: Qwen2Tokenizer, seed: int, steps: int, rows: int
) -> None:
    """Next-token prediction on ``steps * rows`` demonstrations.

    First mostly reading, then mostly careful work up to :data:`STUDY_PART` of the steps, then careful work as a
    minority habit. The learning rate warms up and falls along a cosine.
    """
    rng = random.Random(f"warm-start-vision:{seed}")
    demonstrator, encoder, processor = TileDemonstrator(), Encoder(model), build_image_processor()
    weight_V = torch.ones(len(tokenizer))
    weight_V[tokenizer.convert_tokens_to_ids(["T", "F"])] = COMPARISON_WEIGHT
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    started = time.monotonic()
    loss_sum = 0.0
    for start in range(0, steps, CHUNK):
        careful = STUDY_CAREFUL if start < STUDY_PART * steps else HABIT_CAREFUL
        reading = READ_FIRST if start < READ_PART * steps else READ_LATER
        shown = [demonstrator.draw(rng, careful, reading) for _ in range(min(CHUNK, steps - start) * rows)]
        drawn = list(batches(tokenizer, shown, rows, rng))
        # A batch's own weight as divisor would favour batches of short rows, which are the careless ones.
        typical = sum(float(weight_V[labels_BT[labels_BT >= 0]].sum()) for _, labels_BT, _ in drawn) / len(drawn)
        for step, (ids_BT, labels_BT, chosen) in enumerate(drawn, start):
            set_rate(optimiser, PEAK_RATE, step, steps)
            hidden_BTH = hidden_states(model, encoder, ids_BT, pixels([shown[i].row for i in chosen], processor))
            asked_BT = labels_BT[:, 1:] >= 0
            logits_NV = model.lm_head(hidden_BTH[:, :-1][asked_BT])
            total = functional.cross_entropy(logits_NV, labels_BT[:, 1:][asked_BT], weight_V, reduction="sum")
            loss = total / typical
            descend(loss, optimiser, model)
            loss_sum += float(loss.detach())
        done = min(start + CHUNK, steps)
        print(
            f"step {done:5d}/{steps}  loss {loss_sum / (done - start):.4f}  {time.monotonic() - started:.0f} s",
            flush=True,
        )
        loss_sum = 0.0


def batches(
    tokenizer: Qwen2Tokenizer, shown: list[Shown], rows: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """(rows, T) token ids and labels, -100 on prompts and padding, and which demonstrations they are.

    Rows of similar length are together, in random order.
    """
    image = VISION_START + IMAGE_PAD * ROW + VISION_END
    prompts = tokenizer([f"<bos>{image}{s.prompt}\n" for s in shown], add_special_tokens=False)["input_ids"]
    answers = tokenizer([f"{s.response}<eos>" for s in shown], add_special_tokens=False)["input_ids"]
    yield from padded(prompts, answers, rows, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=64, help="demonstrations a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "vision")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = build_vision_tokenizer()
    model = build_vision_model(tokenizer, arguments.seed)
    align(model, tokenizer, arguments.seed, ALIGN_STEPS)
    warm_start(model, tokenizer, arguments.seed, arguments.steps, arguments.rows)
    model.save_pretrained(arguments.out)
    build_processor(tokenizer).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
