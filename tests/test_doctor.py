"""The doctor: it looks, it tries, and what it says follows from what it found."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist

from running import complaints, spark_rl_process
from spark_rl.cli import main
from spark_rl.doctor import gpu, machine
from spark_rl.doctor.finding import Finding, judged
from spark_rl.doctor.gpu import PARTS, tried
from spark_rl.doctor.machine import BYTES_PER_WEIGHT, WORKING, examine_machine
from spark_rl.doctor.ranks import all_reduce, on_ranks, sharded_update
from spark_rl.doctor.sharded import sharded_learner


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    found = examine_machine()
    assert len({finding.what for finding in found}) == len(found)
    return {finding.what: finding for finding in found}


def test_every_line_says_something(findings: dict[str, Finding]) -> None:
    for finding in findings.values():
        assert finding.found
        assert finding.meaning
        assert "\n" not in finding.found + finding.meaning


def test_versions_are_those_installed(findings: dict[str, Finding]) -> None:
    assert findings["python"].found == platform.python_version()
    for name in ("torch", "transformers", "math-verify"):
        assert findings[name].found == version(name)


def test_the_machine_is_this_one(findings: dict[str, Finding]) -> None:
    assert findings["cores"].found == str(len(os.sched_getaffinity(0)))
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert findings["memory"].found == f"{gib:.1f} GiB"
    assert "TFLOP/s" in findings["matrix speed"].found


def test_the_largest_model_follows_from_the_memory(
    monkeypatch: pytest.MonkeyPatch, findings: dict[str, Finding]
) -> None:
    monkeypatch.setattr(machine, "_total_memory", lambda: 20 * 10**9)
    said = next(finding for finding in examine_machine() if finding.what == "largest model")
    expected = {name: (0.8 * 20 - WORKING / 1e9) / cost for name, cost in BYTES_PER_WEIGHT.items()}
    assert f"{expected['train']:.1f} B full" in said.found
    assert f"{expected['lora']:.1f} B with adapters" in said.found
    assert f"{expected['infer']:.1f} B to solve" in said.found
    assert said.found != findings["largest model"].found


def test_the_embedded_base_is_loaded_and_counted(findings: dict[str, Finding]) -> None:
    assert findings["embedded base"].level == "ok"
    assert findings["embedded base"].found == "0.81 M weights"


def test_missing_bases_name_their_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "EMBEDDED", dict.fromkeys(machine.EMBEDDED, tmp_path))
    said = {finding.what: finding for finding in examine_machine() if finding.what.endswith(" base")}
    assert {(finding.found, finding.level) for finding in said.values()} == {("missing", "missing")}
    assert "spark_rl.embedded.build makes" in said["embedded base"].meaning
    assert "spark_rl.embedded.build_vision makes" in said["embedded-vl base"].meaning


def test_torchvision_is_not_needed(findings: dict[str, Finding]) -> None:
    assert (findings["torchvision"].found == "not installed") == (find_spec("torchvision") is None)
    assert "not needed" in findings["torchvision"].meaning
    assert findings["torchvision"].level == "ok"


def test_the_command_prints_and_writes_what_was_found(tmp_path: Path) -> None:
    done = spark_rl_process("doctor", "--json", "facts.json", cwd=tmp_path)
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["python"] == platform.python_version()
    assert all(what in done.stdout for what in facts)


def test_gpu_parts_run_on_a_cpu_where_they_can() -> None:
    """Those with processes of their own have tests of their own below."""
    parts = {
        name: part
        for name, part in PARTS.items()
        if name not in {"all-reduce", "FSDP2", "sharded learner", "training", "vLLM"}
    }
    cpu = torch.device("cpu")
    found = {finding.what: finding for name, part in parts.items() for finding in tried(name, part, cpu)}
    assert len(found) >= len(parts)
    assert {finding.level for finding in found.values()} == {"ok", "note"}
    assert all(finding.found == "not here" and finding.meaning for finding in found.values() if finding.level == "note")
    for what in ("float32 log-probs", "bfloat16 gradients", "float32 matrices", "small weights: update"):
        assert found[what].level == "ok"
    assert "moved 50 of 50" in found["bfloat16 gradients"].meaning  # the float32 copies, whatever bfloat16 can hold
    assert found["twice the same"].found == "the same tokens, the same bits"
    assert found["cards"].found == "not here"
    assert "pip install" in found["flash attention"].meaning


def test_a_part_that_raises_is_a_finding() -> None:
    def broken(device: torch.device) -> list[Finding]:
        raise RuntimeError(f"no kernel image\nis available for {device}")

    (found,) = tried("broken", broken, torch.device("cpu"))
    assert (found.what, found.found, found.level) == ("broken", "failed", "wrong")
    assert found.meaning == "RuntimeError: no kernel image is available for cpu"


def test_wrong_numbers_are_called_wrong() -> None:
    assert judged("x", "1", "2", right=False).level == "wrong"
    assert judged("x", "1", "2", right=True).level == "ok"


def test_two_ranks_reduce_and_shard() -> None:
    cpu = torch.device("cpu")
    (reduced,), (sharded,) = all_reduce(cpu), sharded_update(cpu)
    assert (reduced.level, sharded.level) == ("ok", "ok"), (reduced, sharded)
    assert "2 ranks" in reduced.found
    assert "2 ranks" in sharded.found


def test_the_sharded_learner_of_two_ranks_is_that_of_one_device() -> None:
    found = sharded_learner(torch.device("cpu"))
    assert [finding.level for finding in found] == ["ok", "ok"], found
    assert "2 ranks (gloo)" in found[0].found


def test_ranks_that_fail_or_hang_are_told() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(RuntimeError, match="rank 1: ValueError: not of this rank"):
        on_ranks(_fails, 2, cpu)
    with pytest.raises(RuntimeError, match=r"ranks \[0\] of 1 had not ended after 8 s"):
        on_ranks(_hangs, 1, cpu, limit=8.0)


def _fails(_: torch.device) -> dict[str, float]:
    if dist.get_rank() == 1:
        raise ValueError("not of this rank")
    return {}


def _hangs(_: torch.device) -> dict[str, float]:
    time.sleep(60)
    return {}


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("wrong", 1)])
def test_the_exit_code_says_whether_something_was_wrong(
    level: Literal["ok", "note", "wrong"], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The parts themselves take a minute here; which of them is wrong makes no difference."""
    monkeypatch.setattr(gpu, "PARTS", {"a": lambda _: [Finding("a", "b", "c", level)]})
    assert main(["doctor", "--gpu", "--json", str(tmp_path / "facts.json")]) == code
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts == {"a": {"found": "b", "meaning": "c", "level": level}}
