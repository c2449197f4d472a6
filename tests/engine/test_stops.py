"""Where responses of the embedded engine end: each prompt's own stop strings, as text and as special tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spark_rl.config import Config
from spark_rl.engine.base import Sampling
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from tiny import EOS, engine_of, prompts, tiny_config

SAMPLING = Sampling(n=2, max_new_tokens=30, seed=0)


@pytest.fixture
def loaded(model_path: str) -> LoadedModel:
    config: Config = tiny_config(model_path)
    found = load_model(config)
    with torch.no_grad():
        found.causal_lm.get_output_embeddings().weight[EOS] *= 50  # makes this token likely sooner or later
    return found


def test_a_special_token_as_a_stop_string_ends_a_response(loaded: LoadedModel) -> None:
    name = loaded.tokenizer.convert_ids_to_tokens(EOS)
    asked = prompts(6)
    ended = engine_of(loaded, [EOS]).generate(asked, SAMPLING)
    free = engine_of(loaded, []).generate(asked, SAMPLING)
    assert any(c.finish == "stop" for group in ended for c in group)
    assert all(c.finish == "length" for group in free for c in group)
    assert engine_of(loaded, []).generate(asked, replace(SAMPLING, stop=(name,))) == ended
    assert engine_of(loaded, []).generate([replace(prompt, stop=(name,)) for prompt in asked], SAMPLING) == ended


def test_prompts_of_one_batch_end_each_in_its_own_way(loaded: LoadedModel) -> None:
    name, greedy = loaded.tokenizer.convert_ids_to_tokens(EOS), Sampling(temperature=0.0, max_new_tokens=30)
    asked = prompts(9)
    engine = engine_of(loaded, [])
    free = [group[0] for group in engine.generate(asked, greedy)]
    texts = [completion.text[3:6] for completion in free]
    ways = [(), (name,), None]
    stops = [(texts[i],) if ways[i % 3] is None else ways[i % 3] for i in range(9)]
    mixed = [replace(prompt, stop=stop) for prompt, stop in zip(asked, stops, strict=True)]
    found = [group[0] for group in engine.generate(mixed, greedy)]
    alone = [engine.generate([prompt], greedy)[0][0] for prompt in mixed]
    assert [(c.text, c.token_ids, c.finish) for c in found] == [(c.text, c.token_ids, c.finish) for c in alone]
    assert [c.token_ids for c in found[::3]] == [c.token_ids for c in free[::3]], "nothing ends these"
    assert any(found[i].token_ids[-1] == EOS for i in (1, 4, 7)), "a token ends these"
    for i in (2, 5, 8):
        assert found[i].text == free[i].text[: free[i].text.index(texts[i])], "a text ends these"
