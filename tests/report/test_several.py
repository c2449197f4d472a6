"""Runs beside each other on one page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from report.test_html import EVIL, SUMMARY, Page, make_run, record
from spark_rl.config import Config
from spark_rl.errors import UserError
from spark_rl.report.comparison import Estimate
from spark_rl.report.several import MOST, best, write_comparison


def run(folder: Path, policy: float, seed: int = 0, **more: Any) -> Path:
    after = {**SUMMARY["after"], "policy_accuracy": policy, "policy_accuracy_low": policy - 0.05,
             "policy_accuracy_high": policy + 0.05, "judge_constant_accuracy": 0.6}  # fmt: skip
    config = {**Config().model_dump(mode="json"), "seed": seed, **more}
    return make_run(folder, [record(step) for step in (1, 2)], summary={**SUMMARY, "after": after}, config=config)


def compared(tmp_path: Path, *runs: Path) -> tuple[str, Page]:
    path = write_comparison(runs, tmp_path / "out" / "page.html")
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_scores_settings_and_curves_stand_beside_each_other(tmp_path: Path) -> None:
    text, page = compared(tmp_path, run(tmp_path / "a", 0.4), run(tmp_path / "b", 0.7, seed=3))
    assert "<b>★ 70.0 ± 5.0</b>" in text
    assert "40.0 ± 5.0" in page.text
    assert "+45.0" in page.text, "since before training"
    settings = text.split('id="settings"')[1]
    assert re.findall(r"<code>(seed|rollout\.[a-z]+)</code>", settings) == ["seed"]
    assert "spark-rl train --config" in settings or "spark-rl train" in settings
    for title in ("Held-out: policy accuracy", "Held-out: judge accuracy on own answers", "Training reward: policy"):
        figure = next(one for one in text.split("<figure>") if f"<figcaption>{title}<" in one)
        assert {"line s0 thin", "line s1 thin"} <= set(re.findall(r'class="(line s\d thin)"', figure))
    assert page.count("script") == 0


def test_no_run_is_the_best_whose_interval_overlaps(tmp_path: Path) -> None:
    text, _ = compared(tmp_path, run(tmp_path / "a", 0.62), run(tmp_path / "b", 0.7))
    assert "★ 70" not in text
    clear = {"a": Estimate(0.1, (0.0, 0.2)), "b": Estimate(0.4, (0.3, 0.5))}
    assert (best(clear), best(clear, lower=True)) == ("b", "a")
    assert best({"a": Estimate(0.1), "b": Estimate(0.4, (0.3, 0.5))}) is None
    assert best({"a": Estimate(None), "b": Estimate(0.4, (0.3, 0.5))}) is None, "alone"


def test_runs_of_one_name_are_told_apart_and_unfinished_ones_are_said(tmp_path: Path) -> None:
    other = make_run(tmp_path / "y" / "run", [record(1)])
    _, page = compared(tmp_path, run(tmp_path / "x" / "run", 0.4), other)
    assert {"x/run", "y/run", "unfinished"} <= {text.strip() for text in page.texts}


def test_names_and_settings_are_escaped(tmp_path: Path) -> None:
    config = {"model": {"path": EVIL}, EVIL: EVIL}
    _, page = compared(tmp_path, run(tmp_path / "<b>a", 0.4, **config), run(tmp_path / "<i>c", 0.4))
    assert page.count("script") == page.count("img") == page.count("i") == 0
    assert "alert('x')" in page.text


def test_what_is_damaged_in_a_run_is_said_and_stands_on_the_page(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a", 0.4), run(tmp_path / "b", 0.7)]
    (runs[1] / "metrics.jsonl").write_bytes(b"\xff\x00\n[]\n")
    said: list[str] = []
    write_comparison(runs, tmp_path / "page.html", said.append)
    assert said[0].endswith("b/metrics.jsonl: 2 of 2 rows are damaged and left out (lines 1, 2)")
    assert "2 of 2 rows are damaged" in (tmp_path / "page.html").read_text()


def test_what_can_not_be_compared_is_one_line(tmp_path: Path) -> None:
    one = run(tmp_path / "a", 0.4)
    for runs, why in (
        ([one], "takes 2 to"), ([one] * (MOST + 1), "takes 2 to"), ([one, tmp_path / "a"], "is named twice"),
        ([one, tmp_path / "nowhere"], "is not a run directory"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=why):
            write_comparison(runs, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
