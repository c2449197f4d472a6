"""The doctor: it looks, it tries, and what it says follows from what it found."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from running import complaints, spark_rl_process
from spark_rl import doctor
from spark_rl.doctor import BYTES_PER_WEIGHT, Finding, examine_machine


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
    monkeypatch.setattr(doctor, "_total_memory", lambda: 20 * 10**9)
    said = next(finding for finding in examine_machine() if finding.what == "largest model")
    expected = {name: 0.8 * 20 / cost for name, cost in BYTES_PER_WEIGHT.items()}
    assert f"{expected['train']:.1f} B full" in said.found
    assert f"{expected['lora']:.1f} B with adapters" in said.found
    assert f"{expected['infer']:.1f} B to solve" in said.found
    assert said.found != findings["largest model"].found


def test_the_embedded_base_is_loaded_and_counted(findings: dict[str, Finding]) -> None:
    assert findings["embedded base"].level == "ok"
    assert findings["embedded base"].found == "0.81 M weights"


def test_missing_bases_name_their_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "EMBEDDED", dict.fromkeys(doctor.EMBEDDED, tmp_path))
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
