"""What is compared before weights are read: tokenizer and embedding, lengths and positions, the end of a response."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from conftest import make_model
from spark_rl.config import Config, load_config, parse_config
from spark_rl.engine.base import Sampling
from spark_rl.errors import ConfigError
from spark_rl.model.load import describe_model, fitted_to_model, load_model
from spark_rl.model.sizes import positions_of
from spark_rl.run import train
from tiny import engine_of, prompt_of, tiny_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model without its weights: whatever is refused here is refused before any is read."""
    path = make_model("llama", tmp_path / "model")
    (path / "model.safetensors").unlink()
    return path


def rewrite(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def refusal(path: Path, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        fitted_to_model(tiny_config(path, **sections))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder: Path) -> None:
    rewrite(folder / "config.json", vocab_size=150)
    found = refusal(folder)
    assert "is larger than the model's embedding of 150 rows: 50 tokens have no row, the first is " in found
    assert "(150)" in found


@pytest.mark.parametrize("size", [[150], "150", {"a": 1}])
def test_a_vocabulary_whose_size_is_no_number_is_refused(folder: Path, size: Any) -> None:
    rewrite(folder / "config.json", vocab_size=size)
    refusal(folder)


def test_a_tokenizer_with_settings_of_wrong_types_is_one_line(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", model_max_length=[256])
    assert "reads no text ('>' not supported between" in refusal(folder)


def test_tokens_added_behind_the_embedding_are_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(folder)
    assert f"1 tokens have no row, the first is '<think>' ({rows})" in refusal(folder)


def test_a_place_for_images_of_a_model_without_eyes_needs_no_row(folder: Path) -> None:
    """The tokenizer of Gemma 3 1B has ``<image_soft_token>`` behind the last row of the embedding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    describe_model(tiny_config(folder))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "no_template"])
def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path, kind: str) -> None:
    path = make_model(kind, tmp_path)
    for file in path.glob("*token*"):
        file.unlink()
    assert "holds no tokenizer; copy tokenizer.json and tokenizer_config.json of the model" in refusal(path)


def test_an_empty_tokenizer_is_refused(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    assert content
    with pytest.raises(ConfigError):
        describe_model(tiny_config(folder))


def test_the_missing_end_token_is_named_as_the_model_has_it(folder: Path) -> None:
    name = AutoTokenizer.from_pretrained(folder).eos_token
    rewrite(folder / "tokenizer_config.json", eos_token=None)
    found = refusal(folder)
    assert "has no end-of-sequence token, so no response could ever end" in found
    assert f"set eos_token in its tokenizer_config.json, to {name!r} as its config.json has it" in found


def test_a_padding_token_is_not_needed(tmp_path: Path) -> None:
    path = make_model("llama", tmp_path)
    rewrite(path / "tokenizer_config.json", pad_token=None)
    rewrite(path / "config.json", pad_token_id=None)
    loaded = load_model(tiny_config(path))
    assert loaded.tokenizer.pad_token_id is None
    asked = [prompt_of(1, 5, 6), prompt_of(1, 5, 6, 7, 8, 9)]
    found = engine_of(loaded).generate(asked, Sampling(temperature=0.0, max_new_tokens=5))
    alone = [engine_of(loaded).generate([p], Sampling(temperature=0.0, max_new_tokens=5))[0] for p in asked]
    assert [c[0].token_ids for c in found] == [c[0].token_ids for c in alone]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"rollout": {"max_prompt_tokens": 500, "max_new_tokens": 13}},
         "rollout.max_prompt_tokens (500) and rollout.max_new_tokens (13) together are more than the 512 positions of "
         "the model; set rollout.max_prompt_tokens=499 or less"),
        ({"rollout": {"max_new_tokens": 512}}, "rollout.max_new_tokens (512) leaves no room for a prompt in the 512"),
        ({"rollout": {"max_prompt_tokens": 100, "max_new_tokens": 24}, "data": {"heldout": "procedural:missing"},
          "inference": {"max_new_tokens": 450}},
         "rollout.max_prompt_tokens (100) and inference.max_new_tokens (450) together are more than the 512"),
        ({"rollout": {"max_prompt_tokens": 100, "max_new_tokens": 24}, "chat": {"few_shot": "1+1=2\n" * 40}},
         "and a prompt may have 100 at most"),
        ({"rollout": {"max_new_tokens": 400}, "chat": {"few_shot": "1+1=2\n" * 40}}, "chat.few_shot has "),
    ],
)  # fmt: skip
def test_lengths_beyond_the_positions_are_refused_before_weights(
    folder: Path, sections: dict[str, Any], said: str
) -> None:
    assert said in refusal(folder, **sections)


def test_prompts_are_as_long_as_the_model_allows_where_nobody_said(folder: Path) -> None:
    config = tiny_config(folder, rollout={"max_new_tokens": 112})
    assert fitted_to_model(config).rollout.max_prompt_tokens == 400
    both = tiny_config(folder, rollout={"max_new_tokens": 112}, data={"heldout": "split:2"},
                       inference={"max_new_tokens": 212})  # fmt: skip
    assert fitted_to_model(both).rollout.max_prompt_tokens == 300
    exact = tiny_config(folder, rollout={"max_prompt_tokens": 500, "max_new_tokens": 12})
    assert fitted_to_model(exact).rollout.max_prompt_tokens == 500


@pytest.mark.parametrize(
    ("kind", "settings", "positions"),
    [
        ("llama", {"max_position_embeddings": 4096}, 4096),
        ("gpt2", {"n_positions": 1024}, 1024),
        ("bloom", {}, None),
        ("qwen2", {"max_position_embeddings": 32768,
                   "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6,
                                       "original_max_position_embeddings": 32768}}, 131072),
        ("llama", {"max_position_embeddings": 131072,
                   "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}, 131072),
    ],
)  # fmt: skip
def test_positions_are_those_of_the_family(kind: str, settings: dict[str, Any], positions: int | None) -> None:
    assert positions_of(AutoConfig.for_model(kind, **settings)) == positions


def test_a_completion_ends_where_the_positions_do(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(tiny_models["llama"], tmp_path / "short")
    rewrite(path / "config.json", max_position_embeddings=16)
    asked = [prompt_of(*range(3, 3 + length)) for length in (16, 4, 15, 12, 40)]
    free = engine_of(load_model(tiny_config(tiny_models["llama"])), eos=())
    engine = engine_of(load_model(tiny_config(path)), eos=())
    greedy = Sampling(temperature=0.0, max_new_tokens=10)
    found, longer = engine.generate(asked, greedy), free.generate(asked, greedy)
    assert [len(completions[0].token_ids) for completions in found] == [0, 10, 1, 4, 0]
    assert [completions[0].finish for completions in found] == ["length"] * 5
    for ours, theirs in zip(found, longer, strict=True):
        assert theirs[0].token_ids[: len(ours[0].token_ids)] == ours[0].token_ids


def test_a_run_that_does_not_fit_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    config: Config = load_config(
        None, ["rollout.max_prompt_tokens=510", "rollout.max_new_tokens=12", "model.threads=1"],
        model={"path": str(folder)}, run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="more than the 512 positions"):
        train(config)
    assert not (tmp_path / "run").exists()
    assert parse_config(config.model_dump(mode="json")) == config
