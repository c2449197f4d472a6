"""Memory that is not enough, by a limit that the test sets: the work is done in smaller parts, to the same result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from running import small
from spark_rl.engine import graphs
from spark_rl.engine.base import Sampling
from spark_rl.errors import UserError
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.model.memory import is_out_of_memory
from spark_rl.model.score import Rows, Scorer
from spark_rl.run import train
from tiny import engine_of, learner_of, prompts, random_groups, tiny_config

SAMPLING = Sampling(n=4, temperature=1.0, max_new_tokens=12, seed=4)


def limit_responses(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let no forward pass with more responses than ``most`` have memory; returns how many each asked for."""
    forward, asked = Scorer.forward, list[int]()

    def limited(self: Scorer, rows: Rows) -> torch.Tensor:
        asked.append(len(rows.mask_BT))
        if asked[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, rows)

    monkeypatch.setattr(Scorer, "forward", limited)
    return asked


def same(one: LocalLearner, other: LocalLearner) -> bool:
    pairs = zip(one.masters, other.masters, strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_update_goes_on_in_smaller_micro_batches(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dtype: str,
    epochs: int,
) -> None:  # fmt: skip
    sections: dict[str, Any] = {"model": {"dtype": dtype}, "optimiser": {"lr": 0.01}}
    groups = random_groups(4, 4)
    learner = learner_of(tiny_models["llama"], **sections, learner={"micro_tokens": 4096, "epochs": epochs})
    asked = limit_responses(monkeypatch, 6)
    metrics = learner.update(groups)
    assert max(asked) > 6, "the limit was felt"
    fits = learner.micro_tokens
    assert metrics["micro_tokens"] == fits < 4096
    assert f"out of memory in the update; goes on with learner.micro_tokens={fits}" in caplog.text
    asked.clear()
    learner.update(groups)
    assert max(asked) <= 6, "what was learned is kept"
    there = learner_of(tiny_models["llama"], **sections, learner={"micro_tokens": fits, "epochs": epochs})
    there.update(groups)
    there.update(groups)
    assert same(learner, there), "bit for bit as if the setting had been so"
    assert "micro_tokens" not in there.update(groups)


def test_an_update_that_never_fits_is_an_error_that_changes_nothing(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, there = (learner_of(tiny_models["llama"], optimiser={"lr": 0.01}) for _ in range(2))
    limit_responses(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        learner.update(random_groups(4, 4))
    assert same(learner, there)


def limit_rows(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let the engine have no memory for more rows than ``most``, wherever it first decodes them."""
    extend = graphs.extend

    def limited(loaded: Any, last_R: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(last_R) > most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory")
        return extend(loaded, last_R, *rest)

    monkeypatch.setattr(graphs, "extend", limited)


@pytest.mark.parametrize("most", [4, 9, 17])
def test_an_engine_goes_on_with_fewer_rows(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, most: int
) -> None:
    loaded = load_model(tiny_config(tiny_models["llama"]))
    asked = prompts(9)
    expected = engine_of(loaded).generate(asked, SAMPLING)
    limit_rows(monkeypatch, most)
    engine = engine_of(loaded)
    found = engine.generate(asked, SAMPLING)
    assert [[c.token_ids for c in group] for group in found] == [[c.token_ids for c in group] for group in expected]
    assert engine.max_rows <= most
    assert f"goes on with {engine.max_rows} (engine.max_rows)" in caplog.text
    arrived = [place for place, _ in engine.arriving(asked, SAMPLING)]
    assert sorted(arrived) == list(range(9)), "each prompt once"


def test_an_engine_for_which_one_prompt_is_too_much_says_so(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, 3)
    engine = engine_of(load_model(tiny_config(tiny_models["llama"])))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        engine.generate(prompts(9), SAMPLING)


def test_a_run_without_enough_memory_is_one_line_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.steps=3", "train.save_every=1")
    train(small(tmp_path / "undisturbed", *settings))
    update, done = LocalLearner.update, list[int]()

    def limited(self: LocalLearner, groups: Sequence[Any], span: Any = None) -> dict[str, float]:
        done.append(1)
        if len(done) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")
        return update(self, groups, span)

    config = small(tmp_path / "run", *settings)
    with monkeypatch.context() as patch:
        patch.setattr(LocalLearner, "update", limited)
        with pytest.raises(UserError, match=r"^out of memory at step \d \(CUDA out of memory. Tried .*--resume$"):
            train(config)
    train(config, resume=True)
    names = "model/model.safetensors"
    assert (tmp_path / "run" / names).read_bytes() == (tmp_path / "undisturbed" / names).read_bytes()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), True), (torch.OutOfMemoryError("x"), True), (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shape mismatch"), False), (ValueError("out of memory"), False), (OSError(12, "x"), False),
    ],
)  # fmt: skip
def test_what_is_out_of_memory(error: Exception, told: bool) -> None:
    assert is_out_of_memory(error) is told


def test_what_torch_says_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
