"""Checkpoints of several ranks: resumed by as many, by others and by one process; killed at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from learner.ranks import on_ranks
from learner.test_sharded import apart, local, sharded
from spark_rl.checkpoint import Progress, Saver, load_checkpoint
from spark_rl.config import Config
from spark_rl.learner.policy import PolicyLearner
from spark_rl.model.load import load_model
from spark_rl.model.stream import write_model
from spark_rl.recycle import Pool
from spark_rl.runs import checkpoints
from tiny import random_groups, tiny_config

OPTIMISER = {"lr": 0.01, "eps": 0.01, "warmup": 3, "schedule": "constant"}
KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"model": {"dtype": "bfloat16"}},
    "adapters": {"model": {"lora": {"rank": 4, "alpha": 8.0}}},
}

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def weights(learner: PolicyLearner) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.weights().named()}


def go_on(learner: PolicyLearner, first: int = 1) -> dict[str, Tensor]:
    """Two more updates."""
    for n in range(first, first + 2):
        learner.update(random_groups(4, 4, seed=n, flat=(2,)))
    return weights(learner)


def saved_and_resumed(configs: dict[str, Config], folder: Path, old: Path) -> dict[str, list[dict[str, Tensor]]]:
    """Each kind saved while it trains on, then resumed: from its own checkpoint, and from that of one process."""
    found: dict[str, list[dict[str, Tensor]]] = {}
    for kind, config in configs.items():
        learner = sharded(config)
        learner.update(random_groups(4, 4, seed=0))
        path = folder / kind
        if dist.get_rank() == 0:
            path.mkdir(parents=True)
        dist.barrier()
        finish = learner.begin_save(path)
        through = go_on(learner)
        finish()
        dist.barrier()
        found[kind] = [through, *(resumed(config, each / kind) for each in (folder, old))]
        learner.export(folder / f"{kind}-export")
        check_the_broken_one_is_named(learner, dist.get_rank() == 1)
    return found


@torch.no_grad()
def check_the_broken_one_is_named(learner: PolicyLearner, here: bool) -> None:
    """A single NaN, of which one rank has the shard."""
    assert learner.not_finite() is None
    name, weight = next((name, p) for name, p in learner.loaded.model.named_parameters() if p.requires_grad)
    if here:
        own = weight.to_local() if isinstance(weight, DTensor) else weight
        own.view(-1)[-1] = float("nan")
    assert learner.not_finite() == name


def only_resumed(configs: dict[str, Config], folder: Path) -> dict[str, dict[str, Tensor]]:
    return {kind: resumed(config, folder / kind) for kind, config in configs.items()}


def resumed(config: Config, path: Path) -> dict[str, Tensor]:
    learner = sharded(config, path / "model")
    learner.load(path)
    assert learner.updates == 1
    return go_on(learner)


@pytest.fixture(scope="module")
def configs(tiny_models: dict[str, Path]) -> dict[str, Config]:
    return {kind: tiny_config(tiny_models["qwen2"], optimiser=OPTIMISER, **more) for kind, more in KINDS.items()}


def test_a_checkpoint_of_some_ranks_is_resumed_by_others_and_by_one(configs: dict[str, Config], tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    alone: dict[str, dict[str, Tensor]] = {}
    for kind, config in configs.items():
        learner = local(config)
        learner.update(random_groups(4, 4, seed=0))
        (old / kind).mkdir(parents=True)
        learner.save(old / kind)
        alone[kind] = go_on(learner)
    two = on_ranks(2, saved_and_resumed, tmp_path / "two", configs, new, old)
    three = on_ranks(3, only_resumed, tmp_path / "three", configs, new)
    for kind, config in configs.items():
        noise = 3e-2 if kind == "bfloat16" else 1e-6  # bfloat16 resolves 4e-3
        for rank in two:
            through, again, from_one = rank[kind]
            assert all(torch.equal(through[name], again[name]) for name in through), (kind, "not the same bits")
            assert apart(from_one, alone[kind]) < noise, kind
        for other in three:
            assert apart(other[kind], two[0][kind][0]) < noise / 3, kind
        one = local(config, new / kind / "model")
        one.load(new / kind)
        assert one.updates == 1
        assert apart(go_on(one), two[0][kind][0]) < noise, kind
        check_the_broken_one_is_named(one, here=True)
    for kind in ("float32", "bfloat16"):
        exported = AutoModelForCausalLM.from_pretrained(new / f"{kind}-export").state_dict()
        for name, tensor in two[0][kind][0].items():
            assert torch.equal(exported[name], tensor), name
        assert exported["lm_head.weight"] is not None
    adapted = load_model(configs["float32"], new / "adapters-export").causal_lm.state_dict()
    assert apart({n: adapted[n] for n in two[0]["adapters"][0]}, two[0]["adapters"][0]) < 1e-6


# --- in one rank, in this process -----------------------------------------------------------------------------------


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_a_model_is_written_file_by_file(configs: dict[str, Config], tmp_path: Path) -> None:
    learner = sharded(configs["float32"])
    write_model(learner.loaded, learner.weights(), tmp_path / "model", file_bytes=10_000)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    files = sorted({*index["weight_map"].values()})
    assert len(files) > 3
    assert sorted(p.name for p in (tmp_path / "model").glob("*.safetensors")) == files
    assert not list((tmp_path / "model").glob(".*"))
    again = weights(local(configs["float32"], tmp_path / "model"))
    assert apart(again, weights(learner)) == 0


@pytest.mark.usefixtures("one_rank")
def test_a_checkpoint_counts_when_it_is_whole(configs: dict[str, Config], tmp_path: Path) -> None:
    learner, saver, run = sharded(configs["float32"]), Saver(), tmp_path / "run"
    run.mkdir()
    told: list[Path | None] = []
    for step in (1, 2, 3):
        learner.update(random_groups(3, 4, seed=step))
        saver.save(run, learner, Pool(8), Progress(step), 2)
        learner.update(random_groups(3, 4, seed=9))
        told.append(saver.collect(wait=True))
    assert told == [run / "checkpoints" / f"step-{step:06d}" for step in (1, 2, 3)]
    assert [path.name for path in checkpoints(run)] == ["step-000002", "step-000003"]
    assert saver.collect(wait=True) is None
    assert local(configs["float32"], told[-1] / "model").updates == 0 if told[-1] else False


@pytest.mark.usefixtures("one_rank")
def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    configs: dict[str, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, saver = sharded(configs["float32"]), Saver()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    (tmp_path / "run").mkdir()
    monkeypatch.setattr("spark_rl.checkpoint.replace_folder", full)
    saver.save(tmp_path / "run", learner, Pool(8), Progress(1), 2)
    with pytest.raises(OSError, match="No space left"):
        saver.collect(wait=True)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def forever(folder: Path, config: Config) -> None:
    """Updates and checkpoints, until somebody ends it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    learner, saver = sharded(config), Saver()
    (folder / "run").mkdir()
    for step in range(1, 10_000):
        learner.update(random_groups(2, 4, seed=step))
        saver.collect(wait=True)
        saver.save(folder / "run", learner, Pool(8), Progress(step), 2)


def test_a_kill_at_any_moment_leaves_a_checkpoint(configs: dict[str, Config], tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=forever, args=(tmp_path, configs["bfloat16"]))
    process.start()
    while not any(path.name >= "step-000003" for path in whole(tmp_path)):
        assert process.is_alive()
        time.sleep(0.01)
    deadline = time.monotonic() + 5
    while not list((tmp_path / "run" / "checkpoints").glob(".*.partial")) and time.monotonic() < deadline:
        time.sleep(0.0005)  # most likely one is half written now
    process.kill()
    process.join()
    newest = whole(tmp_path)[-1]
    learner = local(configs["bfloat16"], newest / "model")
    _, progress = load_checkpoint(newest, learner, 8)
    assert learner.updates == progress.step == int(newest.name.removeprefix("step-"))


def whole(folder: Path) -> Sequence[Path]:
    return checkpoints(folder / "run") if (folder / "run").exists() else []
