"""The vLLM engine for real, on a CPU: parity with transformers, before and after weights were handed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import QUESTIONS, SAMPLED, gap, pair, shake, tiny
from transformers import Qwen2Config, Qwen2ForCausalLM

from spark_rl.backend import open_backend
from spark_rl.engine.base import Sampling
from spark_rl.engine.probe import Probed
from spark_rl.errors import UserError
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.learner.local import LocalLearner
from spark_rl.problem import Problem


def test_greedy_tokens_and_log_probabilities_are_the_embedded_engines(tied: Any) -> None:
    learner, engine, prompts = tied
    embedded = open_backend(tiny()).engine
    greedy = Sampling(1, 0.0, 40)
    found, expected = engine.generate(prompts, greedy), embedded.generate(prompts, greedy)
    assert [c.token_ids for (c,) in found] == [c.token_ids for (c,) in expected]
    assert [(c.text, c.finish) for (c,) in found] == [(c.text, c.finish) for (c,) in expected]
    assert gap(engine, learner, prompts) < 1e-4
    assert gap(engine, learner, prompts[:8], replace(SAMPLED, temperature=1.0, n=1)) < 1e-4


def test_first_answers_and_verdicts_of_an_evaluation_are_the_embedded_engines(tied: Any) -> None:
    _, engine, _ = tied
    config, problems = tiny("inference.rounds=1"), [Problem(str(i), text, "") for i, text in enumerate(QUESTIONS)]
    embedded = open_backend(config)

    def first(reasoner: Reasoner) -> Any:
        return [[(turn.response, turn.judgement) for turn in trace.rounds[:1]] for trace in reasoner.solve(problems)]

    assert first(build_reasoner(engine, engine.facts.chat, config)) == first(
        build_reasoner(embedded.engine, embedded.chat, config)
    )


def test_samples_differ_and_do_not_depend_on_how_a_batch_is_split(tied: Any) -> None:
    _, engine, prompts = tied

    def tokens(groups: Any) -> list[list[tuple[int, ...]]]:
        return [[c.token_ids for c in group] for group in groups]

    whole = tokens(engine.generate(prompts, SAMPLED))
    assert sum(len(set(group)) > 1 for group in whole) > len(whole) / 2
    assert tokens(engine.generate(prompts, SAMPLED)) == whole
    parts = [*engine.generate(prompts[:20], SAMPLED), *engine.generate(prompts[20:], replace(SAMPLED, first=20))]
    same = sum(a == b for x, y in zip(tokens(parts), whole, strict=True) for a, b in zip(x, y, strict=True))
    assert same >= 0.99 * 4 * len(prompts), "rounding may turn a draw, now and then"
    assert tokens(engine.generate(prompts, replace(SAMPLED, seed=4))) != whole


def test_prompts_that_fill_the_context_are_answered_with_nothing(tied: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, engine, prompts = tied
    overlong = replace(prompts[0], token_ids=prompts[0].token_ids * 60)
    found = engine.generate([prompts[0], overlong, prompts[1]], SAMPLED)
    assert [(c.text, c.token_ids, c.finish) for c in found[1]] == [("", (), "length")] * 4
    assert all(c.token_ids for group in (found[0], found[2]) for c in group)
    assert "1 of 3 prompts are longer" in caplog.text
    almost = replace(prompts[0], token_ids=(prompts[0].token_ids * 60)[: engine.context - 3])
    assert [len(c.token_ids) <= 3 for (c,) in engine.generate([almost], replace(SAMPLED, n=1))] == [True]


def test_stop_strings_end_a_response_and_are_cut_from_its_text(tied: Any) -> None:
    _, engine, prompts = tied
    free = engine.generate(prompts[:8], Sampling(1, 0.0, 40))
    stopped = engine.generate([replace(p, stop=("{",)) for p in prompts[:8]], Sampling(1, 0.0, 40))
    assert any("{" in c.text for (c,) in free)
    for (long,), (short,) in zip(free, stopped, strict=True):
        assert short.text == long.text.partition("{")[0]
        assert short.token_ids == long.token_ids[: len(short.token_ids)]
        assert short.finish == "stop"


def test_weights_are_handed_over_tied_ones_too(tied: Any) -> None:
    learner, engine, prompts = tied
    shake(learner)
    assert gap(engine, learner, prompts) > 0.1
    engine.sync(learner.weights())
    assert engine.version == learner.updates
    assert gap(engine, learner, prompts) < 1e-4
    assert {c.version for group in engine.generate(prompts[:2], SAMPLED) for c in group} == {learner.updates}


def test_the_probe_tells_weights_that_part_from_those_that_agree(tied: Any) -> None:
    learner, engine, prompts = tied
    probed = Probed(engine, learner.logprobs, 0.05)
    probed.generate(prompts, SAMPLED)
    probed.sync(learner.weights())
    assert probed.kl is not None
    assert probed.kl < 1e-6
    learner.updates += 1

    class Stale:
        version = learner.updates

        def named(self) -> Iterator[tuple[str, torch.Tensor]]:
            for name, weight in learner.weights().named():
                yield name, weight.flip(0) if "embed_tokens" in name else weight

    with pytest.raises(UserError, match=r"^VllmEngine and the learner are .* nats a token apart") as caught:
        probed.sync(Stale())
    assert "\n" not in str(caught.value)


@pytest.fixture
def untied(tmp_path: Path) -> Path:
    """A model of the embedded tokenizer, of random weights, with an output layer of its own and grouped heads."""
    source = open_backend(tiny()).loaded.tokenizer
    torch.manual_seed(0)
    made = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=200, hidden_size=128, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False, eos_token_id=2,
            bos_token_id=1, pad_token_id=0,
        )
    )  # fmt: skip
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    made.save_pretrained(tmp_path / "untied")
    source.save_pretrained(tmp_path / "untied")
    return tmp_path / "untied"


def test_an_output_layer_of_its_own_and_merged_adapters_are_handed_over(untied: Path) -> None:
    learner, engine, prompts = pair(tiny("model.lora={rank: 4}", model=untied))
    try:
        assert gap(engine, learner, prompts[:16]) < 1e-4
        shake(learner, 1.0)
        with torch.no_grad():  # the half that begins as nothing
            for name, weight in learner.loaded.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.2)
        assert gap(engine, learner, prompts[:16]) > 0.1
        engine.sync(learner.weights())
        assert gap(engine, learner, prompts[:16]) < 1e-4
        plain = LocalLearner(open_backend(tiny(model=untied)).loaded, tiny(model=untied))
        shake(plain)
        engine.sync(plain.weights())
        assert gap(engine, plain, prompts[:16]) < 1e-4
    finally:
        engine.close()
