"""Processes that die while a checkpoint is being written, several at once, and verifiers that die."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from same import Disk, check_same, kill, logged, settings

from spark_rl.cluster import learners
from spark_rl.cluster.session import Cluster
from spark_rl.cluster.verifiers import BATCH, RayVerifier
from spark_rl.config import VerifyConfig
from spark_rl.manifest import damage_of
from spark_rl.run import Run
from spark_rl.runs import checkpoints
from spark_rl.verify import Verifier

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")


def check_saved(run_dir: Path, alone: Path, steps: Sequence[int]) -> None:
    """These checkpoints and no other, those of both runs with the same weights."""
    saved = checkpoints(run_dir)
    assert [path.name for path in saved] == [f"step-{step:06d}" for step in steps]
    assert not list((run_dir / "checkpoints").glob(".*"))
    for path in saved:
        assert damage_of(path) is None
        if (other := alone / "checkpoints" / path.name).exists():
            expected = load_file(other / "model" / "model.safetensors")
            for name, tensor in load_file(path / "model" / "model.safetensors").items():
                assert tensor.allclose(expected[name], atol=1e-5), (path.name, name)


def test_several_die_at_once_while_checkpoints_are_written(
    alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of three learners and the engine during an update, and then all learners while the run only waits."""
    config = settings(tmp_path / "run", "cluster.learners=3", "cluster.engines=1", "train.save_every=1", "train.keep=9")
    with Run(config) as run:
        learner: Any = run.learner
        engine: Any = run.backend.engine
        Disk(learner, [2, 3])
        update, killed = learner.update, []

        def updated(*arguments: Any) -> Any:
            if run.progress.step == 2 and not killed:
                killed.append(True)
                assert run.saver.collect(wait=False) is None, "training goes on while a checkpoint is written"
                kill(*learner._workers[1:], *engine._workers)
            return update(*arguments)

        def wait_and_kill() -> None:
            while run.progress.step < 4:
                time.sleep(0.05)
            time.sleep(1.0)  # now the checkpoint of the fourth step waits for that of the third
            kill(*learner._workers)

        learner.update = updated
        thread = threading.Thread(target=wait_and_kill)
        thread.start()
        summary = run.train()
        thread.join()
    assert "learner 2 and 3 of 3 died" in caplog.text
    assert "learner 1 and 2 and 3 of 3 died" in caplog.text
    assert [record.get("restarts/learner", 0) for record in logged(tmp_path / "run")] == [0, 0, 2, 0]
    assert summary["restarts"] == {"learner": 5, "engine": 1, "verifier": 0}
    check_same(tmp_path / "run", alone)
    check_saved(tmp_path / "run", alone, [1, 2, 3, 4])


def test_a_rank_without_memory_makes_all_go_on_in_smaller_micro_batches(
    alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two has none for more than four responses at a time, from the third update on."""
    monkeypatch.setattr(learners, "LEAST", 16)  # these responses are short
    with Run(settings(tmp_path / "run", "cluster.learners=2", "learner.micro_tokens=256")) as run:
        learner: Any = run.learner
        made = learner._make

        def make(weights: Path | None) -> Any:
            import torch
            import torch.distributed as dist

            from spark_rl.model.score import Scorer

            found, forward = made(weights), Scorer.forward

            def limited(self: Any, rows: Any) -> Any:
                if dist.get_rank() == 1 and found.updates >= 2 and len(rows.mask_BT) > 4:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return forward(self, rows)

            Scorer.forward = limited  # type: ignore[method-assign]
            return found

        learner._make = make
        learner._open()
        run.train()
        assert 16 <= learner.micro_tokens < 256
        assert f"all are started again with learner.micro_tokens={learner.micro_tokens}" in caplog.text
        smaller = [record.get("micro_tokens") for record in logged(tmp_path / "run")]
        assert smaller[-1] == learner.micro_tokens
    check_same(tmp_path / "run", alone)


def test_verifiers_say_what_one_says_and_are_started_again(tmp_path: Path) -> None:
    config = VerifyConfig(workers=1)
    items = [(rf"\boxed{{{n}}}", str(n % 3), "math", ()) for n in range(9)]
    items += [(r"\boxed{\sqrt{12}}", r"2\sqrt{3}", "math", ()), (r"\boxed{B}", "B", "choice", ("1", "2"))] * 2
    items *= BATCH // len(items) + 1  # two batches, one for each
    with Verifier(config) as one:
        expected = one.verify_many(items)
        compared = one.compare_many([("math", "2", "2"), ("math", "2", "3")])
    cluster = Cluster(settings(tmp_path / "run", "cluster.engines=2"))
    with RayVerifier(cluster, config, [0, 1]) as several:
        assert several.verify_many(items) == expected
        assert several.verify_many([]) == []
        assert several.compare_many([("math", "2", "2"), ("math", "2", "3")]) == compared
        with pytest.raises(ValueError, match="unknown comparison"):
            several.compare_many([("nothing", "2", "2")])
        assert several.verify(*items[9]).status == "correct"
        workers = several.pids
        assert workers
        kill(*several._actors)
        assert several.verify_many(items) == expected
        assert cluster.restarts == {"verifier": 2}
        assert (several.kills, several.deaths) == (0, 0)
        workers += several.pids
    with pytest.raises(RuntimeError, match="closed"):
        several.verify_many(items)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers end with their verifier"
    cluster.close()
