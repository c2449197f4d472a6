"""Result files as tables: columns and averages of the paper, one protocol a sheet, marks, differences, formats."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spark_rl.errors import UserError
from spark_rl.evals.ask.exam import exam_of_problems
from spark_rl.evals.ask.results import Cell, Model, Result, read_results
from spark_rl.evals.paper.formats import FORMATS, csv_text, latex, legend, markdown, terminal, write
from spark_rl.evals.paper.published import TABLES
from spark_rl.evals.paper.tables import PUBLISHED, Line, Sheet, judge_sheet, lay_out
from spark_rl.evals.score.totals import results as totals

from .lookup import table

VLM = ("mathvista", "mathvision", "wemath", "mathverse", "dynamath", "logicvista", "mmk12")
LLM = ("aime24", "aime25", "amc23", "gsm8k", "math500", "mmlu_stem")


def scored(score: float, n: int = 100, **more: Any) -> dict[str, Any]:
    return {"score": score, "n": n, "low": score - 0.05, "high": score + 0.05, **more}


def saved(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def model(label: str, *results: tuple[str, str, float], tts: str = "off", **cell: Any) -> Model:
    return Model(
        label, tuple(Result(name, protocol, tts, Cell(score, 100, **cell), {}) for name, protocol, score in results)
    )


def vlm(label: str, protocol: str = "reference", **more: Any) -> Model:
    return model(label, *((name, protocol, 0.1 * (place + 1)) for place, name in enumerate(VLM)), **more)


def reward() -> tuple[Result, ...]:
    return (
        Result("rewardbench2", "official", "off", Cell(0.6, 9, whole=None), {"subset/math": Cell(0.4)}),
        Result("vl_rewardbench", "official", "off", Cell(0.5, 9), {"group/reasoning": Cell(0.3)}),
        Result("vl_rewardbench", "rule", "off", Cell(0.1, 9), {"group/reasoning": Cell(0.1)}),
    )


def titles(sheet: Sheet) -> list[str]:
    return [head.title for head in sheet.heads]


def line(sheet: Sheet, label: str) -> Line:
    (found,) = (one for one in sheet.lines if one.model == label)
    return found


def number(sheet: Sheet, label: str, title: str) -> float | None:
    cell = line(sheet, label).cells[titles(sheet).index(title)]
    return None if cell is None else round(cell.score, 6)


def shown(sheet: Sheet, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*terminal(sheet, width))
    return console.export_text()


# Reading


def test_a_result_file_is_read_whole(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", {
        "math500": {
            "reference": scored(0.5, 60, of=500, units=30, breakdown={"subject/algebra": 0.25}),
            "rule+tts": scored(0.7, 60, samples=8),
            "judge": {"recall": scored(0.9), "calibration": {"ece": 0.1}},
            "about": {"skipped": 0},
        },
        "gsm8k": {"rule": {"score": 1, "n": 1319, "low": 0.9, "high": 1, "of": 1319, "tts": 2,
                           "breakdown": {"hard": {"score": 0.5, "n": 3}}}},
        "aime24": {"rule": {"score": None, "n": 0, "low": 0.0, "high": 1.0}},
    })  # fmt: skip
    (found,) = read_results([f"Ours={path}"])
    algebra = Cell(0.25, whole=False)
    assert found.label == "Ours"
    assert found.results == (
        Result("math500", "reference", "off", Cell(0.5, 60, 0.45, 0.55, False), {"subject/algebra": algebra}),
        Result("math500", "rule", "on", Cell(0.7, 60, pytest.approx(0.65), 0.75, None, 8), {}),
        Result("gsm8k", "rule", "2", Cell(1.0, 1319, 0.9, 1.0, True), {"hard": Cell(0.5, 3)}),
    )  # fmt: skip
    assert found.judging == {"math500": {"recall": Cell(0.9, 100, pytest.approx(0.85), pytest.approx(0.95), False)}}


def test_labels_and_folders(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    one = saved(tmp_path / "run" / "results.json", {"gsm8k": {"rule": scored(0.5)}})
    two = saved(tmp_path / "b=c.json", {"math500": {"rule": scored(0.5)}})
    assert [m.label for m in read_results([str(tmp_path / "run"), str(two), f"x={one}", str(one)])] == [
        "run", "b=c", "x", "results",
    ]  # fmt: skip
    (merged,) = read_results([f"x={one}", f"x={two}"])
    assert [r.benchmark for r in merged.results] == ["gsm8k", "math500"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "holds no results"),
        ("[]", "holds no results"),
        ("{}", "holds no results"),
        ('{"gsm8k": 3}', "holds no results"),
        ('{"gsm8k": {"rule": {"score": NaN}}}', "holds no results"),
        ('{"gsm8k": {"about": {"score": 1}}}', "holds no results"),
    ],
)
def test_other_files_are_errors(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_results([str(path)])


def test_missing_files_empty_labels_and_repeated_numbers_are_errors(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", {"gsm8k": {"rule": scored(0.5)}})
    with pytest.raises(UserError, match="cannot read"):
        read_results([str(tmp_path / "none.json")])
    with pytest.raises(UserError, match="empty label"):
        read_results([f" ={path}"])
    with pytest.raises(UserError, match="already has gsm8k by rule"):
        read_results([f"x={path}", f"x={path}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no results\.json"):
        read_results([str(tmp_path / "empty")])


def test_what_the_runner_adds_up_is_a_result_file(tmp_path: Path) -> None:
    exam = exam_of_problems("mine", [])
    with pytest.raises(UserError, match="holds no results"):
        read_results([str(saved(tmp_path / "a.json", {"mine": totals(exam, [])}))])


# Laying out


def test_columns_and_averages_are_the_papers() -> None:
    (sheet,) = lay_out([Model("m", vlm("m").results + reward()[:2])])
    assert (sheet.number, sheet.protocol) == (1, "reference")
    assert titles(sheet) == [
        "MathVista", "MathVision", "WeMath", "MathVerse", "DynaMath", "LogicVista", "MMK12",
        "RB2", "RB2-Math", "VL-RB", "VL-RB-Math", "Avg-M", "Avg-R", "Avg-All",
    ]  # fmt: skip
    assert number(sheet, "m", "MathVerse") == 0.4
    assert number(sheet, "m", "RB2-Math") == 0.4
    assert number(sheet, "m", "Avg-M") == 0.4
    assert number(sheet, "m", "Avg-R") == 0.45
    assert number(sheet, "m", "Avg-All") == round((2.8 + 1.8) / 11, 6)


def test_our_averages_of_the_papers_rows_are_the_papers() -> None:
    """The published rows, measured as it were, give the published averages (but for the one that is odd)."""
    for paper in TABLES:
        by = paper.protocols[0]
        for row in paper.rows:
            results: dict[str, Result] = {}
            for column, score in zip(paper.columns, row.scores, strict=True):
                if score is not None:
                    used = column.instead.get(by, by).replace("any judge", "judged-by-x")
                    headline = results[column.benchmark].cell if column.part else Cell(score / 100)
                    parts = {column.part: Cell(score / 100)} if column.part else {}
                    results[column.benchmark] = Result(column.benchmark, used, "off", headline, parts)
            (sheet,) = lay_out([Model("m", tuple(results.values()))], tables=[paper.number], protocol=by)
            found = [None if cell is None else 100 * cell.score for cell in sheet.lines[0].cells]
            for mine, printed in zip(found, row.scores + row.averages, strict=True):
                assert (mine is None) == (printed is None)
                assert mine is None or mine == pytest.approx(printed, abs=0.072)


def test_an_average_is_missing_where_a_member_is() -> None:
    (sheet,) = lay_out([model("m", *((name, "reference", 0.5) for name in VLM[:-1]))])
    assert number(sheet, "m", "Avg-M") is None
    assert number(sheet, "m", "MMK12") is None


def test_protocols_never_share_a_sheet() -> None:
    both = Model("m", vlm("m").results + vlm("m", "rule").results)
    sheets = lay_out([both, vlm("only rule", "rule")])
    assert [sheet.protocol for sheet in sheets] == ["reference", "rule"]
    assert [one.model for one in sheets[0].lines] == ["m"]
    assert [one.model for one in sheets[1].lines] == ["m", "only rule"]
    assert [sheet.protocol for sheet in lay_out([both], protocol="rule")] == ["rule"]


def test_reward_sets_stand_in_by_their_official_scorer_and_the_head_says_so() -> None:
    sheets = lay_out([Model("m", vlm("m").results + vlm("m", "rule").results + reward())])
    assert [sheet.protocol for sheet in sheets] == ["reference", "rule"]
    assert [head.protocol for head in sheets[0].heads] == [None] * 7 + ["official"] * 4 + [None] * 3
    assert [head.protocol for head in sheets[1].heads] == [None] * 7 + ["official"] * 2 + [None] * 5
    assert (number(sheets[0], "m", "VL-RB"), number(sheets[1], "m", "VL-RB")) == (0.5, 0.1)
    assert "RB2 (official)" in markdown(sheets[0])


def test_the_official_scorer_of_a_mathematics_set_never_stands_in() -> None:
    sheets = lay_out([model("m", ("mathvista", "official", 0.5), ("mathvision", "rule", 0.5))])
    assert [sheet.protocol for sheet in sheets] == ["rule", "official"]
    assert number(sheets[0], "m", "MathVista") is None


def test_mm_vet_needs_a_judge_to_stand_beside_the_paper() -> None:
    found = model("m", ("mmvet", "judged-by-self", 0.7), ("mmvet", "mmvet_rule", 0.2), ("mmstar", "rule", 0.5))
    sheets = lay_out([found], published=True)
    assert [(sheet.protocol, number(sheet, "m", "MM-Vet")) for sheet in sheets] == [("rule", 0.7), ("mmvet_rule", 0.2)]
    assert len(sheets[0].lines) == 6
    assert len(sheets[1].lines) == 1
    two = model("m", ("mmvet", "judged-by-self", 0.7), ("mmvet", "judged-by-x", 0.9), ("mmstar", "rule", 0.5))
    assert [(sheet.protocol, number(sheet, "m", "MM-Vet")) for sheet in lay_out([two])] == [
        ("rule", None), ("judged-by-self", 0.7), ("judged-by-x", 0.9),
    ]  # fmt: skip


def test_nothing_vanishes() -> None:
    found = model("m", ("k12", "rule", 0.3), ("gsm8k", "rule", 0.5), ("dynamath-all", "official", 0.2))
    sheets = lay_out([found])
    assert [(sheet.number, sheet.protocol, titles(sheet)) for sheet in sheets[1:]] == [
        (None, "rule", ["dynamath-all", "k12"]), (None, "official", ["dynamath-all", "k12"]),
    ]  # fmt: skip
    assert number(sheets[1], "m", "k12") == 0.3


def test_rewardbench_goes_where_the_rest_of_a_model_is() -> None:
    results = reward()[:1]
    assert [s.number for s in lay_out([Model("m", vlm("m").results + results)])] == [1]
    assert [s.number for s in lay_out([Model("m", model("m", ("gsm8k", "reference", 0.5)).results + results)])] == [2]
    assert [s.number for s in lay_out([Model("m", results)])] == [1, 2]


def test_test_time_scaling_is_a_row_of_its_own() -> None:
    found = Model("m", vlm("m").results + vlm("m", tts="2").results)
    (sheet,) = lay_out([found], tables=[5])
    assert [(one.model, one.tts) for one in sheet.lines] == [("m", "off"), ("m + TTS", "2")]
    assert titles(sheet)[-1] == "Average"


def test_marks_follow_the_numbers_into_averages_and_differences() -> None:
    part = Model("part", vlm("part").results[1:] + vlm("part", whole=False).results[:1])
    (sheet,) = lay_out([vlm("whole"), part], base="whole")
    whole = {one.model: [cell.whole for cell in one.cells if cell is not None] for one in sheet.lines}
    assert whole["whole"] == [True] * 8
    assert whole["part"] == [False, *[True] * 6, False]
    assert whole["Δ part − whole"] == [False, *[True] * 6, False]
    assert "n 100†" in markdown(sheet)
    assert any(note.startswith("†") for note in legend(sheet))
    assert not any(note.startswith("‡") for note in legend(sheet))


def test_differences_are_taken_from_a_measured_row() -> None:
    low, high = model("low", ("gsm8k", "rule", 0.50), ("math500", "rule", 0.4)), model("high", ("gsm8k", "rule", 0.625))
    (sheet,) = lay_out([low, high], base="low")
    delta = line(sheet, "Δ high − low")
    assert delta.difference
    assert number(sheet, "Δ high − low", "GSM8K") == 0.125
    assert number(sheet, "Δ high − low", "MATH-500") is None
    assert "+12.5" in shown(sheet)
    with pytest.raises(UserError, match="published row"):
        lay_out([low], published=True, base="Qwen2.5-7B")
    with pytest.raises(UserError, match="no row 'x' to take differences from; there are 'low'"):
        lay_out([low], base="x")


def test_a_sheet_without_the_base_row_stays_as_it_is() -> None:
    sheets = lay_out(
        [model("a", ("gsm8k", "rule", 0.5)), model("b", ("gsm8k", "rule", 0.5), ("mmstar", "rule", 0.5))], base="a"
    )
    assert [len(sheet.lines) for sheet in sheets] == [3, 1]


def test_published_rows_are_marked_and_stand_only_beside_the_authors_scoring() -> None:
    found = Model("m", vlm("m").results + vlm("m", "rule").results)
    reference, rule = lay_out([found], published=True)
    assert [one.origin for one in reference.lines] == ["paper"] * 11 + ["here"]
    assert {one.origin for one in rule.lines} == {"here"}
    assert number(reference, "SPARK-VL-7B", "Avg-All") == 0.571
    assert number(reference, "Δ SPARK-VL-7B − Qwen2.5-VL-7B", "MMK12") == 0.267
    assert any("not measured here" in note for note in reference.notes)
    assert not rule.notes


def test_published_rows_without_a_comparable_sheet_stand_alone() -> None:
    rule, alone = lay_out([vlm("m", "rule")], published=True)
    assert (rule.protocol, alone.protocol) == ("rule", PUBLISHED)
    assert {one.origin for one in rule.lines} == {"here"}
    assert {one.origin for one in alone.lines} == {"paper"}
    assert alone.caption.endswith("(as published)")


def test_all_published_tables_without_any_result() -> None:
    sheets = lay_out([], tables=range(1, 7), published=True)
    assert [sheet.number for sheet in sheets] == [1, 2, 3, 4, 5, 6]
    for sheet in sheets:
        for row in table(sheet.number or 0).rows:
            cells = line(sheet, row.model).cells
            printed = [None if cell is None else float(f"{100 * cell.score:.1f}") for cell in cells]
            assert printed == [*row.scores, *row.averages]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tables": [7]}, "the paper has no table 7"),
        ({"protocol": "strict"}, "no result was scored by 'strict'; there are reference"),
        ({"tables": [2]}, "none of the results belongs to the tables"),
    ],
)
def test_impossible_wishes_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        lay_out([vlm("m")], **options)


def test_judging_is_figure_4_as_a_table() -> None:
    assert judge_sheet([vlm("m")]) is None
    sheet = judge_sheet([Model("m", (), {"gsm8k": {"recall": Cell(0.9, 10), "f1": Cell(0.8, 20)}})])
    assert sheet is not None
    assert titles(sheet)[:3] == ["recall", "precision", "F1"]
    assert [cell.score if cell else None for cell in sheet.lines[0].cells][:3] == [0.9, None, 0.8]
    assert sheet.lines[0].model == "m: gsm8k"


# Formats


@pytest.fixture
def sheet() -> Sheet:
    label = "a_b & 50% of {x} | <c> \\ *d* #1"
    results = (
        Result("gsm8k", "rule", "off", Cell(0.4321, 1319, 0.40, 0.47), {}),
        Result("math500", "rule", "off", Cell(0.5, 60, 0.38, 0.62, False, 8), {}),
        Result("aime24", "rule", "off", Cell(0.1, 30, 0.0, 0.2, None), {}),
    )
    (found,) = lay_out([Model(label, results), model("base", ("gsm8k", "rule", 0.5))], base="base")
    return found


def test_the_terminal_shows_scores_intervals_n_marks_and_tts(sheet: Sheet) -> None:
    text = shown(sheet)
    for part in (
        "Table 2",
        "protocol rule",
        "43.2",
        "(40.0–47.0)",
        "n 1,319",
        "n 60×8†",
        "n 30‡",
        "here",
        "off",
        "−6.8",
    ):
        assert part in text
    assert "a_b & 50% of {x} | <c>" in text


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_narrow_terminal_gets_more_tables_and_loses_nothing(width: int) -> None:
    (wide,) = lay_out([], tables=[1], published=True)
    text = shown(wide, width)
    assert max(map(len, text.splitlines())) <= width
    for title in titles(wide):
        assert title in text
    assert text.count("26.7") == 1


def test_a_terminal_of_80_columns_gets_four_benchmarks_side_by_side() -> None:
    intervals = {"low": 0.331, "high": 0.575, "whole": False}
    (wide,) = lay_out([vlm("a-label-that-is-longer-than-a-third"), vlm("b", **intervals)], tables=[1], published=True)
    text = shown(wide, 80)
    tables = text.split("\n model")[1:]
    assert max(map(len, text.splitlines())) <= 80
    assert "MathVista   MathVision       WeMath    MathVerse" in tables[0]
    assert [line.strip() for line in tables[0].splitlines() if "from " in line] == ["from paper", "from here"]
    assert len(tables) == 3


def test_a_narrow_table_leaves_rows_out_that_have_no_number_in_it() -> None:
    (wide,) = lay_out(
        [vlm("a-label-that-is-longer-than-a-third"), Model("r", reward())], tables=[1], protocol="reference"
    )
    rows = [
        [line.split()[0] for line in table.splitlines() if line.strip()]
        for table in shown(wide, 60).split("\n model")[1:]
    ]
    assert "r" not in rows[0]
    assert sum("r" in row for row in rows) >= 1


def test_markdown_has_as_many_cells_in_every_row(sheet: Sheet) -> None:
    rows = [row for row in markdown(sheet).splitlines() if row.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3 + len(sheet.heads) + 1}
    assert "a\\_b & 50% of {x} \\| \\<c> \\\\ \\*d\\* #1" in markdown(sheet)
    assert "43.2 (40.0–47.0) n 1,319 |" in markdown(sheet)


def test_latex_is_escaped_and_balanced(sheet: Sheet) -> None:
    text = latex(sheet)
    assert r"a\_b \& 50\% of \{x\} | \textless{}c\textgreater{} \textbackslash{} *d* \#1" in text
    body = text.split("\\toprule")[1].split("\\bottomrule")[0]
    rows = [row for row in body.splitlines() if row.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2 + len(sheet.heads)}
    assert f"{{lll{'r' * len(sheet.heads)}}}" in text
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.isascii()
    for command in ("toprule", "midrule", "bottomrule", "caption"):
        assert f"\\{command}" in text


def test_csv_reads_back(sheet: Sheet) -> None:
    first, *rest = csv.DictReader(io.StringIO(csv_text(sheet)))
    assert first["model"] == sheet.lines[0].model
    assert (first["GSM8K"], first["GSM8K n"], first["GSM8K low"], first["GSM8K whole"]) == (
        "43.21",
        "1319",
        "40.0",
        "yes",
    )
    assert (first["MATH-500 whole"], first["AIME24 whole"], first["AMC23"]) == ("no", "", "")
    assert (first["table"], first["protocol"], first["from"], first["tts"]) == ("2", "rule", "here", "off")
    assert [row["GSM8K"] for row in rest] == ["50.0", "-6.79"]


@pytest.mark.parametrize("form", FORMATS)
def test_several_sheets_follow_each_other(form: str, sheet: Sheet) -> None:
    assert write([sheet, sheet], form) == "\n".join([FORMATS[form](sheet)] * 2)
