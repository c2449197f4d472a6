"""``spark-rl claims`` as a user runs it: killed, continued, and its tables."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from running import ENVIRONMENT, SMALL, command, spark_rl_process
from spark_rl.evals.outcomes import read_outcomes
from spark_rl.lock import holder

SETTINGS = (
    "--config", "tiny", "--models", "embedded", "--seeds", "0", *SMALL, "data.heldout=procedural:missing",
    "data.transfer=procedural:operators", "train.steps=3", "inference.rounds=1",
)  # fmt: skip


@pytest.mark.timeout(600)  # eight processes import torch
def test_claims_are_run_killed_continued_and_decided(tmp_path: Path) -> None:
    own = ("--arm", "answers", "recycle.form=answer recycle.per_group=2")
    line = command("claims", "judge", "transfer", *own, "--run-dir", "c", "--json", "facts.json", *SETTINGS)
    first = tmp_path / "c" / "embedded" / "spark-seed0"
    with subprocess.Popen(
        line, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + 200
        while not (first / "before.json").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    while holder(first) is not None:
        assert time.monotonic() < until, "the run goes on without whoever started it"
        time.sleep(0.02)
    assert not (first / "summary.json").exists()
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    runs = {path.parent.name for path in tmp_path.glob("c/embedded/*/summary.json")}
    assert runs == {"spark-seed0", "policy-only-seed0", "policy-only-tokens-seed0", "answers-tokens-seed0"}
    spark, equal, answers = (json.loads((first.parent / f"{name}-seed0" / "summary.json").read_text())
                             for name in ("spark", "policy-only-tokens", "answers-tokens"))  # fmt: skip
    assert equal["config"]["train"]["tokens"] == spark["tokens"] <= equal["tokens"]
    assert answers["config"]["train"]["tokens"] == spark["tokens"] <= answers["tokens"]
    assert (answers["config"]["recycle"]["form"], answers["config"]["recycle"]["per_group"]) == ("answer", 2)
    assert sorted(read_outcomes(first)["heldout"]) == [0, 1, 2, 3], "a curve"

    facts = json.loads((tmp_path / "facts.json").read_text())
    assert [claim["name"] for claim in facts["claims"]] == ["judge", "transfer", "answers"]
    assert facts["arms"] == {"answers": ["recycle.form=answer", "recycle.per_group=2"]}
    tried = facts["claims"][2]["comparisons"]
    assert {(one["than"], one["at_equal"]) for one in tried} == {("spark", "tokens"), ("policy-only", "tokens")}
    against = next(one for one in tried if (one["measure"], one["than"], one["exam"]) == ("policy", "spark", "heldout"))
    gain = answers["after"]["policy_accuracy"] - spark["after"]["policy_accuracy"]
    assert abs(against["effect"] - gain) < 1e-9
    shown = facts["claims"][0]["comparisons"]
    judge = next(one for one in shown if one["measure"] == "judge" and one["than"] == "base")
    gain = spark["after"]["judge_accuracy"] - spark["before"]["judge_accuracy"]
    assert abs(judge["effect"] - gain) < 1e-9
    assert (judge["bases"], judge["runs"], judge["problems"]) == (1, 1, 8)
    assert judge["low"] <= judge["effect"] <= judge["high"]
    table = (tmp_path / "c" / "claims.md").read_text()
    assert "| **judge** (Sec. 3.2, 4.2, Tables 1-3) | The judge improves without any judge data. |" in table
    assert "| | judge: spark − policy-only | tokens | " in table
    page = (tmp_path / "c" / "report.html").read_text()
    assert "policy-only at equal tokens" in page
    assert "tokens generated" in page
    assert "<script" not in page

    other = command("claims", "judge", "--run-dir", "c", "--json", "other.json", *SETTINGS, "optimiser.lr=1")
    done = subprocess.run(
        other, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 2
    assert "3 of 3 runs failed, embedded, " in done.stderr
    assert done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "other.json").read_text())["claims"][0]["decision"] == "NOT RUN"


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    asked = {
        ("claims", "jugde"): "unknown claim 'jugde'; did you mean judge?",
        ("claims", "judge", "--seeds", "x"): "--seeds 'x' is not a list of whole numbers",
        ("claims", "--models", "embedded", "data.heldout=null"): "nothing to compare; set data.heldout",
        ("claims", "--models", "nowhere/model"): "nowhere/model",
        ("claims",): "there is no bases/shared-0; `make bases` makes it, or name other bases with --models",
        ("claims", "--arm", "spark", "recycle.per_group=2"): "a claim or an arm of that name",
        ("claims", "--arm", "../up", "recycle.per_group=2"): "lower-case letters",
        ("claims", "--arm", "mine", "recycle.per_group 2"): "'recycle.per_group' is no setting",
        ("claims", "--arm", "mine", " "): "there are no settings",
        ("claims", "--arm", "mine", "recycle.per_grop=2"): "per_grop",
    }
    for arguments, line in asked.items():
        done = spark_rl_process(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert line in done.stderr
        assert done.stderr.count("\n") == 1
    listed = spark_rl_process("claims", "--list", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "selfjudge" in listed.stdout
    assert not list(tmp_path.iterdir())
