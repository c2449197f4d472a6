"""What rows add up to: means, groups, samples, intervals; exams cut, filtered and judged; missing responses."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl import Problem
from spark_rl.errors import UserError
from spark_rl.evals.ask.exam import Exam, exam_of_benchmark, exam_of_problems, missing_images
from spark_rl.evals.ask.records import RecordFile, read_records, write_parquet
from spark_rl.evals.ask.runner import new_record
from spark_rl.evals.benchmark import PICTURE, Graded, Item, Protocol
from spark_rl.evals.benchmarks import MODULES, find, in_module, members
from spark_rl.evals.score.grading import grade, judges_of
from spark_rl.evals.score.scorers import by
from spark_rl.evals.score.totals import majority, pass_at, results, total
from spark_rl.evals.score.units import units
from spark_rl.intervals import wilson
from spark_rl.verify import Verifier


def items(count: int, **meta: Sequence[Any]) -> list[Item]:
    return [
        Item(Problem(id=f"q{i}", question=f"{i}?", answer=str(i)), {key: values[i] for key, values in meta.items()})
        for i in range(count)
    ]


def grades(*scores: float) -> list[list[Graded]]:
    return [[Graded(score, str(score), "correct" if score == 1 else "wrong")] for score in scores]


# One number


def test_a_share_has_wilsons_interval() -> None:
    found = total(Protocol(by()), items(10), grades(*[1.0] * 8, 0.0, 0.0))
    centre, half = (0.8 + 1.96**2 / 20) / (1 + 0.38416), 1.96 * math.sqrt(0.016 + 1.96**2 / 400) / (1 + 0.38416)
    assert (found["score"], found["n"]) == (0.8, 10)
    assert (found["low"], found["high"]) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert total(Protocol(by()), [], []) == {"score": None, "n": 0, "low": 0.0, "high": 1.0}


def test_breakdowns_stand_apart() -> None:
    found = total(Protocol(by(), by("s")), items(4, s="abab"), grades(1, 0, 1, 1))
    assert found["breakdown"] == {"s/a": 1.0, "s/b": 0.5}
    assert found["score"] == 0.75


def test_items_without_a_headline_keep_their_parts() -> None:
    partless = Protocol(by(), lambda *_: {"version/text": 0.5}, headline_is_mean=False)
    found = total(partless, items(2), grades(1, 0))
    assert (found["score"], found["low"], found["high"]) == (None, 0.0, 1.0)
    assert found["breakdown"] == {"version/text": 0.5}
    sampled = total(partless, items(1), [[Graded(1.0, "a"), Graded(0.0, "b")]])
    assert sampled["avg@2"] is sampled["maj@2"] is None


def test_what_is_no_plain_share_is_resampled() -> None:
    partial = total(Protocol(by()), items(40), grades(*itertools.islice(itertools.cycle((0.25, 1.0)), 40)))
    assert partial["score"] == 0.625
    assert 0.4 < partial["low"] < 0.625 < partial["high"] < 0.8
    unit = Protocol(by(), _pairs_right, headline_is_mean=False, unit=_pair)
    pairs = total(unit, items(40), grades(*[1.0] * 20, *[1.0, 0.0] * 10))
    assert (pairs["score"], pairs["n"], pairs["units"]) == (0.5, 40, 20)
    assert pairs["low"] < 0.5 < pairs["high"]
    none = total(unit, items(40), grades(*[0.0] * 40))
    assert (none["low"], none["high"]) == wilson(0, 20), "units that are all alike can't be resampled"
    assert pairs == total(unit, items(40), grades(*[1.0] * 20, *[1.0, 0.0] * 10)), "the seed is fixed"


def _pair(item: Item) -> str:
    return str(int(item.problem.id[1:]) // 2)


def _pairs_right(asked: Sequence[Item], given: Sequence[Graded]) -> dict[str, float]:
    whole = [all(grade.score >= 1 for _, grade in pair) for pair in units(asked, given, _pair)]
    return {"score": sum(whole) / len(whole)}


def test_items_that_belong_together_are_no_independent_trials() -> None:
    """Four copies of each question give no narrower interval than one."""
    once = total(Protocol(by()), items(10), grades(*[1.0] * 5, *[0.0] * 5))
    copies = total(
        Protocol(by(), unit=lambda item: str(int(item.problem.id[1:]) // 4)), items(40),
        grades(*[1.0] * 20, *[0.0] * 20),
    )  # fmt: skip
    assert copies["high"] - copies["low"] > 0.8 * (once["high"] - once["low"])


# Samples


@given(st.integers(1, 8), st.data())
def test_pass_at_k_counts_all_draws(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([i < right for i in range(n)], k))
    assert pass_at(k, n, right) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_samples_have_averages_and_votes() -> None:
    def sample(extracted: str | None, score: float) -> Graded:
        return Graded(score, extracted, "correct" if score else "wrong")

    graded = [
        [sample("7", 1), sample("8", 0), sample(" 7 ", 1), sample(None, 0)],
        [sample("1", 0), sample("2", 1), sample("2", 1), sample("1", 0)],
        [sample(None, 0)] * 4,
    ]
    found = total(Protocol(by()), items(3), graded)
    assert found["score"] == found["avg@4"] == pytest.approx(4 / 12)
    assert found["pass@2"] == pytest.approx((5 / 6 + 5 / 6 + 0) / 3)
    assert found["pass@4"] == pytest.approx(2 / 3)
    assert found["maj@4"] == pytest.approx(1 / 3), "of two answers with two votes each the first was said first"
    assert (found["samples"], found["n"]) == (4, 3)
    assert majority([sample(None, 0), sample("3", 1)]).score == 1


# Rows, with and without a model


def exam_of(count: int = 4, **options: Any) -> Exam:
    return replace(exam_of_problems("sums", [item.problem for item in items(count)]), **options)


def answered(exam: Exam, *responses: str | None) -> list[dict[str, Any]]:
    rows = [new_record("s", exam, item) | {"seconds": 0.0} for item in exam.items]
    for row, response in zip(rows, responses, strict=True):
        row["response"] = response
    return rows


def test_a_missing_response_is_no_answer_whatever_a_protocol_says() -> None:
    generous = Protocol(lambda asked, texts, _: [Graded(1.0, text) for _, text in zip(asked, texts, strict=True)])
    exam = exam_of(protocols={"generous": generous})
    rows = answered(exam, "yes", "", None, "no")
    with Verifier() as verifier:
        grade(rows, exam, verifier)
    assert [row["reward"] for row in rows] == [1.0, 1.0, 0.0, 1.0]
    assert [row["status"] for row in rows] == ["wrong", "wrong", "no_answer", "wrong"]
    found = results(exam, rows)
    assert (found["generous"]["score"], found["about"]["missing"]) == (0.75, 1)


def test_grades_are_made_once_unless_again() -> None:
    calls: list[int] = []

    def score(asked: Sequence[Item], texts: Sequence[str], _: Verifier) -> list[Graded]:
        calls.append(len(texts))
        return [Graded(float(text == item.problem.answer), text) for item, text in zip(asked, texts, strict=True)]

    exam = exam_of(protocols={"exact": Protocol(score)})
    rows = answered(exam, "0", "1", "3", "2")
    with Verifier() as verifier:
        grade(rows, exam, verifier)
        grade(rows, exam, verifier)
        assert calls == [4]
        rows[2]["grades"]["exact"]["score"] = 0.5
        grade(rows, exam, verifier, again=True)
    assert [row["grades"]["exact"]["score"] for row in rows] == [1.0, 1.0, 0.0, 0.0]


def test_a_judges_replies_are_kept_and_read_again_without_it() -> None:
    turns: list[str] = []

    def judge(asked: Sequence[str]) -> list[str]:
        turns.extend(asked)
        return ["0.5" for _ in asked]

    def read(_asked: Sequence[Item], replies: Sequence[str], _: Verifier) -> list[Graded]:
        return [Graded(float(reply)) for reply in replies]

    judged = Protocol(read, ask_judge=lambda item, response: f"{item.problem.question} {response}")
    bare = exam_of(2, protocols={"judged": judged})
    with pytest.raises(UserError, match="only with --grader"):
        bare.judged_by(())
    exam = bare.judged_by(["self"])
    assert list(exam.protocols) == ["judged-by-self"]
    rows = answered(exam, "a", "b")
    with Verifier() as verifier:
        grade(rows, exam, verifier, judge)
        assert turns == ["0? a", "1? b"]
        assert judges_of(rows) == ["self"]
        grade(rows, exam, verifier, again=True)
    assert len(turns) == 2
    assert results(exam, rows)["judged-by-self"]["score"] == 0.5


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    exam = exam_of(2)
    rows = answered(exam, "\\boxed{0}", None)
    rows[0]["meta"] = {"list": [1, "a"], "none": None}
    with Verifier() as verifier:
        grade(rows, exam, verifier)
    rows[0]["replies"] = {"judged-by-x": "1"}
    write_parquet(tmp_path / "rows.parquet", rows)
    back = read_records(tmp_path / "rows.parquet")
    assert back[0] == rows[0]
    assert back[1] == rows[1] | {"replies": {}}
    file = RecordFile(tmp_path / "rows.jsonl", "s")
    file.append(rows)
    assert read_records(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", "3\n", "row 1 is no row"),
        ("a.jsonl", '{"settings": "", "source": "a", "id": "b", "status": "correct"}\n', "row 1 is no row"),
        ("a.parquet", "PAR1", "is not a readable Parquet file"),
        ("b.jsonl", None, "cannot read"),
    ],
)
def test_files_that_are_no_rows(name: str, content: str | None, error: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=error):
        read_records(tmp_path / name)


# Exams


def test_the_first_rows_keep_together_what_is_one_row() -> None:
    exam = exam_of(6, protocols={"official": Protocol(by(), unit=_pair)})
    assert [item.problem.id for item in exam.first(2).items] == ["q0", "q1", "q2", "q3"]
    assert exam.first(None) is exam
    assert len(exam_of(6).first(2).items) == 2


def test_questions_about_one_picture_stand_and_fall_together() -> None:
    """Six questions about each of 20 pictures, all right or all wrong: no more is known than of 20 questions."""
    problems = [
        Problem(id=f"{p}-{q}", question="?", answer="Yes", kind="verdict", images=(f"{p}.png",))
        for p in range(20) for q in range(6)
    ]  # fmt: skip
    exam = exam_of_problems("pope", [*problems, Problem(id="alone", question="?", answer="Yes", images=("x.png",))])
    assert len(exam.first(3).items) == 3, "each question is a row of its own"
    assert PICTURE not in exam.items[-1].meta
    protocol = exam.protocols["rule"]
    graded = [[Graded(float(int(item.problem.id.partition("-")[0]) % 2))] for item in exam.items[:-1]]
    found = total(protocol, exam.items[:-1], graded)
    independent = wilson(10, 20)
    assert (found["score"], found["units"]) == (0.5, 20)
    assert found["high"] - found["low"] == pytest.approx(independent[1] - independent[0], rel=0.1)


def test_protocols_are_picked_by_name() -> None:
    exam = exam_of(1, protocols={"reference": Protocol(by()), "rule": Protocol(by())})
    assert exam.main == "rule"
    assert list(exam.only(["reference"]).protocols) == ["reference"]
    assert list(exam.only([]).protocols) == ["reference", "rule"]
    with pytest.raises(UserError, match="sums has no protocol official; it has reference, rule"):
        exam.only(["official"])


def test_images_that_are_not_there_are_counted_without_opening_any(tmp_path: Path) -> None:
    (tmp_path / "here.png").write_text("never opened")
    images = (str(tmp_path / "here.png"), str(tmp_path / "gone.png"), "data:image/png;base64,AAAA", b"bytes")
    exam = exam_of_problems("seen", [Problem(id="a", question="?", answer="", images=images)])
    assert missing_images(exam) == (1, 4, str(tmp_path / "gone.png"))


# The list of benchmarks


@pytest.mark.parametrize("module", MODULES)
def test_every_benchmark_of_the_list_is_there_and_complete(module: str) -> None:
    first, *others = in_module(module)
    assert first.name.replace("-", "_") == module
    assert MODULES[module] in {first.group, None}
    for benchmark in (first, *others):
        assert find(benchmark.name) is benchmark
        assert benchmark.files
        assert benchmark.protocols


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("MATH-500", "math500"), ("mmlu-stem", "mmlu_stem"), ("GSM8K", "gsm8k"), ("VL-RewardBench", "vl_rewardbench"),
     ("RewardBench2_Ratings", "rewardbench2-ratings"), ("dynamath_all", "dynamath-all")],
)  # fmt: skip
def test_spelling_does_not_matter(spelling: str, name: str) -> None:
    assert find(spelling).name == name


def test_near_misses_are_named() -> None:
    with pytest.raises(UserError, match="there is no benchmark 'gsmk'; did you mean gsm8k"):
        find("gsmk")
    with pytest.raises(UserError, match=r"did you mean math-(llm|vlm) or math-"):
        find("math-lm")
    with pytest.raises(UserError, match="known are gsm8k, math500,"):
        find("qqqqqqqqqq")


def test_groups() -> None:
    assert members("math-llm") == ("gsm8k", "math500", "aime24", "aime25", "amc23", "mmlu_stem")
    assert members("MATH_VLM")[:2] == ("mathvista", "mathvision")
    assert members("gsm8k") == ()
    assert len(members("all")) == sum(group is not None for group in MODULES.values())


def test_a_benchmark_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gsm8k: there is no llm/gsm8k_test\.jsonl or "):
        exam_of_benchmark(find("gsm8k"), tmp_path)
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "gsm8k_test.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "so\n#### 2"}) + "\n")
    exam = exam_of_benchmark(find("gsm8k"), tmp_path)
    meta: Mapping[str, Any] = exam.items[0].meta
    assert (exam.items[0].problem.answer, len(exam.items)) == ("2", 1)
    json.dumps(dict(meta))


def test_ids_are_unique(tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    rows = [{"unique_id": "a", "problem": "x?", "answer": "1", "level": 1, "subject": "s"}] * 2
    (tmp_path / "llm" / "math500.jsonl").write_text("\n".join(map(json.dumps, rows)))
    math500 = find("math500")
    assert [item.problem.id for item in exam_of_benchmark(math500, tmp_path).items] == ["a", "a-2"]
    careless = replace(math500, load=lambda path: [item for item in math500.load(path)[:1] for _ in range(2)])
    with pytest.raises(UserError, match="two items have the id 'a'"):
        exam_of_benchmark(careless, tmp_path)
