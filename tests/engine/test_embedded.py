"""The embedded engine against transformers' ``generate``, against the learner, and against its own promises."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from spark_rl.chat import Prompt
from spark_rl.embedded.build import build_tokenizer
from spark_rl.engine.base import Sampling
from spark_rl.engine.draw import BLOCK, BLOCKED, sample
from spark_rl.engine.graphs import Graphs
from spark_rl.engine.streams import uniforms
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.weights import ModelWeights
from spark_rl.problem import Completion
from tiny import EOS, VOCABULARY, engine_of, learner_of, prompt_of, prompts, random_groups, tiny_config
from windowed import WINDOW, WINDOWED, make_windowed

GREEDY = Sampling(temperature=0.0, max_new_tokens=24)


@pytest.fixture
def loaded(tiny_models: dict[str, Path]) -> LoadedModel:
    """One family where the family does not matter."""
    return load_model(tiny_config(tiny_models["qwen3"]))


@torch.no_grad()
def transformers_greedy(
    path: str | Path, asked: Sequence[Prompt], eos: Sequence[int], max_new_tokens: int
) -> list[tuple[int, ...]]:
    """Token ids of transformers' own greedy search, left-padded, each cut behind its first end token."""
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    longest = max(len(p.token_ids) for p in asked)
    ids = torch.tensor([[0] * (longest - len(p.token_ids)) + list(p.token_ids) for p in asked])
    seen = torch.tensor([[0] * (longest - len(p.token_ids)) + [1] * len(p.token_ids) for p in asked])
    found = model.generate(
        ids, attention_mask=seen, do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(eos), pad_token_id=0
    )
    cut = []
    for row in found[:, longest:].tolist():
        ends = [place + 1 for place, token in enumerate(row) if token in eos]
        cut.append(tuple(row[: min(ends)] if ends else row))
    return cut


def tokens_of(answers: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in completions] for completions in answers]


def ends_for(loaded: LoadedModel, asked: Sequence[Prompt]) -> list[int]:
    """End tokens that cut some greedy completions early, at different lengths, and leave others alone."""
    rows = [answers[0].token_ids for answers in engine_of(loaded, []).generate(asked, GREEDY)]
    ends = [rows[0][2], rows[3][9]]
    lengths = {next((i for i, t in enumerate(row) if t in ends), None) for row in rows}
    assert len(lengths) > 2, "the end tokens should end rows at different places"
    return ends


def rows_of_calls(loaded: LoadedModel) -> list[tuple[int, int]]:
    """A list that collects the (rows, tokens) of every call of the decoder from now on."""
    calls: list[tuple[int, int]] = []

    def record(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        calls.append(tuple(kwargs["input_ids"].shape))

    loaded.decoder.register_forward_pre_hook(record, with_kwargs=True)
    return calls


def parity_gap(learner: LocalLearner, asked: Sequence[Prompt], answers: Sequence[Sequence[Completion]]) -> float:
    """Largest difference between the engine's log-probabilities and the learner's."""
    pairs = [(p.token_ids, c) for p, completions in zip(asked, answers, strict=True) for c in completions]
    again = learner.logprobs([p for p, _ in pairs], [c.token_ids for _, c in pairs])
    return max(float((torch.tensor(c.logprobs) - logp).abs().max()) for (_, c), logp in zip(pairs, again, strict=True))


def test_greedy_tokens_are_those_of_transformers(model_path: str) -> None:
    loaded, asked = load_model(tiny_config(model_path)), prompts(9)
    ends = ends_for(loaded, asked)
    found = engine_of(loaded, ends).generate(asked, GREEDY)
    assert tokens_of(found) == [[row] for row in transformers_greedy(model_path, asked, ends, 24)]
    for (completion,) in found:
        assert completion.finish == ("stop" if completion.token_ids[-1] in ends else "length")
        assert len(completion.token_ids) == len(completion.logprobs)


def test_greedy_with_a_cache_that_grows_twice_and_eager_attention(tiny_models: dict[str, Path]) -> None:
    path = tiny_models["qwen2"]
    asked = prompts(4)
    expected = [[row] for row in transformers_greedy(path, asked, [EOS], 170)]
    for attention in ("sdpa", "eager"):
        engine = engine_of(load_model(tiny_config(path, model={"attention": attention})))
        found = engine.generate(asked, Sampling(temperature=0.0, max_new_tokens=170))
        assert tokens_of(found) == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_the_learners_before_and_after_an_update(
    model_path: str, attention: str, temperature: float
) -> None:
    learner = learner_of(
        model_path, model={"attention": attention}, rollout={"temperature": temperature}, optimiser={"lr": 0.05}
    )
    engine = engine_of(learner.loaded, [EOS, 11, 12, 13, 14, 15, 16])
    asked, sampling = prompts(6), Sampling(n=3, temperature=temperature, max_new_tokens=16, seed=5)
    before = engine.generate(asked, sampling)
    assert parity_gap(learner, asked, before) < 1e-4
    learner.update(random_groups(3, 4))
    assert parity_gap(learner, asked, before) > 1e-2, "the update should have changed the log-probabilities"
    after = engine.generate(asked, sampling)
    assert parity_gap(learner, asked, after) < 1e-4
    assert after != before


def test_greedy_reports_logprobs_of_temperature_one(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"])
    asked = prompts(4)
    assert parity_gap(learner, asked, engine_of(learner.loaded).generate(asked, GREEDY)) < 1e-4


def test_bfloat16_runs_and_agrees_with_the_learner_to_its_precision(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["qwen3"], model={"dtype": "bfloat16"})
    asked = prompts(4)
    answers = engine_of(learner.loaded).generate(asked, Sampling(n=2, max_new_tokens=8, seed=1))
    assert learner.loaded.causal_lm.dtype == torch.bfloat16
    assert parity_gap(learner, asked, answers) < 0.5
    learner.update(random_groups(2, 3))


def test_each_prompt_is_prefilled_once_and_finished_rows_leave(loaded: LoadedModel) -> None:
    asked = prompts(6)
    engine = engine_of(loaded, ends_for(loaded, asked))
    calls = rows_of_calls(loaded)
    found = engine.generate(asked, Sampling(n=4, temperature=0.0, max_new_tokens=24))
    assert calls[0] == (6, max(len(p.token_ids) for p in asked))
    assert all(width == 1 for _, width in calls[1:])
    rows = [rows for rows, _ in calls[1:]]
    assert rows == sorted(rows, reverse=True)
    alive = [sum(len(c.token_ids) > step for cs in found for c in cs) for step in range(1, 24)]
    assert alive[-1] < alive[0], "some rows should end early"
    for living, decoded in zip(alive, rows, strict=False):
        assert living <= decoded < living / (1 - 1 / 8) + 1e-9  # less than the retired share is dead weight
    assert len(rows) == sum(living > 0 for living in alive)


def test_decoding_stops_when_every_row_has_ended(loaded: LoadedModel) -> None:
    first = engine_of(loaded).generate(prompts(3), GREEDY)
    calls = rows_of_calls(loaded)
    found = engine_of(loaded, [answers[0].token_ids[0] for answers in first]).generate(prompts(3), GREEDY)
    assert [len(answers[0].token_ids) for answers in found] == [1, 1, 1]
    assert len(calls) == 1


def test_completions_do_not_depend_on_how_many_share_a_prompt(loaded: LoadedModel) -> None:
    asked = prompts(5)
    engine = engine_of(loaded, ends_for(loaded, asked))
    alone = engine.generate(asked, GREEDY)
    shared = engine.generate(asked, Sampling(n=3, temperature=0.0, max_new_tokens=24))
    assert tokens_of(shared) == [[row[0]] * 3 for row in tokens_of(alone)]


@pytest.mark.parametrize("max_rows", [1, 4, 7])
def test_max_rows_cuts_the_work_and_changes_nothing(loaded: LoadedModel, max_rows: int) -> None:
    asked = prompts(9)
    ends = ends_for(loaded, asked)
    sampling = Sampling(n=2, temperature=0.0, max_new_tokens=24)
    whole = engine_of(loaded, ends).generate(asked, sampling)
    calls = rows_of_calls(loaded)
    assert tokens_of(engine_of(loaded, ends, max_rows=max_rows).generate(asked, sampling)) == tokens_of(whole)
    assert max(rows for rows, _ in calls) <= max(2, max_rows)
    assert sum(rows for rows, width in calls if width > 1) <= 9
    assert calls[0][1] < max(len(p.token_ids) for p in asked), "short prompts should be decoded together"


def test_the_seed_decides(loaded: LoadedModel) -> None:
    engine, asked = engine_of(loaded), prompts(4)
    first = engine.generate(asked, Sampling(n=4, max_new_tokens=12, seed=3))
    assert engine.generate(asked, Sampling(n=4, max_new_tokens=12, seed=3)) == first
    assert engine_of(loaded).generate(asked, Sampling(n=4, max_new_tokens=12, seed=3)) == first
    assert engine.generate(asked, Sampling(n=4, max_new_tokens=12, seed=4)) != first
    assert all(len({c.token_ids for c in completions}) == 4 for completions in first)


def test_sampling_leaves_the_global_random_state_alone(loaded: LoadedModel) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    engine_of(loaded).generate(prompts(2), Sampling(n=2, max_new_tokens=4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("limit", [1, 7])
def test_the_length_limit(loaded: LoadedModel, limit: int) -> None:
    for (completion,) in engine_of(loaded, []).generate(prompts(3), Sampling(max_new_tokens=limit)):
        assert len(completion.token_ids) == len(completion.logprobs) == limit
        assert completion.finish == "length"


def test_an_end_token_at_the_limit_is_a_stop(loaded: LoadedModel) -> None:
    ((free,),) = engine_of(loaded).generate([prompt_of(1, 5)], GREEDY)
    last = next(i for i, t in enumerate(free.token_ids) if i and t not in free.token_ids[:i])
    sampling = Sampling(temperature=0.0, max_new_tokens=last + 1)
    ((cut,),) = engine_of(loaded, [free.token_ids[last]]).generate([prompt_of(1, 5)], sampling)
    assert (cut.token_ids, cut.finish) == (free.token_ids[: last + 1], "stop")


def test_special_tokens_are_in_the_tokens_but_not_in_the_text(loaded: LoadedModel) -> None:
    with torch.no_grad():
        loaded.causal_lm.get_output_embeddings().weight[EOS] *= 50  # makes the end token likely sooner or later
    answers = engine_of(loaded).generate(prompts(8), Sampling(n=4, max_new_tokens=20, seed=0))
    ended = [c for completions in answers for c in completions if c.finish == "stop"]
    assert ended
    for completion in ended:
        assert completion.token_ids.index(EOS) == len(completion.token_ids) - 1
        assert completion.text == loaded.tokenizer.decode(completion.token_ids[:-1], skip_special_tokens=True)
        assert "<eos>" not in completion.text


@pytest.mark.parametrize(("start", "count"), [(5, 2), (9, 1), (3, 40)])
def test_stop_strings_cut_the_text_and_keep_the_tokens(loaded: LoadedModel, start: int, count: int) -> None:
    sampling = Sampling(temperature=0.0, max_new_tokens=60)
    asked = [prompt_of(1, 5), prompt_of(1, 9, 30)]
    free = engine_of(loaded, []).generate(asked, sampling)
    decode = loaded.tokenizer.decode
    stop = decode(free[0][0].token_ids[start : start + count], skip_special_tokens=True)
    assert len(stop) >= count
    found = engine_of(loaded, []).generate(
        asked, Sampling(temperature=0.0, max_new_tokens=60, stop=("never \x00", stop))
    )
    for (before,), (after,) in zip(free, found, strict=True):
        if stop not in before.text:
            assert (after.text, after.token_ids, after.finish) == (before.text, before.token_ids, before.finish)
            continue
        assert after.text == before.text[: before.text.index(stop)]
        used = next(n for n in range(1, 61) if stop in decode(before.token_ids[:n], skip_special_tokens=True))
        assert after.token_ids == before.token_ids[:used]
        assert after.finish == "stop"
    assert found[0][0].finish == "stop"


def test_no_prompts_no_completions(loaded: LoadedModel) -> None:
    assert engine_of(loaded).generate([], GREEDY) == []


def test_sync_counts_and_close_leaves_the_weights(loaded: LoadedModel) -> None:
    engine = engine_of(loaded)
    before = engine.generate(prompts(1), GREEDY)
    engine.sync(ModelWeights(loaded.model, version=7))
    engine.sleep()
    engine.wake()
    engine.close()
    after = engine.generate(prompts(1), GREEDY)
    assert engine.version == 7
    assert [[completion.version for completion in group] for group in (*before, *after)] == [[0], [7]]
    assert [[replace(c, version=None) for c in group] for group in after] == [
        [replace(c, version=None) for c in group] for group in before
    ]


def other_model(kind: str, folder: Path, **settings: Any) -> Path:
    """A tiny random model of a family that conftest does not have; a setting of ``None`` is left out."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "initializer_range": 0.3,
    }  # fmt: skip
    sizes = {name: size for name, size in {**sizes, **settings}.items() if size is not None}
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LATENT = {
    "head_dim": None, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
LOCAL = {
    "attention_types": [[["global", "local"], 1]], "window_size": 5, "num_heads": 4, "num_attention_heads": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mistral", {"sliding_window": None}),
        ("granite", {"logits_scaling": 3.0, "attention_multiplier": 0.2, "embedding_multiplier": 2.0}),
        ("cohere", {"logit_scale": 0.3}),
        ("gptj", {"rotary_dim": 4, "head_dim": None}),
        ("gpt_neo", LOCAL),
        ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": None}),
        ("deepseek_v3", LATENT),
    ],
)
def test_other_families_agree_with_transformers_and_the_learner(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    learner = learner_of(other_model(kind, tmp_path, **settings))
    engine, asked = engine_of(learner.loaded), prompts(5)
    found = engine.generate(asked, GREEDY)
    assert tokens_of(found) == [[row] for row in transformers_greedy(tmp_path, asked, [EOS], 24)]
    assert parity_gap(learner, asked, found) < 1e-4


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=WINDOWED)
def windowed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each family with a window in turn."""
    return make_windowed(request.param, tmp_path_factory.mktemp(request.param))


def long_prompts() -> list[Prompt]:
    """Prompts within the window and beyond it."""
    rng = random.Random(2)
    return [prompt_of(*(rng.randrange(3, VOCABULARY) for _ in range(length))) for length in (5, 30, 8, 17, 9, 1)]


@torch.no_grad()
def stock_gap(
    loaded: LoadedModel,
    asked: Sequence[Prompt],
    answers: Sequence[Sequence[Completion]],
    temperature: float,
    **changed: Any,
) -> float:
    """Largest difference from what transformers' own model with the same weights says of each sequence alone."""
    config = AutoConfig.from_pretrained(loaded.causal_lm.name_or_path, **changed)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.load_state_dict(loaded.causal_lm.state_dict())
    gaps = []
    for prompt, completions in zip(asked, answers, strict=True):
        for completion in completions:
            tokens = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
            logp_TV = (model(tokens, use_cache=False).logits[0].float() / temperature).log_softmax(-1)
            logp_T = logp_TV[len(prompt.token_ids) - 1 : -1].gather(-1, torch.tensor(completion.token_ids)[:, None])
            gaps.append(float((logp_T.squeeze(-1) - torch.tensor(completion.logprobs)).abs().max()))
    return max(gaps)


def test_greedy_tokens_behind_windows_are_those_of_transformers(windowed: Path) -> None:
    asked = long_prompts()
    found = engine_of(load_model(tiny_config(windowed))).generate(asked, Sampling(temperature=0.0, max_new_tokens=40))
    assert tokens_of(found) == [[row] for row in transformers_greedy(windowed, asked, [EOS], 40)]


@pytest.mark.parametrize(("attention", "temperature"), [("sdpa", 1.0), ("eager", 0.7)])
def test_engine_learner_and_transformers_agree_beyond_the_window(
    windowed: Path, attention: str, temperature: float
) -> None:
    learner = learner_of(
        windowed, model={"attention": attention}, rollout={"temperature": temperature}, optimiser={"lr": 0.05}
    )
    engine = engine_of(learner.loaded, [EOS, *range(11, 16)])
    asked, sampling = long_prompts(), Sampling(n=3, temperature=temperature, max_new_tokens=32, seed=8)
    before = engine.generate(asked, sampling)
    assert len({len(c.token_ids) for completions in before for c in completions}) > 3, "rows should leave early"
    assert parity_gap(learner, asked, before) < 1e-4
    assert stock_gap(learner.loaded, asked, before, temperature) < 1e-4
    assert stock_gap(learner.loaded, asked, before, temperature, sliding_window=99) > 1e-2, "windows should matter"
    learner.update(random_groups(3, 4))
    assert parity_gap(learner, asked, before) > 1e-2, "the update should have changed the log-probabilities"
    after = engine.generate(asked, sampling)
    assert parity_gap(learner, asked, after) < 1e-4
    assert stock_gap(learner.loaded, asked, after, temperature) < 1e-4


@pytest.mark.parametrize("share", [True, False])
def test_what_windows_leave_out_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: bool) -> None:
    """However long responses become; what is drawn is what a cache of all columns draws."""
    loaded = load_model(tiny_config(make_windowed("qwen3", tmp_path)))
    asked = [prompt_of(*range(20, 20 + length)) for length in ((40, 35) if share else (5, 9))]
    sampling = Sampling(n=3, max_new_tokens=120, seed=1)
    held: list[list[int]] = []
    extend = Graphs.extend

    def watched(graphs: Graphs, *given: Any) -> torch.Tensor:
        found = extend(graphs, *given)
        held.append([layer.keys.shape[2] for layer in given[-1].layers])
        return found

    monkeypatch.setattr(Graphs, "extend", watched)
    engine = engine_of(loaded, [])
    found = engine.generate(asked, sampling)
    assert engine.shares is (True if share else None)
    assert max(columns[0] for columns in held) == WINDOW - 1 + WINDOW // 2
    assert max(columns[1] for columns in held) >= 119
    engine.windows = [None] * 4
    whole = engine.generate(asked, sampling)
    assert tokens_of(found) == tokens_of(whole)
    for one, other in zip(chain.from_iterable(found), chain.from_iterable(whole), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_layers_that_borrow_keys_and_values(tmp_path: Path) -> None:
    """Gemma 3n's last layers keep nothing of their own."""
    kinds = ["sliding_attention", "full_attention"] * 3
    path = make_windowed(
        "gemma3n_text", tmp_path, num_hidden_layers=6, layer_types=kinds, num_kv_shared_layers=2,
        activation_sparsity_pattern=[0.0] * 6,
    )  # fmt: skip
    learner, asked = learner_of(path), long_prompts()
    found = engine_of(learner.loaded, [EOS, *range(11, 16)]).generate(asked, Sampling(n=3, max_new_tokens=24, seed=5))
    assert parity_gap(learner, asked, found) < 1e-4
    assert stock_gap(learner.loaded, asked, found, 1.0) < 1e-4


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_responses_end_before_all_their_tokens_would_turn(tmp_path: Path, rope: str) -> None:
    """These rotations change for all tokens of a longer sequence, those whose keys are kept included."""
    family, settings, parameters = {
        "longrope": (
            "phi3", {"original_max_position_embeddings": 40},
            {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
        ),
        "dynamic": ("mistral", {"max_position_embeddings": 40}, {"factor": 2.0}),
    }[rope]  # fmt: skip
    parameters = {"rope_type": rope, "rope_theta": 100.0, **parameters}
    path = make_windowed(family, tmp_path, rope_parameters=parameters, **settings)
    learner, asked = learner_of(path), long_prompts()
    engine = engine_of(learner.loaded, [])
    found = engine.generate(asked, Sampling(n=2, max_new_tokens=30, seed=5))
    expected = [[min(30, 40 - len(prompt.token_ids))] * 2 for prompt in asked]
    assert [[len(c.token_ids) for c in completions] for completions in found] == expected
    assert parity_gap(learner, asked, found) < 1e-4
    assert stock_gap(learner.loaded, asked, found, 1.0) < 1e-4


def test_learned_positions_are_used_to_the_last(tmp_path: Path) -> None:
    """Rows that end, and padding behind a response, ask for no position that the table does not have."""
    path = other_model(
        "gpt2", tmp_path, n_embd=32, n_head=4, n_layer=2, n_positions=40, head_dim=None, num_key_value_heads=None,
        intermediate_size=None, max_position_embeddings=None,
    )  # fmt: skip
    learner, asked = learner_of(path), long_prompts()
    found = engine_of(learner.loaded, []).generate(asked, Sampling(n=2, max_new_tokens=40, seed=5))
    assert [len(p.token_ids) + len(found[i][0].token_ids) for i, p in enumerate(asked)] == [40] * 6
    assert parity_gap(learner, asked, found) < 1e-4


# --- sample ---------------------------------------------------------------------------------------------------------


def drawn(count: int, seed: int) -> Tensor:
    """As many numbers as one stream gives."""
    return uniforms(torch.full((count,), seed), torch.arange(count))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_the_softmax_probabilities(temperature: float) -> None:
    logits = torch.tensor([1.5, float("-inf"), 0.0, -1.0, 2.0, float("-inf")])
    draws = 40_000
    tokens, logprobs = sample(logits.expand(draws, -1), temperature, drawn(draws, seed=7))
    probabilities = (logits / temperature).softmax(-1)
    for token, probability in enumerate(probabilities.tolist()):
        share = float((tokens == token).double().mean())
        assert share == pytest.approx(probability, abs=5 * (probability * (1 - probability) / draws) ** 0.5)
    assert torch.allclose(logprobs.exp(), probabilities[tokens], atol=1e-6)


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    # With float32 sums over a large vocabulary the last token, or the first, could win by rounding.
    logits = torch.full((2000, 5000), -200.0)
    logits[:, 1000:4000] = 0.0
    tokens, _ = sample(logits, 1.0, drawn(2000, seed=0))
    assert int(tokens.min()) >= 1000
    assert int(tokens.max()) < 4000


@pytest.mark.parametrize("size", [BLOCKED + 1, 6 * BLOCK, 5000, 40_961])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_large_vocabulary_draws_what_one_sum_over_it_draws(size: int, temperature: float) -> None:
    logits = 3 * torch.randn(300, size, generator=torch.Generator().manual_seed(size))
    logits[:, ::7] = float("-inf")
    uniform = drawn(300, seed=4)
    tokens, logprobs = sample(logits, temperature, uniform)
    scaled = (logits.double() / temperature).log_softmax(-1)
    ends = scaled.exp().cumsum(-1)
    at = tokens[:, None]
    begin, end = ends.gather(-1, at) - scaled.gather(-1, at).exp(), ends.gather(-1, at)
    assert ((begin - 1e-5 <= uniform[:, None]) & (uniform[:, None] <= end + 1e-5)).all()
    assert torch.allclose(logprobs.double(), scaled.gather(-1, at).squeeze(-1), atol=1e-5)
    assert torch.isfinite(logprobs).all()


@pytest.mark.parametrize("size", [5000, 40_961])
@pytest.mark.parametrize("only", [0, BLOCK - 1, BLOCK, 4999])
def test_the_one_token_that_has_a_probability_is_drawn_whatever_the_draw(size: int, only: int) -> None:
    logits = torch.full((3, size), float("-inf"))
    logits[:, only] = -3.0
    tokens, logprobs = sample(logits, 1.0, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64))
    assert tokens.tolist() == [only] * 3
    assert logprobs.tolist() == [0.0] * 3


def test_temperature_zero_takes_the_largest_and_needs_no_randomness() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 1.0]])
    tokens, logprobs = sample(logits, 0.0, None)
    assert tokens.tolist() == [1, 0]
    assert torch.allclose(logprobs, logits.log_softmax(-1)[[0, 1], [1, 0]])


@pytest.mark.parametrize("penalty", [1.05, 1.5, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(
    loaded: LoadedModel, tiny_models: dict[str, Path], penalty: float
) -> None:
    """Prompts of one length: transformers counts padding as held."""
    asked = [prompt for prompt in prompts(40) if len(prompt.token_ids) == 11]
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen3"]).eval()
    ids = torch.tensor([prompt.token_ids for prompt in asked])
    with torch.no_grad():
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, repetition_penalty=penalty,
            eos_token_id=[VOCABULARY - 1], pad_token_id=0,
        )  # fmt: skip
    sampling = Sampling(temperature=0.0, max_new_tokens=24, repetition_penalty=penalty)
    ours = engine_of(loaded, [VOCABULARY - 1]).generate(asked, sampling)
    plain = engine_of(loaded, [VOCABULARY - 1]).generate(asked, GREEDY)
    for row, (completion,) in zip(found[:, ids.shape[1] :].tolist(), ours, strict=True):
        assert tuple(row[: len(completion.token_ids)]) == completion.token_ids
    assert tokens_of(ours) != tokens_of(plain)


def test_more_tokens_than_positions_are_said_once(loaded: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    engine = engine_of(loaded, [1])
    assert engine.positions == 512
    with caplog.at_level("WARNING"):
        engine.generate([prompt_of(5)], Sampling(max_new_tokens=511, seed=1))
        assert caplog.messages == []
        for _ in range(2):
            ((completion,),) = engine.generate([prompt_of(5)], Sampling(max_new_tokens=600, seed=1))
            assert completion.tokens <= 511
    assert caplog.messages == [
        "max_new_tokens is 600, but the model has 512 positions for prompt and response together: responses end there"
    ]


def test_likely_tokens_are_told_and_change_nothing(loaded: LoadedModel) -> None:
    """In rows that enter and leave at different times: the sampled token first, then the others by their chances."""
    asked, sampling = prompts(7), Sampling(2, 0.7, 9, seed=3)
    engine = engine_of(loaded, max_rows=4)
    plain, told = (engine.generate(asked, replace(sampling, top=top)) for top in (0, 4))
    for before, after in zip((one for group in plain for one in group), (one for g in told for one in g), strict=True):
        assert replace(after, top=()) == before
        assert before.top == ()
        assert [place[0] for place in after.top] == [
            (engine.decode([token]), logprob)
            for token, logprob in zip(after.token_ids, after.logprobs, strict=True)
        ]  # fmt: skip
        for (_, sampled), *others in after.top:
            chances = [logprob for _, logprob in others]
            assert chances == sorted(chances, reverse=True)
            assert len(others) in {3, 4}, "the sampled token is told once"
            assert sampled <= max(chances) or len(others) == 3
            assert sum(map(math.exp, [sampled, *chances])) <= 1 + 1e-5
