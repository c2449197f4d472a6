"""The columns of rows that reward functions read, and rows without a gold answer."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import write_lines
from spark_rl.chat import policy_prompt
from spark_rl.config import ChatConfig, DataConfig, RecycleConfig
from spark_rl.data import DataError, load_problems
from spark_rl.data.columns import DEEPEST, other_columns
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.recycle import recycle
from vision import draw_image

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates(), st.decimals()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), anything))
def test_what_is_kept_is_json(row: dict[str, Any]) -> None:
    kept = other_columns(row)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert kept.keys() <= row.keys()


def test_what_json_does_not_have_is_left_out_with_its_column_only() -> None:
    nested: list[Any] = []
    for _ in range(DEEPEST + 2):
        nested = [nested]
    row = {"a": [1, b"x"], "b": float("nan"), "c": (1, 2), "d": nested, "image": "x.png", "e": object(), 3: 4}
    assert other_columns(row) == {"b": None, "c": [1, 2]}


def load(file: Path, **options: Any) -> tuple[Problem, ...]:
    return load_problems(str(file), DataConfig(), **options)


def test_columns_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    rows = [{"question": "1+1?", "answer": "2", "level": n, "tests": ["a", {"b": None}]} for n in range(3)]
    file = write_lines(tmp_path / "d.jsonl", *rows)
    assert [problem.columns for problem in load(file)] == [{}] * 3
    assert [dict(problem.columns) for problem in load(file, columns=True)] == rows
    assert load(file) == load(file, columns=True), "columns are not part of what a problem is"


def test_parquet_rows_have_columns_too(tmp_path: Path) -> None:
    rows = {"question": ["1+1?"], "answer": ["2"], "blob": [b"\xff"], "tests": [["a", "b"]], "at": [1.5]}
    pq.write_table(pa.table(rows), tmp_path / "d.parquet")
    (problem,) = load(tmp_path / "d.parquet", columns=True)
    assert problem.columns == {"question": "1+1?", "answer": "2", "tests": ["a", "b"], "at": 1.5}


def test_pictures_are_no_columns(tmp_path: Path) -> None:
    draw_image(0, 40, 40).save(tmp_path / "a.png")
    text = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    file = write_lines(tmp_path / "d.jsonl", {"question": "what?", "answer": "2", "image_base64": text})
    (problem,) = load(file, columns=True)
    assert problem.columns == {"question": "what?", "answer": "2"}
    assert len(problem.images) == 1


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "Write add."}, ""),
        ({"question": "Write add.", "answer": None}, ""),
        ({"question": "Write add.", "answer": ""}, ""),
        ({"question": "Write add.", "answer": {"input": [1]}}, ""),
        ({"question": "Write add.", "answer": " 3 "}, "3"),
        ({"question": "Write add.", "solution": "Some free text, no box."}, "Some free text, no box."),
        ({"question": "Write add.", "answer": "x" * 100_000}, "x" * 100_000),
        ({"prompt": [{"role": "user", "content": "Write add."}]}, ""),
    ],
)
def test_rows_without_golds_load_where_nobody_needs_them(tmp_path: Path, row: dict[str, Any], answer: str) -> None:
    file = write_lines(tmp_path / "d.jsonl", row, row)
    (problem, _) = load(file, columns=True, golds=False)
    assert (problem.question, problem.answer) == ("Write add.", answer)
    if answer != "3":
        with pytest.raises(DataError):
            load(file)


def test_a_row_without_a_question_is_unusable_all_the_same(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "d.jsonl", {"question": ""}, {"question": "a?"}, {"question": None})
    assert [problem.question for problem in load(file, golds=False)] == ["a?"]


def test_what_the_verifier_can_use_is_read_the_same_without_golds(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "choices": ["3", "2"], "answer": "2"},
        {"question": "1+1?", "answer": "so 1+1=2\n#### 2"},
        {"question": "1+1?", "answer": ["2", "two"]},
    ]
    for n, row in enumerate(rows):
        file = write_lines(tmp_path / f"{n}.jsonl", row)
        assert load(file, golds=False) == load(file)


MARK = "Qz7391zQ"


def test_columns_never_enter_a_prompt() -> None:
    """Of whatever is recycled from it, reflections inherit them and judge problems don't need them."""
    parent = Problem("p", "6*7?", "42", columns={"answer": MARK, "prompt": MARK, "question": MARK, "n": [MARK]})
    texts = {r"\boxed{42}": "correct", r"\boxed{41}": "wrong", r"it's \boxed{40}": "wrong"}
    rollouts = tuple(
        Rollout(Completion(text, (1,), (-1.0,), "stop"), Verdict(float(status == "correct"), status, "x"))
        for text, status in texts.items()
    )
    made = [
        problem
        for seed in range(20)
        for problem in recycle([Group(parent, rollouts, ())], RecycleConfig(), random.Random(seed))
    ]
    assert {problem.task for problem in made} == {"pointwise", "pairwise", "reflection"}
    for problem in [parent, *made]:
        assert MARK not in policy_prompt(problem, ChatConfig())
        assert problem.columns == (parent.columns if problem.task in {"policy", "reflection"} else {})
