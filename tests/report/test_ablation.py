"""The page of an ablation: a table an arm, a line a run, and nothing in it that a name could smuggle in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.test_html import EVIL, EVIL_NAME, SUMMARY, Page, make_run
from spark_rl.config import Config
from spark_rl.errors import UserError
from spark_rl.report.ablation import ArmTable, ablation_curves_svg, trailing_mean, winners, write_ablation_report
from spark_rl.report.html import write_report

SVG = "{http://www.w3.org/2000/svg}"
TABLE = ArmTable(
    "heldout", "heldout problems", ("", "base", "policy-only", "spark"), (("policy", "1.0", "2.0", "3.5"),)
)


def rows(steps: int, level: float, keys: tuple[str, ...] = ("reward/policy",)) -> list[dict[str, Any]]:
    return [{"step": step, "seconds": 1.0, **dict.fromkeys(keys, level)} for step in range(1, steps + 1)]


def run(folder: Path, arm: str, seed: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    """A finished run on disk, and its summary."""
    run_dir = folder / f"{arm}-seed{seed}"
    config = {**Config().model_dump(mode="json"), "seed": seed, "run_dir": str(run_dir)}
    make_run(run_dir, records, summary=SUMMARY, config=config)
    return {**SUMMARY, "config": config}


def ablation(folder: Path) -> dict[str, list[dict[str, Any]]]:
    both = ("reward/policy", "reward/pairwise")
    return {
        "policy-only": [run(folder, "policy-only", seed, rows(8, 0.25)) for seed in (0, 1)],
        "spark": [run(folder, "spark", seed, rows(8, 0.5 + 0.125 * seed, both)) for seed in (0, 1)],
    }


def page(folder: Path, results: dict[str, list[dict[str, Any]]], *tables: ArmTable) -> tuple[str, Page]:
    path = write_ablation_report(folder, results, tables or (TABLE,))
    assert path == folder / "report.html"
    written = path.read_text(encoding="utf-8")
    return written, Page(written)


def lines(svg: str, tone: str) -> list[list[float]]:
    """The heights of every thin line of a colour."""
    found = re.findall(rf'class="line {tone} thin" d="M([^"]+)"', svg)
    return [[float(point.split()[1]) for point in line.split("L")] for line in found]


def test_the_page_holds_the_tables_and_a_line_a_run(tmp_path: Path) -> None:
    transfer = ArmTable("transfer", "transfer problems", TABLE.head, (("judge", "4.0", "5.0", "6.0 ± 0.5"),))
    written, read = page(tmp_path, ablation(tmp_path), TABLE, transfer)
    for fact in (
        "heldout problems",
        "transfer problems",
        "3.5",
        "6.0 ± 0.5",
        tmp_path.name,
        "0, 1",
        "mean of the last 5",
    ):
        assert fact in read.text, fact
    policy, pairwise = written.split("<figure>")[1:]
    assert "Reward: policy" in policy
    assert [len(lines(policy, tone)) for tone in ("s5", "s0")] == [2, 2]
    assert [len(lines(pairwise, tone)) for tone in ("s5", "s0")] == [0, 2]
    # 0.25, 0.5 and 0.625 on an axis from 0 (180) to 1 (26).
    assert lines(policy, "s5") == [[141.5] * 8] * 2
    assert lines(policy, "s0") == [[103.0] * 8, [83.8] * 8]
    assert "policy-only <b>0.25 → 0.25</b>" in policy
    assert "spark <b>0.56 → 0.56</b>" in policy
    assert "policy-only" not in pairwise, "an arm without the metric is not in the legend"
    assert "spark, seed 1" in pairwise


def test_it_is_one_file_that_asks_for_nothing_under_the_policy_of_the_other_report(tmp_path: Path) -> None:
    results = ablation(tmp_path)
    written, read = page(tmp_path, results)
    assert not re.search(r"https?://|url\(|@import", written)
    assert read.count("script") == read.count("iframe") == read.count("img") == 0
    targets = {attributes["href"] for tag, attributes in read.tags if tag == "a"}
    assert targets == {f"#{attributes['id']}" for _, attributes in read.tags if "id" in attributes}
    run_page = write_report(results["spark"][0]["config"]["run_dir"]).read_text(encoding="utf-8")
    heads = [re.findall("<meta .*>", one) for one in (written, run_page)]
    assert heads[0] == heads[1]


def test_lines_are_trailing_means_and_a_value_that_is_not_finite_a_cross(tmp_path: Path) -> None:
    values = [0.0, 1.0, None, 1.0, 0.0, 1.0, 0.0]
    records = [{"step": step, "reward/policy": value} for step, value in enumerate(values, start=1)]
    written, _ = page(tmp_path, {"spark": [run(tmp_path, "spark", 0, records)]})
    means = [0.0, 1 / 2, 2 / 3, 1 / 2, 3 / 5, 3 / 5]
    assert lines(written, "s0") == [[pytest.approx(180 - 154 * mean, abs=0.06) for mean in means]]
    assert written.count('class="cross"') == 1
    assert "without a finite value" in written


@given(st.lists(st.floats(-1e6, 1e6), max_size=20), st.integers(1, 6))
def test_trailing_means_look_back_only(values: list[float], window: int) -> None:
    means = trailing_mean(values, window)
    assert len(means) == len(values)
    for index, mean in enumerate(means):
        part = values[: index + 1][-window:]
        assert mean == pytest.approx(sum(part) / len(part), rel=1e-9, abs=1e-6)


def test_names_and_texts_are_escaped(tmp_path: Path) -> None:
    hostile = '<script>x<b onclick=1>&"'
    summary = run(tmp_path, hostile, 0, rows(6, 0.5))
    summary["config"]["model"]["path"] = EVIL
    summary["config"]["data"]["train"] = EVIL_NAME
    table = ArmTable("heldout", EVIL, ("", EVIL_NAME), ((EVIL, EVIL),))
    written, read = page(tmp_path, {hostile: [summary]}, table)
    assert read.count("script") == read.count("img") == read.count("b") - 1 == 0
    assert "alert('x')" in read.text
    picture = ablation_curves_svg(tmp_path)
    assert "<script" not in picture
    assert hostile in [text.text for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]  # noqa: S314 - ours
    assert written.count("<b onclick") == 0


def test_runs_without_steps_or_metrics_are_said(tmp_path: Path) -> None:
    results = {"spark": [run(tmp_path, "spark", 0, [])]}
    (tmp_path / "spark-seed0" / "metrics.jsonl").unlink()
    assert "No step is recorded" in page(tmp_path, results)[1].text
    (tmp_path / "spark-seed0" / "metrics.jsonl").write_text("{}\nnot json\n{}\n")
    assert "3 of 3 rows are damaged and left out (lines 1, 2, 3)" in page(tmp_path, results)[1].text


def test_long_runs_stay_small(tmp_path: Path) -> None:
    written, read = page(tmp_path, {"spark": [run(tmp_path, "spark", seed, rows(5_000, 0.5)) for seed in (0, 1)]})
    assert len(written) < 60_000
    assert "one step in 100" in read.text
    assert "5,000" in read.text


def test_the_picture_finds_the_runs_and_is_valid_alone(tmp_path: Path) -> None:
    ablation(tmp_path)
    run(tmp_path, "own", 0, rows(8, 1.0))
    (tmp_path / "spark-seedX").mkdir()
    (tmp_path / "spark-seedX" / "metrics.jsonl").write_text('{"step": 1, "reward/policy": 0}\n')
    picture = ablation_curves_svg(tmp_path)
    root = ElementTree.fromstring(picture)  # noqa: S314 - our own output
    assert [len(lines(picture, tone)) for tone in ("s5", "s0", "s3")] == [2, 4, 1]
    assert [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"] == [
        "policy-only", "spark", "own", "Reward: policy", "Reward: pairwise",
    ]  # fmt: skip
    panels = root.findall(f"{SVG}svg")
    assert [(one.get("x"), one.get("y")) for one in panels] == [("0", "60"), ("400", "60")]
    assert root.get("height") == "280"
    with pytest.raises(UserError, match="holds no runs of an ablation"):
        ablation_curves_svg(tmp_path / "spark-seed0")


def test_every_colour_of_the_picture_stands_out_from_white_and_from_near_black(tmp_path: Path) -> None:
    ablation(tmp_path)
    picture = ablation_curves_svg(tmp_path)
    style = picture[picture.index("<style>") : picture.index("</style>")]
    text = re.search(r"text \{ fill: (#\w{6})", style)
    assert text is not None
    assert min(contrast(text[1], "#ffffff"), contrast(text[1], "#0d1117")) > 4.1
    tones = re.findall(r"\.s\d \{ color: (#\w{6})", style)
    assert len(tones) == 6
    for tone in tones:
        assert min(contrast(tone, "#ffffff"), contrast(tone, "#0d1117")) > 3, tone


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2: 1 for equal colours, 21 for black on white."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_mean_line_an_arm_and_the_level_of_chance(tmp_path: Path) -> None:
    keys = ("reward/pointwise", "label/yes")
    results = {"spark": [run(tmp_path, "spark", seed, rows(8, 0.25 + 0.5 * seed, keys)) for seed in (0, 1)]}
    written, _ = page(tmp_path, results)
    [mean] = re.findall(r'class="line s0 mean" d="M([^"]+)"', written)
    assert [point.split()[1] for point in mean.split("L")] == ["103.0"] * 8, "between 0.25 and 0.75"
    assert written.count('class="line chance"') == 2, "the line and its sample"
    assert "chance <b>0.75</b>" in written, "the commoner label in both runs"


def test_a_winner_is_ahead_with_every_seed() -> None:
    def results(*shares: float) -> list[dict[str, Any]]:
        return [{"after": {"judge_accuracy": share}} for share in shares]

    clear = winners({"policy-only": results(0.5, 0.6), "spark": results(0.9, 0.7)})
    assert clear == ["Judging own answers: spark wins with every seed: 80.0, before policy-only with 55.0."]
    mixed = winners({"policy-only": results(0.5, 0.75), "spark": results(0.9, 0.7)})
    assert mixed == ["Judging own answers: no winner: spark 80.0 and policy-only 62.5 overlap between seeds."]
    assert "of one seed no winner is named" in winners({"a": results(0.5), "b": results(0.9)})[0]
    assert winners({"spark": results(0.5)}) == []
