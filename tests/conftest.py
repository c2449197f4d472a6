"""What all tests share: quiet offline libraries, few threads, and tiny random models of every family we claim."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pytest
import torch
from hypothesis import settings
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from spark_rl.embedded.build import build_tokenizer
from spark_rl.verify import Verifier

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's `make test &` has it, for every child as well
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # two threads only get in each other's way at these sizes
logging.set_verbosity_error()
logging.disable_progress_bar()
settings.register_profile("spark-rl", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("spark-rl")

FAMILIES = ("qwen2", "qwen3", "llama", "no_template")
"""``no_template`` is a base model whose tokenizer has no chat template."""

SHARED = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))


def make_model(family: str, folder: Path, seed: int = 0) -> Path:
    """A tiny random model with grouped-query attention, saved the way transformers saves any model."""
    tokenizer = build_tokenizer()
    kind = "llama" if family == "no_template" else family
    if family == "no_template":
        tokenizer.chat_template = None
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, tie_word_embeddings=family == "qwen2", initializer_range=0.3,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family name -> directory of a tiny random model."""
    return {family: make_model(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model_path(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> str:
    """Each family in turn."""
    return str(tiny_models[request.param])


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """With the default settings; modules with others have their own."""
    with Verifier() as verifier:
        yield verifier
