"""The models and problems that ``benchmarks/steps.py`` trains: the embedded base, and random models of known shapes.

The vocabulary of a random model are words (``w17``), every fourth of which holds a box (``w16\\boxed{A}``), so that the
responses of a model that knows nothing hold answers: the verifier grades them, groups are mixed, and a step of SPARK
has as much to recycle as one of a model that can solve something.

Where a response ends is a matter of one row of the output layer, that of the end-of-sequence token. It is laid along a
direction that all hidden states of a model share, and its length is chosen: for fixed lengths so that the token is
never drawn, for natural ones so that it is drawn once in half the limit, which makes lengths geometric. What generates
needs no setting for either.

Random models are Llamas in the shapes of Qwen2 ones, which differ by biases alone: transformers reads no tokenizer of a
Qwen2 but Qwen2's own, and its pieces would not be words again when a response is shown in a recycled problem. The model
that sees is a Qwen2.5-VL, whose processor takes any tokenizer; each of its problems shows a picture of noise, which
lies beside the weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from spark_rl.config import Config, load_config, parse_config
from spark_rl.data import load_problems
from spark_rl.model.places import EMBEDDED
from spark_rl.model.vision import stills_only
from spark_rl.problem import Problem

SPECIAL = ("<unk>", "<pad>", "<bos>", "<eos>")
VISION = {
    "vision_start_token_id": "<|vision_start|>", "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>", "vision_end_token_id": "<|vision_end|>",
}  # fmt: skip
"""The last tokens of a vocabulary that has pictures, by their names in the configuration of the model."""
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}" + PICTURE +
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
)  # fmt: skip
"""Of chats that show pictures; the others are plain text."""
ANSWERS = ("A", "A", "B", "Yes", "No")
"""What the boxes hold: the gold answer A, and the verdicts that recycled problems ask for."""
BOXED = 4
"""Every so many-th word of the vocabulary holds a box."""
NEVER = 25.0
"""Nats below its natural logit of the end that is never drawn: once in 10^12 tokens."""
COMMON = 0.05
"""Length a coordinate of what all embeddings of a random model share, for the end to lie along."""


@dataclass(frozen=True)
class Shape:
    """A row of the table of shapes: a model, and how much it is asked."""

    about: str
    problems: int
    samples: int
    prompt: int
    """Tokens of a question."""
    limit: int
    """New tokens at most."""
    trl_rows: int
    """TRL's ``per_device_train_batch_size``: as many rows as keep its float32 logits below about a GB."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of transformers' configuration; none of the embedded base."""
    side: int = 0
    """Pixels on a side of the picture that each problem shows, 28 a token; 0 where the model only reads."""

    @property
    def text(self) -> Mapping[str, Any]:
        """The settings of what reads and writes."""
        found: Mapping[str, Any] = self.settings.get("text_config", self.settings)
        return found

    @property
    def words(self) -> int:
        """The size of the vocabulary without :data:`VISION`."""
        return int(self.text["vocab_size"]) - (len(VISION) if self.side else 0)


def llama(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, shared: int) -> dict[str, Any]:
    """Settings of a Llama; ``inner`` is the width of its feed-forward layers, ``shared`` its key and value heads."""
    return {
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": shared,
        "max_position_embeddings": 2048,
    }  # fmt: skip


SHAPES: dict[str, Shape] = {
    "quick": Shape("Llama of 0.3 M, for a look", 4, 4, 12, 16, 16, llama(1000, 96, 256, 2, 4, 2)),
    "embedded": Shape("the base of the recipe tiny, untrained", 32, 8, 0, 48, 256),
    "3m": Shape("Llama of 3 M, vocabulary 4k", 32, 8, 64, 128, 256, llama(4096, 256, 688, 3, 8, 2)),
    "100m": Shape("Llama of 100 M, vocabulary 32k", 8, 8, 128, 64, 64, llama(32_000, 768, 2048, 12, 12, 4)),
    "0.5b": Shape("Llama of 0.5 B, vocabulary 152k", 4, 4, 298, 64, 16, llama(151_936, 896, 4864, 24, 14, 2)),
    "0.5b-gpu": Shape("Llama of 0.5 B, vocabulary 152k, a batch for a GPU", 16, 8, 298, 256, 32,
                      llama(151_936, 896, 4864, 24, 14, 2)),
    "262k": Shape("Gemma 3 of 268 M, vocabulary 262k", 8, 8, 64, 40, 16, {
        "model_type": "gemma3_text", "vocab_size": 262_144, "hidden_size": 640, "intermediate_size": 2048,
        "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "sliding_window": 512, "max_position_embeddings": 2048,
    }),
    "vl": Shape("Qwen2.5-VL of 10 M, vocabulary 4k, a picture of 100 tokens", 4, 4, 32, 32, 16, {
        "model_type": "qwen2_5_vl",
        "text_config": {
            **llama(4096, 256, 688, 8, 8, 2), "model_type": "qwen2_5_vl_text",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
        },
        "vision_config": {
            "depth": 8, "hidden_size": 160, "intermediate_size": 480, "num_heads": 4, "out_hidden_size": 256,
            "window_size": 112, "fullatt_block_indexes": [3, 7],
        },
    }, side=280),
}  # fmt: skip
TEXT_SHAPES = {name: shape for name, shape in SHAPES.items() if not shape.side}


def make_model(shape: Shape, folder: Path, *, fixed: bool, seed: int = 0, base: Path | None = None) -> None:
    """Write the weights, the tokenizer and the pictures that both tools read, float32, whose responses end as asked.
    ``base``: a model in place of the embedded base."""
    torch.manual_seed(seed)
    if shape.settings:
        tokenizer, model = _tokenizer(shape), _random_model(shape)
    else:
        base = base or EMBEDDED["embedded"]
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.eval()
    processor = _processor(tokenizer) if shape.side else None
    if shape.settings or fixed:  # the embedded base ends by itself
        texts = [question_ids(shape, number) for number in range(16)] if shape.settings else _base_texts(tokenizer)
        hidden_NH = seeing_states(model, processor, shape) if processor else hidden_states(model, texts)
        end(model, tokenizer.eos_token_id, hidden_NH, shape.limit, fixed=fixed)
    model.save_pretrained(folder)
    (processor or tokenizer).save_pretrained(folder)
    for number in range(shape.problems if shape.side else 0):
        _noise(shape, number).save(_picture(folder, number))


def _random_model(shape: Shape) -> Any:
    """One whose embeddings share something, for the end to lie along."""
    ids = {"bos_token_id": None, "eos_token_id": 3, "pad_token_id": 1}
    settings = {**shape.settings, "tie_word_embeddings": True}
    if shape.side:
        settings |= {name: shape.words + number for number, name in enumerate(VISION)}
        settings["text_config"] = {**shape.text, **ids}
    else:
        settings |= ids
    kind: Any = AutoModelForImageTextToText if shape.side else AutoModelForCausalLM
    model = kind.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding += COMMON * torch.randn(embedding.shape[1])
    return model


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    words = [*SPECIAL]
    for number in range(len(SPECIAL), shape.words):
        answer = ANSWERS[number // BOXED % len(ANSWERS)]
        words.append(f"w{number}\\boxed{{{answer}}}" if number % BOXED == 0 else f"w{number}")
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    unknown, padding, beginning, ending = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, pad_token=padding, bos_token=beginning, eos_token=ending,
        padding_side="left", extra_special_tokens=[*VISION.values()] if shape.side else [],
    )  # fmt: skip


def _processor(tokenizer: PreTrainedTokenizerFast) -> Any:
    return stills_only(Qwen2_5_VLProcessor)(Qwen2VLImageProcessorPil(), tokenizer, chat_template=TEMPLATE)


def _noise(shape: Shape, number: int) -> Image.Image:
    return Image.frombytes("RGB", (shape.side, shape.side), random.Random(number).randbytes(3 * shape.side**2))


def _picture(folder: Path, number: int) -> Path:
    return folder / f"picture{number}.png"


def question_ids(shape: Shape, number: int) -> list[int]:
    """(prompt,) tokens of a question to a random model: words without a box."""
    rng = random.Random(number)
    plain = [
        token for token in (rng.randrange(len(SPECIAL), shape.words) for _ in range(2 * shape.prompt)) if token % BOXED
    ]
    return (plain * 2)[: shape.prompt]


def question(shape: Shape, number: int) -> str:
    """Its text."""
    return " ".join(f"w{token}" for token in question_ids(shape, number))


def problems_of(shape: Shape, config: Config) -> list[Problem]:
    """The problems of every step."""
    if not shape.settings:
        return list(load_problems("procedural:missing", config.data, "train")[: shape.problems])
    pictures = [(str(_picture(Path(config.model.path), n)),) if shape.side else () for n in range(shape.problems)]
    return [Problem(f"p{n}", question(shape, n), "A", kind="exact", images=shown) for n, shown in enumerate(pictures)]


def config_of(
    shape: Shape,
    model: Path,
    run_dir: Path,
    *,
    spark: bool,
    kl: float,
    dtype: str,
    threads: int,
    steps: int,
    device: str = "cpu",
    decoding: str | None = None,
) -> Config:
    """The settings of our step. Recycled problems are as many as the others, of which half judge, as in the paper. The
    tower of a model that sees is trained, as TRL trains it."""
    tree: dict[str, Any] = {
        "run_dir": str(run_dir),
        "model": {"path": str(model), "dtype": dtype, "threads": threads, "device": device, "freeze": []},
        "rollout": {"problems": shape.problems, "samples": shape.samples, "max_new_tokens": shape.limit},
        "objective": {"kl": kl},
        "optimiser": {"lr": 1e-6},
        "train": {"steps": steps, "save_every": steps},
        "engine": {"dtype": decoding},
        "data": {"heldout": None, "transfer": None},
    }
    half = shape.problems // 2
    recycle: dict[str, Any] = {"ready": 2 * half, "judge_cap": half, "reflection_cap": half}
    if not spark:
        recycle |= {"preset": "policy-only", "pointwise": False, "pairwise": False, "reflection": False}
    if not shape.settings:
        return load_config("tiny", **{**tree, "recycle": recycle})
    return parse_config({**tree, "recycle": recycle, "chat": {"policy": "{question}"}})


# --- where responses end ----------------------------------------------------------------------------------------------


def end(model: Any, eos: int, hidden_NH: Tensor, limit: int, *, fixed: bool) -> None:
    """Choose the end's row of the output layer, so that ``limit`` tokens hold two ends on average, or none."""
    weight_VH = model.get_output_embeddings().weight
    with torch.no_grad():
        along_H = _shared_direction(hidden_NH)
        others_N = _logits_without(hidden_NH @ weight_VH.T, eos).logsumexp(-1)
        along_N = hidden_NH @ along_H
        low, high = -200.0, 200.0
        for _ in range(60):
            middle = (low + high) / 2
            drawn = float((middle * along_N - others_N).sigmoid().mean())
            low, high = (middle, high) if drawn < 2 / limit else (low, middle)
        weight_VH[eos] = (low - NEVER if fixed else low) * along_H


def hidden_states(model: Any, texts: Sequence[Sequence[int]]) -> Tensor:
    """(N, H) of all places of the texts, before the output layer."""
    with torch.no_grad():
        found = [model.model(input_ids=torch.tensor([list(text)])).last_hidden_state[0] for text in texts]
    return torch.cat(found)


def seeing_states(model: Any, processor: Any, shape: Shape, numbers: Sequence[int] = range(16)) -> Tensor:
    """(N, H) of all places of questions that stand behind their pictures."""
    found = []
    for number in numbers:
        made = processor(
            text=[PICTURE + question(shape, number)], images=[[_noise(shape, number)]], return_tensors="pt"
        )
        with torch.no_grad():
            found.append(model.model(**made).last_hidden_state[0, -shape.prompt :])
    return torch.cat(found)


def _shared_direction(hidden_NH: Tensor) -> Tensor:
    """(H,) whose product with every hidden state is as near to 1 as least squares can make it."""
    square_HH = hidden_NH.T @ hidden_NH
    ridge_HH = 0.01 * square_HH.diagonal().mean() * torch.eye(len(square_HH))
    along_H: Tensor = torch.linalg.solve(square_HH + ridge_HH, hidden_NH.sum(0))
    return along_H


def _logits_without(logits_NV: Tensor, eos: int) -> Tensor:
    logits_NV[:, eos] = -math.inf
    return logits_NV


def _base_texts(tokenizer: Any) -> list[list[int]]:
    """Texts in which anything may follow anything, as it does behind the end of what the base wants to say."""
    rng, plain = random.Random(0), sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    return [[rng.choice(plain) for _ in range(96)] for _ in range(64)]
