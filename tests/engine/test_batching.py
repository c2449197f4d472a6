"""Prompts that wait and enter as rows finish: the bounds hold, and what is said does not change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.backend import open_backend
from spark_rl.chat import Prompt
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.engine.scheduler import Waiting
from spark_rl.errors import UserError
from spark_rl.model import cache as cache_module
from spark_rl.model.load import load_model
from spark_rl.problem import Problem
from tiny import EOS, VOCABULARY, engine_of, prompt_of, prompts, tiny_config
from vision import VLM_FAMILIES, draw_image, make_vlm
from windowed import WINDOWED, make_windowed

ENDS = [EOS, *range(11, 25)]


def check_like_one_at_a_time(engine: EmbeddedEngine, asked: Sequence[Prompt], sampling: Sampling) -> None:
    """Tokens as if each prompt were alone, log-probabilities to the rounding of float32."""
    together = engine.generate(asked, sampling)
    for first, prompt in enumerate(asked):
        (alone,) = engine.generate(
            [prompt], Sampling(sampling.n, 1.0, sampling.max_new_tokens, sampling.seed, first=first)
        )
        assert [c.token_ids for c in together[first]] == [c.token_ids for c in alone]
        for one, other in zip(together[first], alone, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            assert (one.text, one.finish) == (other.text, other.finish)


@pytest.fixture(scope="module")
def engine(tiny_models: dict[str, Path]) -> EmbeddedEngine:
    return engine_of(load_model(tiny_config(tiny_models["qwen3"])), ENDS)


@pytest.mark.parametrize(("max_rows", "max_tokens"), [(2, None), (7, None), (512, 120), (5, 300)])
def test_text(engine: EmbeddedEngine, max_rows: int, max_tokens: int | None) -> None:
    engine.max_rows, engine.max_tokens = max_rows, max_tokens
    check_like_one_at_a_time(engine, prompts(14, longest=30), Sampling(n=2, max_new_tokens=24, seed=2))


@pytest.mark.parametrize("family", sorted(WINDOWED))
def test_windows_are_counted_from_where_a_row_begins(family: str, tmp_path: Path) -> None:
    engine = engine_of(load_model(tiny_config(make_windowed(family, tmp_path))), ENDS, max_rows=6)
    check_like_one_at_a_time(engine, prompts(8, longest=30), Sampling(n=2, max_new_tokens=20, seed=1))


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_prompts_with_images(family: str, tmp_path: Path) -> None:
    backend = open_backend(tiny_config(make_vlm(family, tmp_path), engine={"max_rows": 4}))
    assert isinstance(backend.engine, EmbeddedEngine)
    backend.engine.eos = torch.tensor(range(0, 200, 6))
    problems = [
        Problem(f"p-{i}", "what is it? " * (1 + i % 3), "1", images=(draw_image(i, 40 + 8 * i, 40),) if i % 3 else ())
        for i in range(5)
    ]
    asked = [backend.chat.encode(problem) for problem in problems]
    check_like_one_at_a_time(backend.engine, asked, Sampling(n=2, max_new_tokens=8, seed=3))


@pytest.mark.parametrize("stop", [(), ("a",)])
def test_stop_strings_of_rows_of_other_ages(engine: EmbeddedEngine, stop: tuple[str, ...]) -> None:
    engine.max_rows, engine.max_tokens = 4, None
    asked = [Prompt("", p.token_ids, stop) for p in prompts(9)]
    check_like_one_at_a_time(engine, asked, Sampling(n=2, max_new_tokens=24, seed=2))


@pytest.mark.parametrize("max_tokens", [54, 108, 200, 500])
def test_the_cache_never_holds_more_positions_than_max_tokens(
    engine: EmbeddedEngine, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.max_rows, engine.max_tokens = 512, max_tokens
    held: list[int] = []
    update = cache_module.RolloutLayer.update

    def counted(layer: cache_module.RolloutLayer, *args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = update(layer, *args)
        held.append(layer.keys.shape[0] * layer.keys.shape[2])
        return found

    monkeypatch.setattr(cache_module.RolloutLayer, "update", counted)
    found = engine.generate(prompts(20, longest=30), Sampling(n=3, max_new_tokens=24, seed=0))
    assert all(completion.token_ids for completions in found for completion in completions)
    assert max(held) <= max_tokens
    assert max(held) > max_tokens / 2, "what is allowed should be used"


def test_one_response_that_could_not_fit_is_refused_in_one_line(engine: EmbeddedEngine) -> None:
    engine.max_rows, engine.max_tokens = 512, 30
    with pytest.raises(UserError, match=r"^engine\.max_tokens is 30, .* may need 36 positions; raise it, or lower"):
        engine.generate(prompts(14), Sampling(max_new_tokens=24))


@given(
    lengths=st.lists(st.integers(1, 40), max_size=12), n=st.integers(1, 5), max_rows=st.integers(1, 12),
    spare=st.none() | st.integers(0, 200), patience=st.integers(0, 3), data=st.data(),
)  # fmt: skip
def test_every_row_enters_once_and_the_bounds_hold(
    lengths: list[int], n: int, max_rows: int, spare: int | None, patience: int, data: st.DataObject
) -> None:
    max_tokens = None if spare is None else max(lengths, default=1) + spare
    waiting = Waiting(range(len(lengths)), lengths, n, max_rows, max_tokens, patience)
    entered: list[tuple[int, int]] = []
    live: list[int] = []
    while waiting.left or live:
        entry = waiting.enter(len(live), max((lengths[p] for p in live), default=0))
        entered += [(prompt, row) for prompt in entry.prompts for row in entry.rows]
        live += [prompt for prompt in entry.prompts for _ in entry.rows]
        assert live, "something must go on"
        assert len(live) <= max(n, max_rows)
        assert max_tokens is None or len(live) * max(lengths[p] for p in live) <= max_tokens
        for _ in range(data.draw(st.integers(1, len(live)))):
            live.pop()
    assert entered == [(prompt, row) for prompt in range(len(lengths)) for row in range(n)]


def test_few_prompts_wait_a_while_beside_many_rows_and_no_longer() -> None:
    waiting = Waiting((), (), 1, 512, None, patience=4)
    waiting.add(0, 50, 1)
    found = [waiting.enter(64, 50).prompts for _ in range(5)]
    assert found == [[], [], [], [], [0]]
    for number in range(1, 9):
        waiting.add(number, 50, 1)
    assert waiting.enter(64, 50).prompts == list(range(1, 9)), "enough of them enter at once"
    waiting.add(9, 50, 1)
    assert waiting.enter(64, 50).prompts == []
    assert waiting.enter(0, 0).prompts == [9], "beside no rows there is nothing to wait for"


def test_rows_stay_full_while_prompts_wait(engine: EmbeddedEngine) -> None:
    """Of a batch after the other, the last rows decode nearly alone."""
    engine.max_rows, engine.max_tokens = 16, None
    calls: list[tuple[int, int]] = []
    hook = engine.loaded.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    asked = [prompt_of(3 + i % (VOCABULARY - 3), 7, 9) for i in range(60)]
    engine.generate(asked, Sampling(n=2, max_new_tokens=64, seed=0))
    hook.remove()
    decoding = [rows for rows, width in calls if width == 1]
    assert max(decoding) <= 16
    before_the_last = decoding[: len(decoding) * 2 // 3]
    assert sum(before_the_last) / len(before_the_last) > 12
