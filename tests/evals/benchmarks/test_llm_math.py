"""The six text benchmarks: rows in their documented columns, and the real files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from spark_rl.config import VerifyConfig
from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark
from spark_rl.verify import Verifier

DATA = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[3].parent / "shared" / "data"))
NAMES = ("gsm8k", "math500", "aime24", "aime25", "amc23", "mmlu_stem")
shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set SPARK_RL_DATA_ROOT"),
]


def benchmark(name: str) -> Benchmark:
    found = import_module(f"spark_rl.evals.benchmarks.{name}").BENCHMARK
    assert isinstance(found, Benchmark)
    return found


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=1, timeout=20.0)) as one:
        yield one


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scores(name: str, path: Path, responses: list[str], verifier: Verifier) -> dict[str, list[float]]:
    items = benchmark(name).load(path)
    return {
        protocol: [grade.score for grade in how.score(items, responses, verifier)]
        for protocol, how in benchmark(name).protocols.items()
    }


def test_gsm8k(tmp_path: Path, verifier: Verifier) -> None:
    path = written(
        tmp_path,
        {"question": "How many?", "answer": "2 * 500 = <<2*500=1000>>1000 #### not yet\n#### 1,000"},
        {"question": "And now?", "answer": "None left.\n#### -3"},
    )
    items = benchmark("gsm8k").load(path)

    assert [(item.problem.id, item.problem.question, item.problem.answer) for item in items] == [
        ("1", "How many?", "1000"),
        ("2", "And now?", "-3"),
    ]
    assert all(item.problem.prompt is None for item in items)
    assert scores("gsm8k", path, [r"\boxed{1,000 dollars}", r"\boxed{3}"], verifier) == {
        "reference": [1.0, 0.0],
        "rule": [1.0, 0.0],
    }


def test_math500(tmp_path: Path, verifier: Verifier) -> None:
    row = {"problem": "x?", "solution": "...", "answer": r"2\sqrt{3}", "subject": "Algebra", "level": 5}
    path = written(tmp_path, row | {"unique_id": "test/algebra/1.json"}, row | {"answer": "7", "level": 1})
    bench = benchmark("math500")
    items = bench.load(path)
    how = bench.protocols["rule"]

    assert [item.problem.id for item in items] == ["test/algebra/1.json", "2"]
    assert items[0].meta == {"subject": "Algebra", "level": "5"}
    grades = how.score(items, [r"\boxed{\sqrt{12}}", r"\boxed{8}"], verifier)
    assert how.add_up(items, grades) == {"score": 0.5, "subject/Algebra": 0.5, "level/1": 0.0, "level/5": 1.0}
    assert scores("math500", path, [r"\boxed{\sqrt{12}}", r"\boxed{8}"], verifier)["reference"] == [0.0, 0.0]


@pytest.mark.parametrize("name", ["aime24", "aime25"])
def test_aime(tmp_path: Path, verifier: Verifier, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 60, "problem": "a?", "answer": "025"},
        {"id": 61, "Problem": "b?", "Answer": 336},
        {"id": 62, "question": "c?", "answer": r"336^\circ"},
        {"id": 63, "problem": "d?", "solution": r"so \boxed{7}"},
        {"id": 64, "problem": "e?", "answer": 70.0},
    ]
    items = benchmark(name).load(written(tmp_path, *rows))

    assert [item.problem.id for item in items] == ["60", "61", "62", "63", "64"]
    assert [item.problem.answer for item in items] == ["25", "336", "336", "7", "70"]
    responses = [r"\boxed{025}", r"\boxed{m+n=336}", r"\boxed{1336}", r"\boxed{7.2}", r"\boxed{m=50, n=70}"]
    assert scores(name, tmp_path / "rows.jsonl", responses, verifier)["rule"] == [1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("answer", ["1000", "-1", "2.5", "x", "", None])
def test_aime_refuses_golds_that_can_not_be(tmp_path: Path, answer: object) -> None:
    path = written(tmp_path, {"problem": "a?", "answer": answer, "solution": "none"})

    with pytest.raises(DataError, match=r"row 1: the answer .* is no integer from 0 to 999"):
        benchmark("aime24").load(path)


def test_amc(tmp_path: Path, verifier: Verifier) -> None:
    path = written(
        tmp_path,
        {"id": 0, "problem": "a?", "question": "a?", "answer": 27.0},
        {"id": 1, "question": "b?", "answer": "-1.0"},
        {"id": 2, "question": "c?", "answer": 3.5},
    )

    assert [item.problem.answer for item in benchmark("amc23").load(path)] == ["27", "-1", "3.5"]
    responses = [r"\boxed{27}", r"\boxed{-1}", r"\boxed{\sqrt{12.25}}"]
    assert scores("amc23", path, responses, verifier) == {"reference": [1.0, 1.0, 0.0], "rule": [1.0, 1.0, 1.0]}


def test_mmlu(tmp_path: Path, verifier: Verifier) -> None:
    row = {"question": "Which?", "choices": ["one", " a pair", "three", "four"], "answer": 1, "type": "astronomy"}
    path = written(tmp_path, row, row | {"answer": "D", "type": "college_physics"}, row, row)
    bench = benchmark("mmlu_stem")
    items = bench.load(path)

    assert items[0].problem.question == "Which?\nAnswer Choices: (A) one (B) a pair (C) three (D) four"
    assert [item.problem.answer for item in items] == ["B", "D", "B", "B"]
    responses = ["The answer is (B).", r"\boxed{D}", r"\boxed{a pair}", "A guess: C"]
    assert scores("mmlu_stem", path, responses, verifier) == {
        "reference": [0.0, 1.0, 0.0, 0.0],
        "rule": [0.0, 1.0, 1.0, 0.0],
    }
    how = bench.protocols["rule"]
    total = how.add_up(items, how.score(items, responses, verifier))
    assert total == {"score": 0.5, "subject/astronomy": pytest.approx(1 / 3), "subject/college_physics": 1.0}


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"question": "q", "answer": "42"}, "row 1: the answer does not end in"),
        ("gsm8k", {"question": "q"}, "row 1: no 'answer'"),
        ("math500", {"problem": "q"}, "row 1: no 'answer'"),
        ("math500", {"answer": "1"}, "row 1: no 'problem' or 'question'"),
        ("mmlu_stem", {"question": "q", "choices": ["a", "b"], "answer": 2}, "row 1: 'answer' is '2'"),
        ("mmlu_stem", {"question": "q", "choices": "a", "answer": 0}, "row 1: 'choices' is not a list"),
    ],
)
def test_rows_that_can_not_be_used_are_errors(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        benchmark(name).load(written(tmp_path, row))


@pytest.mark.parametrize("name", NAMES)
def test_parquet_reads_as_json_lines_do(tmp_path: Path, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    answer: Any = 1 if name == "mmlu_stem" else "#### 7" if name == "gsm8k" else "7"
    row = {"id": 3, "problem": "q?", "question": "q?", "answer": answer, "choices": ["a", "b"]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")

    assert benchmark(name).load(tmp_path / "rows.parquet") == benchmark(name).load(written(tmp_path, row))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    bench = benchmark(name)

    assert (bench.name, bench.group) == (name, "math-llm")
    assert set(bench.protocols) == {"reference", "rule"}
    assert all(file.startswith("llm/") for file in bench.files)


class TestRealFiles:
    pytestmark = shared

    @pytest.mark.parametrize("name", NAMES)
    def test_every_gold_earns_the_full_score(self, name: str, verifier: Verifier) -> None:
        bench = benchmark(name)
        items = bench.load(DATA / bench.files[0])
        responses = [f"So it is \\boxed{{{item.problem.answer}}}." for item in items]

        assert len(items) == bench.published
        assert len({item.problem.id for item in items}) == len(items)
        for how in bench.protocols.values():
            assert how.add_up(items, how.score(items, responses, verifier))["score"] == 1.0

    def test_breakdowns_have_the_published_sizes(self) -> None:
        levels = Counter(item.meta["level"] for item in load("math500"))
        subjects = Counter(item.meta["subject"] for item in load("mmlu_stem"))

        assert levels == {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}
        assert len(subjects) == 18
        assert subjects["elementary_mathematics"] == 378
        assert subjects["machine_learning"] == 112

    def test_golds_of_aime_are_integers_from_0_to_999(self) -> None:
        golds = [item.problem.answer for name in ("aime24", "aime25") for item in load(name)]

        assert [str(int(gold)) for gold in golds] == golds
        assert all(0 <= int(gold) <= 999 for gold in golds)


def load(name: str) -> Any:
    return benchmark(name).load(DATA / benchmark(name).files[0])
