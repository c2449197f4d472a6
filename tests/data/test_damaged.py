"""Files and golds that are damaged: one line that says so, and nothing used in silence."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.errors import DataError

QUESTION = "What is 6 times 7?"


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


LOAD = """
import sys
from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.errors import DataError
try:
    print(len(load_problems(sys.argv[1], DataConfig())))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("seed", [0, 1, 2, 2057, 4662, 5936])
def test_a_damaged_footer_is_a_line_and_not_the_end_of_the_process(seed: int, tmp_path: Path) -> None:
    """Of the last three, pyarrow 26 ends the process that looks at them, so this one has a process of its own."""
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"question": [f"{QUESTION} {i}" for i in range(50)], "answer": ["42"] * 50}), path)
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    footer = int.from_bytes(data[-8:-4], "little")
    for _ in range(4):
        data[rng.randrange(len(data) - footer - 8, len(data) - 8)] = rng.randrange(256)
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "50" or "damaged.parquet is not a readable Parquet file" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_column_of_two_names_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("question,answer,answer\n1+1?,2,3\n")
    with pytest.raises(DataError, match="has 'answer' as the name of two columns"):
        load_problems(str(tmp_path / "twice.csv"), DataConfig())


def test_a_row_of_more_cells_than_columns_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "more.csv").write_text("question,answer\n1+1?,2\n2+2?,4,5\n")
    assert [problem.answer for problem in load_problems(str(tmp_path / "more.csv"), DataConfig())] == ["2"]
    assert "skipped 1 of 2 rows" in caplog.text
    assert "1 more cells than there are columns" in caplog.text


@pytest.mark.parametrize("gold", ["3}", "{3", r"\frac{1}{2", "}{", "x" * 3000])
def test_golds_that_could_never_be_right_are_counted(
    gold: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": QUESTION, "answer": gold}, {"question": QUESTION, "answer": "42"}]
    assert len(load_problems(write(tmp_path / "golds.jsonl", *rows), DataConfig())) == 1
    assert "skipped 1 of 2 rows" in caplog.text


@pytest.mark.parametrize("options", [["", " "], ["whale", None], {"A": "whale", "B": ""}])
def test_an_empty_option_is_refused_with_its_row(options: Any, tmp_path: Path) -> None:
    rows = [{"question": "Which swims?", "choices": options, "answer": "A"}]
    with pytest.raises(DataError, match=r"row 1: option [AB] is empty"):
        load_problems(write(tmp_path / "empty.jsonl", *rows), DataConfig())


def test_decimals_of_parquet_and_nul_are_read(tmp_path: Path) -> None:
    table = pa.table({"question": [f"{QUESTION}\0", QUESTION], "answer": [Decimal("42.00"), Decimal("1200.50")]})
    pq.write_table(table, tmp_path / "money.parquet")
    found = load_problems(str(tmp_path / "money.parquet"), DataConfig())
    assert [(problem.question, problem.answer) for problem in found] == [(QUESTION, "42"), (QUESTION, "1200.5")]
