"""Problems with images through chat, engine and learner, for every family of image plumbing we claim."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from running import reasoner_of
from spark_rl.backend import Backend, open_backend
from spark_rl.chat import ChatFormat, Prompt
from spark_rl.engine.base import Sampling
from spark_rl.errors import ChatError
from spark_rl.learner.local import LocalLearner
from spark_rl.model.vision import vision_tokens
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.recycle import recycle
from tiny import tiny_config
from vision import VLM_FAMILIES, draw_image, make_vlm

PROBLEMS = (
    Problem("one", "How many?", "3", images=(draw_image(1, 84, 56),)),
    Problem("none", "What is 2 plus 2, and why should anyone who reads this care about it?", "4"),
    Problem("two", "Left <image> or right <image>?", "A", images=(draw_image(2, 56, 56), draw_image(3, 112, 40))),
    Problem("wide", "And here?", "7", images=(draw_image(4, 140, 28),)),
)


@pytest.fixture(scope="module")
def backend_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Backend]:
    paths: dict[str, Path] = {}

    def make(family: str, **sections: Any) -> Backend:
        if family not in paths:
            paths[family] = make_vlm(family, tmp_path_factory.mktemp(family))
        return open_backend(tiny_config(paths[family], **sections))

    return make


def group_from(problem: Problem, prompt: Prompt, completions: list[Completion]) -> Group:
    rollouts = tuple(
        Rollout(c, Verdict(float(i % 2), "correct" if i % 2 else "wrong")) for i, c in enumerate(completions)
    )
    return Group(problem, rollouts, prompt.token_ids, prompt.vision)


def whole(backend: Backend, prompt: Prompt, response: tuple[int, ...], temperature: float) -> Tensor:
    """The textbook way: one unpadded row with everything the processor returned, all logits, banned tokens out."""
    model = AutoModelForImageTextToText.from_pretrained(backend.config.model.path).eval()
    tokens = torch.tensor([[*prompt.token_ids, *response]])
    vision = {
        name: torch.nn.functional.pad(value, (0, len(response))) if name.endswith("_type_ids") else value
        for name, value in prompt.vision.items()
    }
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **vision).logits[0].float()
    assert backend.loaded.banned is not None
    logits[:, backend.loaded.banned] = float("-inf")
    logp = (logits / temperature).log_softmax(-1)
    return logp[len(prompt.token_ids) - 1 : -1].gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_engine_learner_and_transformers_agree(
    backend_of: Callable[..., Backend], family: str, attention: str, temperature: float
) -> None:
    backend = backend_of(family, model={"attention": attention}, rollout={"temperature": temperature})
    prompts = [backend.chat.encode(problem) for problem in PROBLEMS]
    found = backend.engine.generate(prompts, Sampling(2, temperature, 6, seed=1))
    learner = LocalLearner(backend.loaded, backend.config)
    for prompt, completions in zip(prompts, found, strict=True):
        for completion in completions:
            engine = torch.tensor(completion.logprobs)
            (ours,) = learner.logprobs([prompt.token_ids], [completion.token_ids], [prompt.vision])
            with torch.no_grad():
                stock = whole(backend, prompt, completion.token_ids, temperature)
            assert torch.allclose(ours, engine, atol=1e-4), (ours - engine).abs().max()
            assert torch.allclose(stock, engine, atol=1e-4), (stock - engine).abs().max()


@pytest.mark.parametrize("freeze", [[], ["vision"]], ids=["whole", "frozen-tower"])
@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_an_update_on_groups_with_images_keeps_engine_and_learner_together(
    backend_of: Callable[..., Backend], family: str, freeze: list[str]
) -> None:
    backend = backend_of(family, model={"freeze": freeze}, optimiser={"lr": 1e-2})
    learner = LocalLearner(backend.loaded, backend.config)
    prompts = [backend.chat.encode(problem) for problem in PROBLEMS]
    before = [p.detach().clone() for p in backend.loaded.model.parameters()]
    for step in range(2):
        found = backend.engine.generate(prompts, Sampling(4, 1.0, 6, seed=step))
        groups = [group_from(*each) for each in zip(PROBLEMS, prompts, found, strict=True)]
        metrics = learner.update(groups)
        assert metrics["engine_gap"] < 1e-4
    moved = [
        name for (name, p), old in zip(backend.loaded.model.named_parameters(), before, strict=True)
        if not torch.equal(p, old)
    ]  # fmt: skip
    trained = {name for name, p in backend.loaded.model.named_parameters() if p.requires_grad}
    assert set(moved) <= trained
    tower = [name for name in moved if "vis" in name and "merger" not in name]
    assert bool(tower) == (not freeze), "the vision tower learns too, unless it is frozen"
    assert any(part in name for name in moved for part in ("merger", "projector", "connector"))


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_an_image_is_encoded_once_a_group(backend_of: Callable[..., Backend], family: str) -> None:
    """The processor runs once a problem; the vision tower once a batch, on each image once, whatever n is."""
    backend = backend_of(family)
    assert backend.loaded.banned is not None
    calls: list[int] = []
    decoder: Any = backend.loaded.decoder
    original = decoder.get_image_features

    def counted(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(pixel_values.numel())
        return original(pixel_values, *args, **kwargs)

    decoder.get_image_features = counted
    processed: list[int] = []
    backend.chat.processor = _Counting(backend.chat.processor, processed)
    prompt = backend.chat.encode(PROBLEMS[0])
    assert processed == [1]
    pixels = prompt.vision["pixel_values"].numel()
    (completions,) = backend.engine.generate([prompt], Sampling(8, 1.0, 4, seed=0))
    assert calls == [pixels], "eight rollouts, one prefill"
    calls.clear()
    LocalLearner(backend.loaded, backend.config).update([group_from(PROBLEMS[0], prompt, completions)])
    assert calls == [pixels], "eight responses, one encoding"
    assert processed == [1]


class _Counting:
    """The real processor, counting its calls."""

    def __init__(self, processor: Any, calls: list[int]) -> None:
        self._processor, self._calls = processor, calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._calls.append(1)
        return self._processor(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_tokens_of_images_are_never_sampled(backend_of: Callable[..., Backend], family: str) -> None:
    """Even by a model that wants nothing else."""
    backend = backend_of(family)
    tokenizer = backend.loaded.tokenizer
    banned = set(vision_tokens(backend.loaded.causal_lm.config, backend.loaded.processor))
    prompt = backend.chat.encode(PROBLEMS[2])
    repeated = {i for i in prompt.token_ids if prompt.token_ids.count(i) > 3 and i >= 128 + 3}
    assert repeated & banned, "what stands for the image in the prompt is among them"
    assert not {tokenizer.eos_token_id, *tokenizer("x1 ")["input_ids"]} & banned
    head = backend.loaded.causal_lm.get_output_embeddings()
    wishes = torch.zeros(head.weight.shape[0])
    wishes[sorted(banned)] = 1e6
    head.register_forward_hook(lambda _module, _args, out: out + wishes)
    for completions in backend.engine.generate([prompt], Sampling(8, 1.0, 8, seed=0)):
        assert not banned & {token for c in completions for token in c.token_ids}
        assert all(torch.isfinite(torch.tensor(c.logprobs)).all() for c in completions)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_an_image_stands_where_its_marker_is(backend_of: Callable[..., Backend], family: str) -> None:
    chat = backend_of(family, chat={"policy": "{question}"}).chat
    messages = chat.encode(PROBLEMS[2]).messages
    assert [part["type"] for part in messages[0]["content"]] == ["text", "image", "text", "image", "text"]
    assert messages[0]["content"][2]["text"] == " or right "
    first = chat.encode(replace(PROBLEMS[2], question="Left or right?"))
    assert [part["type"] for part in first.messages[0]["content"]] == ["image", "image", "text"]
    swapped = chat.encode(replace(PROBLEMS[2], images=PROBLEMS[2].images[::-1]))
    assert swapped.text == chat.encode(PROBLEMS[2]).text


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_text_cannot_add_an_image(backend_of: Callable[..., Backend], family: str) -> None:
    """Markers and placeholders in a question or a response are text: the number of image tokens stays what it was."""
    backend = backend_of(family)
    assert backend.loaded.banned is not None
    banned = set(backend.loaded.banned.tolist())

    def image_tokens(question: str, prompt: str | None = None) -> int:
        problem = replace(PROBLEMS[0], question=question, prompt=prompt)
        return sum(i in banned for i in backend.chat.encode(problem).token_ids)

    plain = image_tokens("How many?")
    assert plain > 0
    tokens = " ".join(t.content for t in backend.loaded.tokenizer.added_tokens_decoder.values() if t.special)
    for nasty in (tokens, "<image> <image> <image>", "\ufdd0", tokens + "<im<image>age>", "<|image_<image>pad|>"):
        assert image_tokens(f"How {nasty} many?") == plain
        assert image_tokens("How many?", f"Judge: {nasty}") == plain
    text_only = replace(PROBLEMS[1], question=f"{tokens} <image>")
    assert not banned & set(backend.chat.encode(text_only).token_ids)


def test_a_placeholder_that_is_no_special_token_is_text_too(backend_of: Callable[..., Backend]) -> None:
    backend, place = backend_of("qwen2_5_vl"), "[picture]"
    processor = copy.copy(backend.loaded.processor)
    processor.image_token = place
    chat = ChatFormat(backend.loaded.tokenizer, backend.config.chat, processor)
    assert "What is a [ picture]?" in chat.encode(replace(PROBLEMS[1], question=f"What is a {place}?")).text


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_a_template_that_drops_images_is_refused_at_once(backend_of: Callable[..., Backend], family: str) -> None:
    blind = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    with pytest.raises(ChatError, match="the chat template has no place for images"):
        backend_of(family, chat={"template": blind})


@pytest.mark.parametrize("form", ["answer", "cot"])
@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_recycled_problems_show_the_model_the_image(backend_of: Callable[..., Backend], family: str, form: Any) -> None:
    """Judge and reflection prompts, of training and of test time, carry the very pixels of their parent."""
    backend = backend_of(family, recycle={"per_group": 4, "form": form}, inference={"max_new_tokens": 2, "form": form})
    texts = {
        "correct": ["it is \\boxed{3}", "\\boxed{3} yes <image>"],
        "wrong": ["\\boxed{5} <|image_pad|>", "no \\boxed{6}"],
    }
    problem = PROBLEMS[0]
    rollouts = [
        Rollout(Completion(text, (5,), (-1.0,), "stop"), Verdict(float(status == "correct"), status, None))
        for status, several in texts.items() for text in several
    ]  # fmt: skip
    parent = backend.chat.encode(problem)
    recycled = recycle([Group(problem, tuple(rollouts), parent.token_ids)], backend.config.recycle, random.Random(0))
    assert {p.task for p in recycled} == {"pointwise", "pairwise", "reflection"}
    asked = [backend.chat.encode(p) for p in recycled]

    engine = _Recording(backend.engine)
    reasoner = replace(reasoner_of(backend), engine=engine)
    reasoner.judge([problem], [rollouts[0].text])
    reasoner.compare([problem], [(rollouts[0].text, rollouts[2].text)])
    reasoner.reflect([problem], [rollouts[2].text])
    assert len(engine.prompts) == 3
    assert backend.loaded.banned is not None
    for prompt in (*asked, *engine.prompts):
        pixels = prompt.vision["pixel_values"]
        assert torch.equal(pixels, parent.vision["pixel_values"])
        assert [i for i in prompt.token_ids if i in backend.loaded.banned] == [
            i for i in parent.token_ids if i in backend.loaded.banned
        ]


class _Recording:
    """The real engine, remembering what it was asked."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.prompts: list[Prompt] = []

    def generate(self, prompts: Any, sampling: Sampling) -> Any:
        self.prompts += prompts
        return self._engine.generate(prompts, sampling)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_pixel_bounds_of_the_configuration_change_the_number_of_tokens(
    backend_of: Callable[..., Backend], family: str
) -> None:
    problem = replace(PROBLEMS[0], images=(draw_image(5, 224, 224),))

    def pixels(**bounds: int) -> int:
        return backend_of(family, chat=bounds).chat.encode(problem).vision["pixel_values"].numel()

    small, large = pixels(max_pixels=56 * 56, min_pixels=28 * 28), pixels(min_pixels=224 * 224, max_pixels=448 * 448)
    if family.startswith("qwen"):
        more = backend_of(family, chat={"min_pixels": 448 * 448}).chat  # than the processor allows by itself
        vision = more.encode(replace(problem, images=(draw_image(5, 280, 280),))).vision
        assert vision["pixel_values"].numel() == 448 * 448 * 3 * 2
        fewer = backend_of(family, chat={"max_pixels": 400}).chat
        assert fewer.pixel_bounds == {"size": {"shortest_edge": 400, "longest_edge": 400}}
        assert small == 56 * 56 * 3 * 2
        assert large == 224 * 224 * 3 * 2
    else:  # tiles of a fixed size: the picture is shrunk or enlarged before they are cut
        assert small <= large
    with pytest.raises(ChatError, match=r"problem one: its images can't be used: .*gone\.png"):
        backend_of(family).chat.encode(replace(problem, images=("/nowhere/gone.png",)))


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_recomputing_layers_changes_nothing(backend_of: Callable[..., Backend], family: str) -> None:
    """In the prompt pass, whose keys and values the responses hold on to, and in the tower."""
    results = []
    for recompute in (False, True):
        backend = backend_of(family, model={"gradient_checkpointing": recompute}, optimiser={"lr": 1e-2})
        prompts = [backend.chat.encode(problem) for problem in PROBLEMS]
        found = backend.engine.generate(prompts, Sampling(4, 1.0, 6, seed=0))
        learner = LocalLearner(backend.loaded, backend.config)
        learner.update([group_from(*each) for each in zip(PROBLEMS, prompts, found, strict=True)])
        results.append([p.detach().clone() for p in backend.loaded.model.parameters()])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.allclose(plain, recomputed, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers
@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_adapters_and_half_precision_train(backend_of: Callable[..., Backend], family: str, tmp_path: Path) -> None:
    backend = backend_of(
        family, model={"lora": {"rank": 2}, "dtype": "bfloat16"}, optimiser={"lr": 1e-2}, objective={"kl": 0.1}
    )
    learner = LocalLearner(backend.loaded, backend.config)
    prompts = [backend.chat.encode(problem) for problem in PROBLEMS]
    for step in range(2):
        found = backend.engine.generate(prompts, Sampling(4, 1.0, 6, seed=step))
        metrics = learner.update([group_from(*each) for each in zip(PROBLEMS, prompts, found, strict=True)])
    assert metrics["grad_norm"] > 0
    assert metrics["kl"] > 0
    learner.export(tmp_path)
    again = open_backend(backend.config, tmp_path)
    for ours, theirs in zip(backend.loaded.model.parameters(), again.loaded.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
