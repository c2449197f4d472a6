"""What of the vLLM engine needs no vLLM: its arguments, its prompts, how outputs are read, and what it says without."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from spark_rl.backend import open_backend
from spark_rl.chat import Prompt
from spark_rl.config import Config
from spark_rl.engine.base import Sampling
from spark_rl.engine.vllm import (
    Facts,
    VllmEngine,
    completion,
    engine_arguments,
    import_vllm,
    read_facts,
    request,
    sampling_arguments,
    source_of,
)
from spark_rl.errors import ConfigError, EngineError, UserError
from spark_rl.model.places import EMBEDDED
from spark_rl.problem import Completion, Problem
from tiny import tiny_config
from vision import VLM_FAMILIES, draw_image, make_vlm

PROBLEM = Problem("p", "What is <image> plus <image>?", "2", images=(draw_image(1, 84, 56), draw_image(2, 56, 56)))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    made: dict[str, Path] = {}

    def config(family: str, **sections: Any) -> Config:
        if family not in made:
            made[family] = make_vlm(family, tmp_path_factory.mktemp(family))
        return tiny_config(made[family], **sections)

    return config


def facts_of(config: Config) -> Facts:
    return read_facts(config, source_of(config))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_one_line_says_how_to_get_it(model_path: str) -> None:
    with pytest.raises(UserError, match=r"pip install 'spark-rl\[vllm\]'$"):
        VllmEngine(tiny_config(model_path))


def test_a_broken_vllm_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    for text, message in (
        ("import no_such_module", "no_such_module is missing"),
        ("raise RuntimeError('operator torchvision::nms\\ndoes not exist')", "nms does not exist"),
    ):
        (tmp_path / "vllm.py").write_text(text)
        importlib.invalidate_caches()
        with pytest.raises(UserError, match=message) as caught:
            import_vllm()
        assert "\n" not in str(caught.value)


def test_facts_are_those_of_the_loaded_model(model_path: str) -> None:
    config = tiny_config(model_path, chat={"policy": "solve {question}"})
    facts, backend = facts_of(config), open_backend(config)
    problem = Problem("p", "5?2?7=10", "")
    assert facts.chat.encode(problem) == backend.chat.encode(problem)
    generation = getattr(backend.loaded.causal_lm, "generation_config", None)
    assert set(facts.ends) == backend.chat.eos_ids(generation)
    assert facts.ends
    assert (facts.banned, facts.context) == ((), 512)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_models_that_see_are_asked_with_unexpanded_tokens_and_pictures(vlm: Callable[..., Config], family: str) -> None:
    config = vlm(family)
    facts = facts_of(config)
    prompt = facts.chat.encode(PROBLEM)
    asked = request(prompt, facts.chat)
    ids = asked["prompt_token_ids"]
    assert facts.chat.tokenizer.decode(ids) == prompt.text
    assert len(ids) < len(prompt.token_ids)
    assert [picture.size for picture in asked["multi_modal_data"]["image"]] == [(84, 56), (56, 56)]
    loaded = open_backend(config).loaded
    assert loaded.banned is not None
    assert list(facts.banned) == loaded.banned.tolist()
    bias = sampling_arguments(Sampling(), facts)["logit_bias"]
    assert set(bias) == set(facts.banned)
    assert set(bias.values()) == {-100.0}


def test_pixel_bounds_are_the_processors_where_it_has_them_and_ours_elsewhere(vlm: Callable[..., Config]) -> None:
    bounds = {"chat": {"min_pixels": 1024, "max_pixels": 2048}}
    config = vlm("qwen2_5_vl", **bounds)
    facts = facts_of(config)
    arguments = engine_arguments(config, "m", facts)
    assert arguments["mm_processor_kwargs"] == {"size": {"shortest_edge": 1024, "longest_edge": 2048}}
    assert arguments["limit_mm_per_prompt"]["image"] >= 8
    pictures = request(facts.chat.encode(PROBLEM), facts.chat)["multi_modal_data"]["image"]
    assert [picture.size for picture in pictures] == [(84, 56), (56, 56)]
    config = vlm("llava_onevision", **bounds)
    facts = facts_of(config)
    assert "mm_processor_kwargs" not in engine_arguments(config, "m", facts)
    pictures = request(facts.chat.encode(PROBLEM), facts.chat)["multi_modal_data"]["image"]
    assert all(picture.width * picture.height <= 2048 for picture in pictures)


def test_a_broken_image_is_one_line(vlm: Callable[..., Config], tmp_path: Path) -> None:
    facts = facts_of(vlm("qwen2_5_vl"))
    prompt = facts.chat.encode(PROBLEM)
    broken = type(prompt)(prompt.text, prompt.token_ids, prompt.messages, (str(tmp_path / "gone.png"),))
    with pytest.raises(UserError, match=r"gone\.png"):
        request(broken, facts.chat)


def test_text_is_asked_as_its_tokens(model_path: str) -> None:
    facts = facts_of(tiny_config(model_path))
    prompt = facts.chat.encode(Problem("p", "1+1?", ""))
    assert request(prompt, facts.chat) == {"prompt_token_ids": list(prompt.token_ids)}


def test_arguments_follow_the_configuration(model_path: str) -> None:
    config = tiny_config(
        model_path, seed=7, engine={"max_rows": 33}, rollout={"max_prompt_tokens": 100},
        inference={"max_new_tokens": 50}, model={"dtype": "bfloat16"},
    )  # fmt: skip
    facts = replace(facts_of(config), context=None)
    assert engine_arguments(config, "m", facts) == {
        "model": "m", "dtype": "bfloat16", "trust_remote_code": False, "seed": 7, "max_num_seqs": 33,
        "max_model_len": 868, "logprobs_mode": "processed_logprobs", "enable_prefix_caching": True,
        "worker_extension_cls": "spark_rl.engine.vllm.worker.Worker",
        "weight_transfer_config": {"backend": "spark_rl"},
    }  # fmt: skip
    assert engine_arguments(tiny_config(model_path), "m", facts_of(config))["max_model_len"] == 512, (
        "what the model can hold"
    )


def test_sampling_is_said_in_vllms_words(model_path: str) -> None:
    facts = facts_of(tiny_config(model_path))
    assert sampling_arguments(Sampling(3, 0.7, 11, 5, ("\n\n",)), facts) == {
        "n": 3, "temperature": 0.7, "max_tokens": 11, "seed": 5, "logprobs": 0, "stop": ["\n\n"],
        "stop_token_ids": list(facts.ends), "repetition_penalty": 1.0,
    }  # fmt: skip


def test_stop_strings_of_a_prompt_go_with_it_and_special_tokens_as_tokens(model_path: str) -> None:
    facts = facts_of(tiny_config(model_path))
    end = facts.chat.tokenizer.convert_tokens_to_ids("<pad>")
    assert end not in facts.ends
    found = sampling_arguments(Sampling(stop=("Q:",)), facts, ("<pad>", "\n\n"))
    assert found["stop"] == ["Q:", "<pad>", "\n\n"]
    assert found["stop_token_ids"] == [*facts.ends, end]


def test_an_output_becomes_a_completion() -> None:
    tops = [{4: SimpleNamespace(logprob=-0.5), 9: SimpleNamespace(logprob=-0.1)}, {2: SimpleNamespace(logprob=-1)}]
    output = SimpleNamespace(text="hi", token_ids=[4, 2], logprobs=tops, finish_reason="stop")
    assert completion(output) == Completion("hi", (4, 2), (-0.5, -1.0), "stop")
    output.finish_reason = "length"
    assert completion(output).finish == "length"


def test_weights_come_from_where_they_are_asked_for(model_path: str, tmp_path: Path) -> None:
    assert source_of(tiny_config("embedded-vl")) == str(EMBEDDED["embedded-vl"])
    assert source_of(tiny_config(model_path), tmp_path) == str(tmp_path)
    with pytest.raises(ConfigError, match="cannot load the model"):
        read_facts(tiny_config(model_path), str(tmp_path / "nothing"))


class StubLLM:
    """Stands for ``vllm.LLM``, which is not here: replies to each request with its tokens and its seed."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda **_: None))
        if arguments.get("tensor_parallel_size") == 3:
            raise ValueError("3 does\nnot divide the heads")

    def generate(self, requests: list[Any], asked: list[Any], use_tqdm: bool) -> list[Any]:
        assert use_tqdm is False
        if not all(r["prompt_token_ids"] for r in requests):
            raise ValueError("This is not\na prompt")
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(text=f"{len(r['prompt_token_ids'])}", token_ids=[s.seed % 97],
                                    logprobs=[{s.seed % 97: SimpleNamespace(logprob=-1.0)}], finish_reason="stop")
                ] * s.n
            )
            for r, s in zip(requests, asked, strict=True)
        ]  # fmt: skip


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in vLLM's place with the two names that are used of it."""
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = StubLLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    platforms: Any = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: False)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


@pytest.mark.usefixtures("stub")
def test_prompts_keep_their_order_and_get_seeds_of_their_own(model_path: str) -> None:
    engine = VllmEngine(tiny_config(model_path))
    prompts = [engine.facts.chat.encode(Problem("p", "1+" * i, "")) for i in (5, 1, 3)]
    found = engine.generate(prompts, Sampling(2, seed=1))
    assert [[int(c.text) for c in group] for group in found] == [[len(p.token_ids)] * 2 for p in prompts]
    assert len({group[0].token_ids for group in found}) > 1
    assert engine.generate(prompts, Sampling(2, seed=1)) == found
    assert engine.generate([], Sampling()) == []


@pytest.mark.usefixtures("stub")
def test_the_seed_of_a_prompt_does_not_depend_on_the_call(model_path: str) -> None:
    engine = VllmEngine(tiny_config(model_path))
    prompts = [engine.facts.chat.encode(Problem("p", "1+" * i, "")) for i in (5, 1, 3)]
    whole = engine.generate(prompts, Sampling(2, seed=1))
    assert engine.generate(prompts[1:], Sampling(2, seed=1, first=1)) == whole[1:]


@pytest.mark.usefixtures("stub")
def test_what_vllm_refuses_is_one_line(model_path: str) -> None:
    with pytest.raises(ConfigError, match=r"vLLM can't load .*3 does not divide the heads"):
        VllmEngine(tiny_config(model_path), tensor_parallel_size=3)
    engine = VllmEngine(tiny_config(model_path))
    with pytest.raises(EngineError, match=r"vLLM failed \(generate\): .*not a prompt"):
        engine.generate([Prompt("", (), ())], Sampling())


@pytest.mark.usefixtures("stub")
def test_a_prompt_over_the_context_has_empty_responses(model_path: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = VllmEngine(tiny_config(model_path))
    chat = engine.facts.chat
    prompts = [chat.encode(Problem("p", text, "")) for text in ("1+1", "1+" * 600, "2+2")]
    found = engine.generate(prompts, Sampling(2, seed=1))
    assert [(c.text, c.token_ids, c.finish) for c in found[1]] == [("", (), "length")] * 2
    assert "1 of 3 prompts are longer than the 512 tokens" in caplog.text
    assert found[2] == engine.generate(prompts[2:], Sampling(2, seed=1, first=2))[0]


@pytest.mark.usefixtures("stub")
def test_a_closed_engine_says_so(model_path: str) -> None:
    engine = VllmEngine(tiny_config(model_path))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate([engine.facts.chat.encode(Problem("p", "1+1", ""))], Sampling())
