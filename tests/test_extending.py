"""Parts of the user's own, as docs/extending.md shows them: files, a benchmark, templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from running import json_lines, small, spark_rl_process, write_lines
from spark_rl import ConfigError, train
from spark_rl.plugins import load_object

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_file_is_run_once_for_several_names(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import pathlib\nran = pathlib.Path(__file__).with_name('ran')\n"
                                      "ran.write_text(ran.read_text() + 'x' if ran.exists() else 'x')\n"
                                      "def a(): ...\ndef b(): ...\n")  # fmt: skip
    modules: dict[Path, object] = {}
    found = [load_object(f"{tmp_path / 'mine.py'}:{name}", "setting", modules) for name in "ab"]  # type: ignore[arg-type]
    assert [one.__name__ for one in found] == ["a", "b"]
    assert (tmp_path / "ran").read_text() == "x"


def test_a_file_can_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_plugin.py").write_text("VALUE = 7\n")
    (tmp_path / "mine.py").write_text("from beside_plugin import VALUE\nanswer = {'value': VALUE}\n")
    assert load_object(f"{tmp_path / 'mine.py'}:answer", "setting") == {"value": 7}


def test_an_error_inside_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\nraise SystemExit('no')\n")
    with pytest.raises(ConfigError, match=r"setting .*mine\.py can't be imported: SystemExit: no \(mine\.py line 2\)"):
        load_object(f"{tmp_path / 'mine.py'}:x", "setting")


def test_a_benchmark_of_a_file_is_asked_and_scored_again(tmp_path: Path) -> None:
    capitals = [{"country": "France", "capital": "Paris"}, {"country": "Norway", "capital": "Oslo City"}]
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "capitals.jsonl", *capitals)
    file = str(EXAMPLES / "own_benchmark.py")
    write_lines(tmp_path / "said.jsonl", {"id": "capital-1", "response": "It is \\boxed{Paris}."})
    scored = spark_rl_process(
        "eval", "--bench", file, "--data-root", "data", "--responses", "said.jsonl", "--out", "out",
        "--json", "scores.json", cwd=tmp_path,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    assert [row["status"] for row in json_lines(tmp_path / "out" / "rows.jsonl")] == ["correct", "no_answer"]
    again = spark_rl_process("eval", "--rescore", "out/rows.jsonl", "--bench", file, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "50.0" in again.stdout
    missing = spark_rl_process("eval", "--bench", "none.py", "--data-root", "data", cwd=tmp_path)
    assert missing.returncode == 2
    assert "there is no file" in missing.stderr


def test_own_templates_are_what_the_model_reads(tmp_path: Path) -> None:
    config = small(
        tmp_path / "run", f"recycle.templates={EXAMPLES / 'own_templates.yaml'}", "train.steps=3",
        "recycle.ready=1",
    )  # fmt: skip
    train(config)
    prompts = {row["task"]: row["prompt"] for row in json_lines(tmp_path / "run" / "rollouts.jsonl")}
    assert prompts.keys() >= {"pointwise", "reflection"}
    assert "A colleague" in prompts["pointwise"]
    assert "A colleague" in prompts["reflection"]
