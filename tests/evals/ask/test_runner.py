"""Whole sets asked row by row: what rows hold, what they add up to, and runs that were killed and continued."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from running import BASE, reasoner_of
from spark_rl import Problem, load_config
from spark_rl.backend import Backend, open_backend
from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.errors import UserError
from spark_rl.evals.ask.exam import Exam, exam_of_problems
from spark_rl.evals.ask.records import Record, RecordFile, read_records, write_parquet
from spark_rl.evals.ask.runner import BATCH, Examiner, batches, fingerprint, new_record, parts
from spark_rl.evals.ask.view import EvaluationView, evaluation_tables, short_name
from spark_rl.evals.benchmark import Item, Protocol
from spark_rl.evals.score.grading import grade
from spark_rl.evals.score.scorers import rule
from spark_rl.evals.score.totals import results
from spark_rl.problem import Completion
from spark_rl.report.console import Pace
from spark_rl.verify import Verifier, extract_boxed

SETTINGS = ("model.threads=1", "inference.max_new_tokens=40", "inference.reflect_temperature=1.0")


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_backend(load_config("tiny", SETTINGS, model={"path": BASE}))


@pytest.fixture(scope="module")
def exam() -> Exam:
    return exam_of_problems("puzzles", load_problems("procedural:missing", DataConfig(), "heldout")[: BATCH + 8])


def examiner(backend: Backend, rounds: int = 0, longest: int = 100, **options: Any) -> Examiner:
    reasoner = reasoner_of(backend)
    config = reasoner.config.model_copy(update={"rounds": rounds})
    return Examiner(replace(reasoner, config=config), Verifier(), longest, "abc", **{"judges": True, **options})


def ask(backend: Backend, exam: Exam, rounds: int = 0, **options: Any) -> list[Record]:
    return [row for batch in examiner(backend, rounds, **options).ask(exam) for row in batch]


def timeless(rows: Sequence[Record]) -> list[Record]:
    """The rows without their seconds, and P(Yes) as far as the rounding of logits leaves it alone."""
    kept = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    chance = "verdict_probability"
    return [row | {chance: None if row[chance] is None else round(row[chance], 3)} for row in kept]


@pytest.fixture(scope="module")
def rows(backend: Backend, exam: Exam) -> list[Record]:
    return ask(backend, exam)


def test_a_row_holds_what_the_model_said_and_what_is_true_of_it(
    backend: Backend, exam: Exam, rows: list[Record]
) -> None:
    reasoner, problems = reasoner_of(backend), [item.problem for item in exam.items]
    answers = reasoner.answer(problems)
    judged = reasoner.judge(problems, [answer.response for answer in answers])
    assert [row["id"] for row in rows] == [problem.id for problem in problems]
    for row, problem, answer, (judgement, accepted, tokens, chance) in zip(
        rows, problems, answers, judged, strict=True
    ):
        right = (extract_boxed(answer.response) or "").strip() == problem.answer
        status = "correct" if right else "wrong"
        assert row["seconds"] > 0
        assert {key: value for key, value in row.items() if key != "seconds"} == {
            "settings": "abc", "source": "puzzles", "benchmark": False, "id": problem.id, "question": problem.question,
            "prompt": f"solve {problem.question}", "system": None, "label": problem.answer, "kind": problem.kind,
            "alternatives": [], "choices": [], "meta": {},
            "prompt_tokens": len(reasoner.chat.encode(problem).token_ids), "images": 0,
            "image_sizes": [], "response": answer.response, "extracted": answer.answer, "status": status,
            "reward": float(right), "tokens": answer.tokens,
            "grades": {"rule": {"score": float(right), "extracted": answer.answer, "status": status}}, "samples": [],
            "judgement": judgement, "accepted": accepted, "judge_tokens": tokens,
            "verdict_probability": chance, "rounds": 0, "final": None,
        }  # fmt: skip


def test_a_judgement_is_asked_for_only_where_it_is_wanted(backend: Backend, exam: Exam, rows: list[Record]) -> None:
    plain = ask(backend, exam, judges=False)
    assert [row["response"] for row in plain] == [row["response"] for row in rows]
    assert {(row["judgement"], row["accepted"], row["judge_tokens"]) for row in plain} == {(None, None, 0)}
    assert "judge" not in results(exam, plain)


class Engine:
    """Counts what is asked of a real engine, and keeps the prompts."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.prompts = engine, []

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> Any:
        self.prompts += prompts
        return self.engine.generate(prompts, sampling)


def watched(one: Examiner) -> tuple[Examiner, Engine]:
    engine: Any = Engine(one.reasoner.engine)
    return replace(one, reasoner=replace(one.reasoner, engine=engine)), engine


def test_a_benchmarks_own_system_message_is_what_the_model_reads(backend: Backend, exam: Exam) -> None:
    items = (replace(exam.items[0], system="be brief"), exam.items[1])
    one, engine = watched(examiner(backend, judges=False))
    (rows,) = one.ask(replace(exam, items=items))
    assert engine.prompts[0].messages[0] == {"role": "system", "content": "be brief"}
    assert [message["role"] for message in engine.prompts[1].messages] == ["user"]
    assert [row["system"] for row in rows] == ["be brief", None]


def test_every_prompt_is_encoded_once(backend: Backend, exam: Exam) -> None:
    encoded = []

    class Chat(type(backend.chat)):  # type: ignore[misc]
        def encode(self, problem: Problem, system: str | None = None) -> Any:
            encoded.append(problem.id)
            return super().encode(problem, system)

    one = examiner(backend, judges=False)
    chat = Chat(backend.loaded.tokenizer, backend.config.chat)
    list(replace(one, reasoner=replace(one.reasoner, chat=chat)).ask(exam))
    assert encoded == [item.problem.id for item in exam.items]


def test_several_samples_an_item(backend: Backend, exam: Exam) -> None:
    few = replace(exam, items=exam.items[:6])
    rows = ask(backend, few, samples=4, temperature=1.0, judges=False)
    assert [len(row["samples"]) for row in rows] == [3] * 6
    assert any(row["response"] != sample["response"] for row in rows for sample in row["samples"])
    for row in rows:
        for answer in (row, *row["samples"]):
            right = (extract_boxed(answer["response"]) or "").strip() == row["label"]
            assert answer["grades"]["rule"]["score"] == answer["reward"] == float(right)
    assert timeless(rows) == timeless(ask(backend, few, samples=4, temperature=1.0, judges=False))


def test_results_are_what_the_rows_add_up_to(exam: Exam, rows: list[Record]) -> None:
    found = results(exam, rows)
    right = [row["response"].endswith(f"\\boxed{{{row['label']}}}") for row in rows]
    assert 0 < sum(right) < len(right)
    assert found["rule"]["score"] == sum(right) / len(right)
    assert found["rule"]["n"] == len(rows) == BATCH + 8
    said = [row["judgement"].endswith("\\boxed{Yes}") for row in rows]
    assert found["judge"]["accuracy"]["score"] == sum(a == b for a, b in zip(said, right, strict=True)) / len(right)
    assert list(found) == ["rule", "judge", "about"]
    about = found["about"]
    assert about["statuses"]["correct"] + about["statuses"]["wrong"] == len(rows)
    assert about["prompt_tokens"]["max"] == max(row["prompt_tokens"] for row in rows)
    assert about["tokens"] == sum(row["tokens"] + row["judge_tokens"] for row in rows)
    assert (about["images"], about["smallest"], about["skipped"]) == (0, None, 0)
    json.dumps(found, allow_nan=False)


def test_test_time_scaling_starts_from_the_same_answers(backend: Backend, exam: Exam, rows: list[Record]) -> None:
    scaled = ask(backend, exam, rounds=2)
    for plain, row in zip(rows, scaled, strict=True):
        assert (row["response"], row["judgement"]) == (plain["response"], plain["judgement"])
        final = row["final"]
        assert (final["answers"] == 1) == (row["accepted"] is True)
        if final["answers"] == 1:
            assert final["response"] == row["response"]
            assert final["tokens"] == row["tokens"] + row["judge_tokens"]
    found = results(exam, scaled)
    assert found["rule"] == results(exam, rows)["rule"]
    assert found["rule+tts"]["score"] == sum(row["final"]["extracted"] == row["label"] for row in scaled) / len(scaled)
    assert {1, 3} <= {row["final"]["answers"] for row in scaled}


def test_too_long_prompts_are_skipped_and_counted_apart(backend: Backend, exam: Exam) -> None:
    first, second, third = (item.problem for item in exam.items[:3])
    few = exam_of_problems("few", (first, replace(second, question=second.question + "+1" * 60), third))
    found = ask(backend, few)
    assert [row["status"] == "skipped" for row in found] == [False, True, False]
    assert found[1]["response"] is found[1]["accepted"] is None
    assert found[1]["grades"] == {}
    assert found[1]["prompt_tokens"] > 100
    total = results(few, found)
    assert (total["rule"]["n"], total["judge"]["accuracy"]["n"], total["about"]["skipped"]) == (2, 2, 1)
    together = replace(few, protocols={"all": Protocol(rule, headline_is_mean=False, unit=lambda item: item.meta["g"])})
    together = replace(together, items=tuple(Item(i.problem, {"g": str(n // 2)}) for n, i in enumerate(few.items)))
    assert results(together, ask(backend, together))["all"]["n"] == 1, "what belongs to a skipped item is left out"
    assert set(found[1]) == set(found[0])
    nothing = results(few, ask(backend, few, longest=1))
    assert (nothing["rule"]["score"], nothing["about"]["skipped"]) == (None, 3)


class Refusing(Engine):
    """Refuses what has a word in it, as a server does."""

    def __init__(self, engine: Any, *words: str) -> None:
        super().__init__(engine)
        self.words = words

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> Any:
        found = super().generate(prompts, sampling)
        said = Completion("", (), (), "refused", 0, "HTTP 400: too long")
        return [
            [said] * sampling.n if any(word in prompt.text for word in self.words) else completions
            for prompt, completions in zip(prompts, found, strict=True)
        ]


def refusing(one: Examiner, *words: str) -> Examiner:
    engine: Any = Refusing(one.reasoner.engine, *words)
    return replace(one, reasoner=replace(one.reasoner, engine=engine))


@pytest.mark.parametrize("options", [{}, {"rounds": 1}, {"samples": 3, "temperature": 1.0, "judges": False}])
def test_a_refused_request_is_a_row_of_its_own_status(
    backend: Backend, exam: Exam, tmp_path: Path, options: dict[str, Any]
) -> None:
    few = replace(exam, items=exam.items[:4])
    bad = few.items[1].problem.question
    (rows,) = refusing(examiner(backend, **options), f"solve {bad}").ask(few)
    (plain,) = examiner(backend, **options).ask(few)
    row = rows[1]
    assert (row["status"], row["error"], row["response"], row["reward"]) == ("refused", "HTTP 400: too long", None, 0.0)
    assert (row["judgement"], row["accepted"]) == (None, None), "there is nothing to judge"
    others = [(sample["status"], sample["error"], sample["response"]) for sample in row["samples"]]
    assert others == [("refused", "HTTP 400: too long", None)] * (options.get("samples", 1) - 1)
    assert all("error" not in other for other in rows if other is not row)
    if "samples" not in options:
        assert timeless([rows[0], *rows[2:]]) == timeless([plain[0], *plain[2:]]), "the others are as ever"
    if "rounds" in options:
        assert (row["final"]["status"], row["final"]["error"], row["final"]["answers"]) == ("refused", row["error"], 0)
    found = results(few, rows)
    assert found["rule"]["n"] == 4
    assert found["about"]["refused"] == 1
    assert sum(found["about"]["statuses"].values()) == 3, "refused is not wrong"
    assert found["about"]["missing"] == 0
    if "rounds" in options:
        assert found["rule+tts"]["n"] == 4
    if options.get("judges", True):
        assert found["judge"]["accuracy"]["n"] == 3
    (asked, *_) = evaluation_tables({"few": found})
    cells = {str(column.header): [str(cell) for cell in column.cells] for column in asked.columns}
    assert (cells["rows"], cells["refused"], cells["no answer"]) == (["4"], ["1"], [str(noanswers(rows))])
    # what is read back is graded again as it was
    path = tmp_path / "rows.jsonl"
    RecordFile(path, "abc").append(rows)
    again = read_records(path)
    grade(again, few, Verifier(), again=True)
    assert again == rows
    write_parquet(tmp_path / "rows.parquet", rows)
    assert results(few, read_records(tmp_path / "rows.parquet")) == found
    assert RecordFile(path, "abc", resume=True).done("puzzles") == {row["id"] for row in rows}, (
        "a continued run keeps it"
    )


def noanswers(rows: Sequence[Record]) -> int:
    return sum(row["status"] == "no_answer" for row in rows)


def test_a_refused_judgement_is_said(backend: Backend, exam: Exam, caplog: pytest.LogCaptureFixture) -> None:
    few = replace(exam, items=exam.items[:2])
    (rows,) = refusing(examiner(backend), "judge ").ask(few)
    assert [(row["judgement"], row["accepted"]) for row in rows] == [("", None)] * 2
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "2 of 2 requests to judge were refused: the first because of HTTP 400: too long"


def test_a_grader_that_is_refused_grades_nothing() -> None:
    def as_it_is(item: Item, response: str) -> str:
        return response if item.problem.id == "p" else ""

    def judge(turns: Sequence[str]) -> list[str | None]:
        return replies[: len(turns)]

    protocol = Protocol(rule, ask_judge=as_it_is)
    item = Item(Problem("p", "1+1?", "2"))
    exam = Exam("graded", (item,), {"judged": protocol}, "judged")
    replies: list[str | None] = [None]
    row = new_record("", exam, item) | {"response": "\\boxed{2}"}
    grade([row], exam, Verifier(), judge)
    assert (row["status"], row["replies"], row["reward"]) == ("no_answer", {}, 0.0)
    replies = ["\\boxed{2}"]
    row["grades"] = {}
    grade([row], exam, Verifier(), judge)
    assert (row["status"], row["replies"]) == ("correct", {"judged": "\\boxed{2}"})


def test_progress_counts_what_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    with EvaluationView(1, 2, Console(width=200), clock=lambda: 0.0) as view:
        view.batch("few", [{"status": "correct"}, {"status": "refused"}])
    assert capsys.readouterr().out.startswith("few | 2/2 | 1 right | 1 refused | ")


@pytest.mark.parametrize("lines", [0, 1, BATCH, BATCH + 1, BATCH + 8])
def test_a_killed_run_continues_where_it_was(
    lines: int, tmp_path: Path, backend: Backend, exam: Exam, rows: list[Record]
) -> None:
    """Whatever a kill left, a torn line included, the file ends as if there had been none; nothing is asked twice."""
    path = tmp_path / "deep" / "rows.jsonl"
    path.parent.mkdir()
    whole = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    kept = b"".join(line + b"\n" for line in whole.splitlines()[:lines])
    path.write_bytes(kept + (b'{"settings": "abc", "sou' if lines < len(rows) else b""))
    file = RecordFile(path, "abc", resume=True)
    one, engine = watched(examiner(backend))
    done = file.done("puzzles")
    left = batches(exam, done)
    asked = list(one.ask(exam, done))
    for batch in asked:
        file.append(batch)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert timeless(written) == timeless(rows) == timeless(file.records)
    first = {f"solve {item.problem.question}": item.problem.id for item in exam.items}
    read = [first[turn] for p in engine.prompts if (turn := p.messages[-1]["content"]) in first]
    assert read == [item.problem.id for item in exam.items[lines:]]
    assert (len(asked), len(read)) == left


@pytest.mark.parametrize(
    ("count", "images", "sizes"),
    [(0, 0, []), (31, 0, [31]), (40, 0, [32, 8]), (130, 0, [32, 32, 64, 2]), (100, 1, [32, 32, 32, 4]),
     (1000, 0, [32, 32, 64, 128, 256, 256, 232])],
)  # fmt: skip
def test_batches_grow_with_what_is_done(count: int, images: int, sizes: list[int]) -> None:
    problems = [Problem(f"p{n}", "?", "1", images=("a.png",) * images) for n in range(count)]
    exam = exam_of_problems("many", problems)
    found = [list(range(count))[part] for part in parts(exam)]
    assert [len(part) for part in found] == sizes
    assert [n for part in found for n in part] == list(range(count))
    assert batches(exam) == (len(sizes), count)
    assert batches(exam, {f"p{n}" for n in range(32)}) == (max(0, len(sizes) - 1), max(0, count - 32))


def test_sampling_does_not_depend_on_what_was_done_before(exam: Exam) -> None:
    noisy = open_backend(load_config("tiny", [*SETTINGS, "inference.temperature=1.0"], model={"path": BASE}))
    whole = ask(noisy, exam)
    for torn in (BATCH, 5):
        rest = [row for batch in examiner(noisy).ask(exam, {row["id"] for row in whole[:torn]}) for row in batch]
        assert timeless(rest) == timeless(whole[torn:]), "a batch that a kill tore draws what it would have drawn"
    other = ask(noisy, replace(exam, name="other"))
    assert [row["response"] for row in other] != [row["response"] for row in whole]


def test_rows_of_other_sets_and_settings(tmp_path: Path, exam: Exam, rows: list[Record]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], "settings": "else"}) + "\n")
    with pytest.raises(UserError, match="jsonl line 2 was made with another model or other settings"):
        RecordFile(path, "abc", resume=True)
    with pytest.raises(UserError, match="holds results already; continue them with --resume"):
        RecordFile(path, "abc")
    path.write_text("{}\n")
    with pytest.raises(UserError, match="line 1 is no row of an evaluation"):
        RecordFile(path, "abc", resume=True)
    for fault in ({"choices": 5}, {"kind": "weird"}, {"response": 5}, {"samples": [{}]}, {"final": {"response": "a"}}):
        path.write_text(json.dumps(rows[0] | fault) + "\n")
        with pytest.raises(UserError, match=f"row 1 is no row of an evaluation .*{next(iter(fault))}"):
            read_records(path)
    path.write_text(2 * (json.dumps(rows[0]) + "\n"))
    with pytest.raises(UserError, match="row 2 is a second row of"):
        read_records(path)
    path.write_text(json.dumps({**rows[0], "source": "another"}) + "\n")
    file = RecordFile(path, "abc", resume=True)
    assert file.done("puzzles") == set()
    assert file.done("another") == {rows[0]["id"]}
    assert results(exam, file.records)["rule"]["n"] == 0
    RecordFile(tmp_path / "new.jsonl", "abc", resume=True)
    assert not (tmp_path / "new.jsonl").exists(), "a file without rows is not made"


def test_the_fingerprint_follows_what_a_row_depends_on(tmp_path: Path) -> None:
    def mark(*overrides: str, weights: Path | None = None) -> str:
        return fingerprint(load_config("tiny", overrides), weights)

    same = (
        "model.threads=1", "rollout.samples=4", "verify.workers=1", "data.heldout=null", "run_dir=x",
        "engine.dtype=float32",
    )  # fmt: skip
    other = (
        "model.path=x", "chat.system=be brief", "inference.rounds=7", "seed=4", "rollout.max_prompt_tokens=9",
        "model.dtype=bfloat16", "engine.dtype=bfloat16",
    )  # fmt: skip
    assert {mark(override) for override in same} == {mark()}
    assert len({mark(), mark(weights=tmp_path), *map(mark, other)}) == len(other) + 2
    assert len({fingerprint(load_config("tiny"), **asked) for asked in ({}, {"samples": 2}, {"samples": 3})}) == 3


def test_tables_name_the_sets_and_leave_empty_columns_out(exam: Exam, rows: list[Record]) -> None:
    found = {"a/b/c/test.jsonl": results(exam, []), "puzzles": results(exam, rows)}
    asked, right, judged = evaluation_tables(found)
    assert [column.header for column in asked.columns] == [
        "set", "rows", "no answer", "unreadable", "prompt tokens", "longest", "time",
    ]  # fmt: skip
    assert [column.header for column in right.columns] == ["set", "protocol", "n", "score", "95% interval"]
    cells = {str(column.header): [str(cell) for cell in column.cells] for column in right.columns}
    assert cells["set"] == ["c/test.jsonl", "puzzles"]
    score, low, high = (100 * found["puzzles"]["rule"][name] for name in ("score", "low", "high"))
    assert cells["score"] == ["–", f"{score:.1f}"]
    assert cells["95% interval"] == ["–", f"{low:.1f} to {high:.1f}"]
    assert [str(cell) for cell in judged.columns[0].cells] == ["puzzles"]
    assert short_name("gsm8k:main@test") == "gsm8k:main@test"


def test_the_time_left_counts_this_session_only(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    now = 0.0
    view = EvaluationView(4, 100, Console(width=200), clock=lambda: now)
    assert isinstance(view._pace, Pace)
    with view:
        for seconds in (50.0, 10.0, 10.0):
            now += seconds
            view.batch("a/b/c.jsonl", [{"status": "correct"}, *[{"status": "wrong"}] * 24])
    assert capsys.readouterr().out.splitlines() == [
        "b/c.jsonl | 25/100 | 1 right | 0.5 problems/s | – left",
        "b/c.jsonl | 50/100 | 2 right | 0.833 problems/s | 20 s left",
        "b/c.jsonl | 75/100 | 3 right | 1.07 problems/s | 10 s left",
    ]
