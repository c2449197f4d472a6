r"""The inputs of ``shared/cases/data.jsonl`` and others of their kinds, from a row of a file to what is accepted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spark_rl.chat import policy_prompt
from spark_rl.config import ChatConfig, load_config
from spark_rl.data import DataError, load_problems
from spark_rl.problem import Problem
from spark_rl.verify import verify

CASES = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data")).parent / "cases"


def loaded(folder: Path, row: dict[str, Any], settings: dict[str, Any] | None = None) -> Problem:
    """The row as the only one of a file beside the picture ``a.png``."""
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    config = load_config(None, [f"{key}={value}" for key, value in (settings or {}).items()])
    (problem,) = load_problems(str(path), config.data)
    return problem


def accepts(problem: Problem, answer: str) -> bool:
    statuses = {
        verify(f"so \\boxed{{{answer}}}", gold, problem.kind, problem.choices).status for gold in problem.golds
    }
    return "correct" in statuses


def asked_formats(problem: Problem) -> int:
    """How many answer formats the policy's turn asks for: boxes, ``Answer:`` lines, tags, hashes."""
    prompt = policy_prompt(problem, ChatConfig())
    return sum(prompt.count(mark) for mark in ("boxed{", "Answer:", "<answer>", "####", "JSON"))


def check(folder: Path, case: dict[str, Any]) -> None:
    want = case["want"]
    if "refused_or_counted" in want:
        with pytest.raises(DataError, match="none of 1 rows is usable"):
            loaded(folder, case["row"], case["settings"])
        return
    problem = loaded(folder, case["row"], case["settings"])
    for key in ("kind", "answer"):
        assert getattr(problem, key) == want.get(key, getattr(problem, key))
    assert list(problem.choices) == want.get("choices", list(problem.choices))
    if "answer_text" in want:
        assert problem.choices["ABCDEFGHIJ".index(problem.answer)] == want["answer_text"]
    assert all(text in problem.question for text in want.get("question_contains", ()))
    assert all(accepts(problem, answer) for answer in want.get("accepts", ()))
    assert not any(accepts(problem, answer) for answer in want.get("refuses", ()))
    assert len(problem.images) == want.get("images", len(problem.images))
    if "prompt_asks_for_one_format" in want:
        assert asked_formats(problem) == 1
        assert "9 * 9" in problem.question


@pytest.mark.shared
def test_every_case_of_the_shared_file(tmp_path: Path) -> None:
    path = CASES / "data.jsonl"
    if not path.is_file():
        pytest.skip(f"no shared cases at {path}")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(cases) >= 13
    for case in cases:
        check(tmp_path, case)
