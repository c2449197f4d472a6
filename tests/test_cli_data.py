"""``spark-rl data`` and ``spark-rl eval --list``: what there is, before anything is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from running import json_lines, write_lines
from spark_rl.cli import main, parse

ROWS: list[dict[str, Any]] = [
    {"question": "What is 6*7?\u001b[31m", "answer": "42"},
    {"question": "Either?", "answer": ["1/2", "0.5"]},
    {"question": "Which?", "choices": ["left", "right"], "answer": "B"},
    {"question": "", "answer": "3"},
    {"question": "Nothing", "answer": "N/A"},
]


def facts_of(folder: Path, *arguments: str) -> dict[str, Any]:
    """What ``--json`` wrote."""
    assert main([*arguments, "--json", str(folder / "facts.json")]) == 0
    found: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return found


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", *ROWS)


def test_counts_kinds_and_what_is_refused(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = facts_of(tmp_path, "data", str(rows), "--show", "2")
    printed = capsys.readouterr()
    assert (facts["n"], facts["read"], facts["kinds"]) == (3, 5, {"math": 2, "choice": 1})
    assert (facts["with_choices"], facts["several_answers"], facts["with_images"]) == (1, 1, 0)
    assert facts["refused"] == {"unusable": 2, "broken_images": 0, "outside_ranges": 0}
    (said,) = facts["said"]
    assert "skipped 2 of 5 rows" in said
    assert "1 like row 4, no question" in said
    assert said in printed.out
    assert printed.err == ""
    assert [problem["id"] for problem in facts["problems"]] == ["rows-1", "rows-2"]
    assert facts["problems"][0]["prompt"].startswith("What is 6*7?\u001b[31m\nPlease first conduct reasoning")
    assert facts["problems"][0]["tokens"] is facts["prompt_tokens"] is None
    assert "answer  1/2 or 0.5  (math)" in printed.out
    assert "\u001b" not in printed.out, "data does not command the terminal"


def test_a_model_shows_what_it_reads_without_its_weights(
    rows: Path, tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_models["qwen3"], tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    facts = facts_of(tmp_path, "data", str(rows), "--model", str(model), "rollout.max_prompt_tokens=30")
    lengths = [problem["tokens"] for problem in facts["problems"]]
    told = facts["prompt_tokens"]
    assert (told["measured"], told["shortest"], told["longest"]) == (3, min(lengths), max(lengths))
    assert (told["limit"], told["over_limit"]) == (30, sum(length > 30 for length in lengths))
    assert facts["problems"][0]["prompt"] != ROWS[0]["question"]
    assert f"{lengths[0]} tokens" in capsys.readouterr().out


def test_images_have_sizes_and_count_as_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = facts_of(tmp_path, "data", "procedural:tiles", "--model", "embedded-vl", "--show", "1")
    (problem,) = facts["problems"]
    ((width, height),) = [image["size"] for image in problem["images"]]
    assert problem["images"][0]["name"] == "embedded"
    assert facts["with_images"] == facts["n"]
    assert f"image   embedded  {width}×{height}" in capsys.readouterr().out


def test_without_data_it_is_the_recipes(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, "data", "--show", "0", "data.limit=7")
    assert (facts["n"], facts["sources"], facts["problems"]) == (7, {"missing": 7}, [])
    parsed = parse(["data", "data.limit=7", "file.jsonl", "seed=1"])
    assert (parsed.source, parsed.overrides) == ("file.jsonl", ["data.limit=7", "seed=1"])


def test_a_split_of_a_file_is_said_to_do_nothing(rows: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert facts_of(tmp_path, "data", str(rows), "--show", "0", "data.split=test")["n"] == 3
    assert f"data.split is 'test', and the file {rows} has no splits: all of it is read" in caplog.text
    caplog.clear()
    facts_of(tmp_path, "data", str(rows), "--show", "0", "data.split=train")
    assert "data.split" not in caplog.text


# Benchmarks


def test_the_list_of_benchmarks_says_which_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SPARK_RL_DATA_ROOT", raising=False)
    (tmp_path / "llm").mkdir()
    write_lines(tmp_path / "llm" / "gsm8k_test.jsonl", {"question": "1+1?", "answer": "so\n#### 2"})
    unplaced = facts_of(tmp_path, "eval", "--list")
    assert unplaced["gsm8k"]["found"] is None
    assert (unplaced["math500"]["group"], unplaced["math500"]["items"]) == ("math-llm", 500)
    placed = facts_of(tmp_path, "eval", "--list", "--data-root", str(tmp_path))
    assert placed["gsm8k"]["found"] == str(tmp_path / "llm" / "gsm8k_test.jsonl")
    assert placed["aime24"]["found"] is None
    assert placed.keys() == unplaced.keys()
    assert "gsm8k" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gsm8k", "GSM-8K", "gsm_8k"])
def test_items_are_listed_in_the_form_that_responses_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    write_lines(
        tmp_path / "llm" / "gsm8k_test.jsonl", *({"question": f"{n}?", "answer": f"#### {n}"} for n in range(3))
    )
    out, root = tmp_path / "responses.jsonl", ("--data-root", str(tmp_path))
    rows = facts_of(tmp_path, "eval", "--list", "--bench", name, *root, "--out", str(out))["gsm8k"]
    assert rows == json_lines(out)
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert all(row["response"] is None and row["prompt"].startswith(f"{n}?\n") for n, row in enumerate(rows))
    filled = [row | {"response": f"\\boxed{{{n}}}"} for n, row in enumerate(rows)]
    write_lines(out, *filled)
    found = facts_of(tmp_path, "eval", "--bench", name, *root, "--responses", str(out))
    assert found["gsm8k"]["rule"]["score"] == 1.0
