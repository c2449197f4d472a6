"""Rollouts that anybody made, as groups: which rows are read how, and what becomes of hostile ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_rl.config import ChatConfig, Config
from spark_rl.errors import UserError
from spark_rl.measure import rollout_records
from spark_rl.problem import Completion, Group, Problem, Rollout, Status, Verdict
from spark_rl.recycle import given as module
from spark_rl.recycle.given import Refused, graded, read_given
from spark_rl.rewards import Grader
from spark_rl.verify import Verifier


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with closing(Verifier()) as made:
        yield made


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def read(path: Path, verifier: Verifier) -> tuple[list[Group], Refused, list[str]]:
    said: list[str] = []
    refused, config = Refused(said.append), Config()
    blocks = graded(read_given([path], config, refused), Grader(verifier), config, refused)
    return [group for block in blocks for group in block], refused, said


def statuses(group: Group) -> list[str]:
    return [rollout.verdict.status for rollout in group.rollouts]


CHAT = [{"role": "user", "content": "2+5"}]


@pytest.mark.parametrize(
    ("rows", "question", "answer", "expected"),
    [
        ([{"question": "2+5", "answer": "7", "responses": ["\\boxed{7}", "\\boxed{8}", "?"]}],
         "2+5", "7", ["correct", "wrong", "no_answer"]),
        ([{"prompt": "2+5", "responses": ["a", "b", "c"], "rewards": [1, 0, 0.5]}],
         "2+5", "", ["correct", "wrong", "failed"]),
        ([{"prompt": CHAT, "completions": [[{"role": "assistant", "content": "\\boxed{7}"}], "\\boxed{9}"],
           "reward_model": {"style": "rule", "ground_truth": 7}}], "2+5", "7", ["correct", "wrong"]),
        ([{"input": "2+5", "output": "\\boxed{7}", "score": -1.0, "gts": "7"},
          {"input": "2+5", "output": "\\boxed{8}", "score": True, "gts": "7"}], "2+5", "7", ["wrong", "correct"]),
        ([{"prompt": "2+5", "responses": [{"text": "x", "status": "wrong"}, {"text": "y", "reward": 1}], "label": "7"}],
         "2+5", "7", ["wrong", "correct"]),
        ([{"step": 3, "task": "policy", "problem": "p-1", "prompt": "2+5", "response": "\\boxed{8}", "label": "7",
           "reward": 1.0, "status": "wrong", "extracted": "8"}], "2+5", "7", ["wrong"]),
    ],
    ids=["verified", "rewards", "verl rows", "verl dump", "objects", "our own"],
)  # fmt: skip
def test_rows_are_read(
    tmp_path: Path, verifier: Verifier, rows: list[Any], question: str, answer: str, expected: list[str]
) -> None:
    (group,), refused, _ = read(write(tmp_path / "r.jsonl", *rows), verifier)
    assert (group.problem.question, group.problem.answer) == (question, answer)
    assert (statuses(group), refused.total) == (expected, 0)


def test_a_parquet_file_reads_as_its_lines_do(tmp_path: Path, verifier: Verifier) -> None:
    rows = [{"prompt": CHAT, "responses": ["\\boxed{7}", "\\boxed{8}"], "answer": "7", "id": str(n)} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    lines = read(write(tmp_path / "r.jsonl", *rows), verifier)[0]
    assert read(tmp_path / "r.parquet", verifier)[0] == lines
    assert len(lines) == 5


def test_judgements_of_our_own_rollouts_are_not_recycled_again(tmp_path: Path, verifier: Verifier) -> None:
    own = {"step": 1, "prompt": "2+5", "response": "\\boxed{Yes}", "label": "Yes", "reward": 1.0, "status": "correct"}
    policy = own | {"task": "policy", "problem": "p", "response": "\\boxed{7}", "label": "7"}
    rows = [policy, own | {"task": "pointwise", "problem": "p/pointwise-cot-0"}, policy | {"step": 2}]
    groups, refused, _ = read(write(tmp_path / "r.jsonl", *rows), verifier)
    assert [(group.problem.id, len(group.rollouts)) for group in groups] == [("p@1", 1), ("p@2", 1)]
    assert refused.total == 0


CHAT_OF_A_RUN = ChatConfig(policy="Solve {question}, quickly", few_shot={"policy": "1+1? 2\n"})
OWN = [
    Problem("p-1", "2+5", "7", alternatives=("seven",)),
    Problem("p-2", "Which is even?", "B", "choice", choices=("3", "4")),
    Problem("p-3", "Say hi.", "hi", "exact"),
]


def own_group(problem: Problem, *statuses: Status) -> Group:
    rollouts = [Rollout(Completion(f"r{n} \\boxed{{{n}}}", (1,), (-0.1,), "stop"), Verdict(0.5, status, str(n)))
                for n, status in enumerate(statuses)]  # fmt: skip
    return Group(problem, tuple(rollouts), (1, 2))


def test_whole_groups_of_our_own_rollouts_are_the_groups_that_they_were(tmp_path: Path, verifier: Verifier) -> None:
    asked = [own_group(problem, "correct", "wrong", "no_answer") for problem in OWN]
    judged = Problem("p-1/pointwise-0", "2+5", "Yes", "verdict", "pointwise", "right?", parent="p-1")
    alone = own_group(Problem("p-4", "2+5", "7"), "wrong")
    records = [record for step in (1, 2)
               for record in rollout_records([*asked, own_group(judged, "correct", "wrong"), alone], step, 9,
                                             CHAT_OF_A_RUN)]  # fmt: skip
    found, refused, _ = read(write(tmp_path / "r.jsonl", *records), verifier)
    assert refused.total == 0
    expected = [(f"{group.problem.id}@{step}", group) for step in (1, 2) for group in (*asked, alone)]
    assert [group.problem.id for group in found] == [name for name, _ in expected]
    for group, (_, before) in zip(found, expected, strict=True):
        now, then = group.problem, before.problem
        assert (now.question, now.golds, now.kind, now.choices) == (then.question, then.golds, then.kind, then.choices)
        assert [(r.text, r.reward, r.verdict.status, r.verdict.extracted) for r in group.rollouts] == [
            (r.text, r.reward, r.verdict.status, r.verdict.extracted) for r in before.rollouts
        ]


def test_problems_say_which_run_they_are_of(
    tmp_path: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollouts of all runs have the same file's name."""
    sources, ids = [], []
    for folder, file in (
        ("a", "rollouts.jsonl"),
        ("b", "rollouts.jsonl"),
        ("b", "mine.jsonl"),
        ("c", "rollouts.jsonl"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        if folder != "c":  # which is no run
            (tmp_path / folder / "config.json").write_text("{}")
        row = {"question": "2+5", "answer": "7", "responses": ["\\boxed{7}"]}
        (group,), _, _ = read(write(tmp_path / folder / file, row), verifier)
        sources.append(group.problem.source)
        ids.append(group.problem.id)
    assert sources == ["a", "b", "mine", "rollouts"]
    assert len(set(ids)) == 4
    monkeypatch.chdir(tmp_path / "a")
    (group,), _, _ = read(Path("rollouts.jsonl"), verifier)
    assert group.problem.source == "a"


def test_a_column_that_happens_to_be_called_others_is_no_group(tmp_path: Path, verifier: Verifier) -> None:
    row = {"question": "2+5", "response": "\\boxed{7}", "answer": "7", "others": [{"response": "x"}]}
    (group,), refused, _ = read(write(tmp_path / "r.jsonl", row), verifier)
    assert (statuses(group), refused.total) == (["correct"], 0)


RECORD = {"step": 1, "task": "policy", "problem": "p", "prompt": "x", "response": "a", "label": "1", "reward": 0.0,
          "status": "wrong", "others": []}  # fmt: skip
HOSTILE: list[tuple[Any, str]] = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"[1]", "not a JSON object"),
    (b'{"question": "\xff"}', "not UTF-8 text"),
    ({"question": "x"}, "no list of texts in 'responses', nor a text in 'response'"),
    ({"question": "x", "responses": "abc"}, "no list of texts in 'responses'"),
    ({"question": "x", "responses": [], "answer": "1"}, "an empty list of responses"),
    ({"question": "x", "responses": [None], "answer": "1"}, "a response that is no text"),
    ({"question": "x", "responses": ["a"]}, "neither an 'answer' to verify the responses by, nor 'rewards'"),
    ({"question": "x", "responses": ["a"], "rewards": [1, 0]}, "2 rewards for 1 responses"),
    ({"question": "x", "responses": ["a"], "rewards": ["1"]}, "a reward that is no finite number"),
    (b'{"question": "x", "responses": ["a"], "rewards": [NaN]}', "a reward that is no finite number"),
    ({"question": "", "responses": ["a"], "answer": "1"}, "no 'question' or 'prompt'"),
    ({"question": {"a": 1}, "responses": ["a"], "answer": "1"}, "the question is a dict, not text or a number"),
    ({"question": "x", "responses": ["a"], "answer": "1", "kind": "maths"}, "unknown kind of answer 'maths'"),
    ({"question": "x", "responses": ["a"], "answer": "1", "choices": [1]}, "'choices' is no list of texts"),
    ({"question": "x", "responses": ["a"], "answer": "1", "images": ["no.png"]}, "image"),
    ({"question": "x", "response": "a", "status": "fine"}, "unknown status 'fine'"),
    ({"question": "x", "responses": ["\\boxed{1}"], "answer": "what?", "kind": "choice"}, "what?"),
    ({"question": "x", "responses": ["a"], "answer": "1", "id": [1]}, "an 'id' that is no text"),
    (RECORD | {"others": ["b"]}, "a response that is no record"),
    (RECORD | {"others": [{"response": None, "status": "wrong", "reward": 0.0}]}, "a response that is no text"),
    (RECORD | {"others": [{"response": "b", "status": "fine", "reward": 0.0}]}, "unknown status 'fine'"),
    (RECORD | {"images_missing": 2}, "more images than the run kept"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "why"), HOSTILE, ids=[why[:30] for _, why in HOSTILE])
def test_a_hostile_row_is_one_line_and_counted(tmp_path: Path, verifier: Verifier, row: Any, why: str) -> None:
    good = {"question": "2+5", "answer": "7", "responses": ["\\boxed{7}"]}
    groups, refused, said = read(write(tmp_path / "r.jsonl", good, row, good), verifier)
    assert (len(groups), refused.total, len(said)) == (2, 1, 1)
    assert said[0].startswith(f"{tmp_path / 'r.jsonl'} line 2 left out: ")
    assert why in said[0]
    assert "\n" not in said[0]


def test_many_hostile_rows_are_not_many_lines(tmp_path: Path, verifier: Verifier) -> None:
    _, refused, said = read(write(tmp_path / "r.jsonl", *[b"{\x1b[31m"] * 500), verifier)
    assert refused.reasons == {"not JSON": 500}
    assert len(said) == module.SAID + 1


def test_a_line_without_an_end_is_not_held(tmp_path: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2**20)
    good = {"question": "2+5", "answer": "7", "responses": ["\\boxed{7}"]}
    groups, refused, _ = read(write(tmp_path / "r.jsonl", b"x" * (5 * 2**20 + 7), good), verifier)
    assert (len(groups), refused.total) == (1, 1)


def test_a_file_of_nothing_and_a_pipe_are_refused(tmp_path: Path, verifier: Verifier) -> None:
    with pytest.raises(UserError, match="is empty"):
        read(write(tmp_path / "r.jsonl", b"", b" "), verifier)
    with pytest.raises(UserError, match="may never end"):
        read(Path("/dev/zero"), verifier)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_in_one_json_file_is_one_line_that_says_how_to_divide_it(
    tmp_path: Path, verifier: Verifier, indent: int | None
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"question": "2+5", "answer": "7", "responses": ["7"]}] * 2, indent=indent))
    with pytest.raises(UserError, match=r"r\.json is one JSON list; .* jq -c"):
        read(path, verifier)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["question", "prompt", "problem", "responses", "response", "answer", "rewards", "reward", "status", "kind", "task",
     "choices", "images", "id", "step", "reward_model", "gts", "others", "alternatives"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(NAMES, JSON, max_size=8), min_size=1, max_size=4))
def test_whatever_rows_hold_they_are_groups_or_counted(
    tmp_path: Path, verifier: Verifier, rows: list[dict[str, Any]]
) -> None:
    groups, refused, said = read(write(tmp_path / "r.jsonl", *rows), verifier)
    assert sum(len(group.rollouts) > 0 for group in groups) == len(groups)
    assert len(groups) + refused.total <= len(rows)
    assert len(said) == refused.total


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 40), max_size=40), most=st.integers(1, 7), characters=st.integers(1, 90))
def test_blocks_hold_every_group_once_and_end_where_they_must(
    verifier: Verifier, sizes: list[int], most: int, characters: int
) -> None:
    made = [
        module.Given(str(n), Problem(str(n), "q", ""), ("r" * size,), (Verdict(1.0, "correct"),))
        for n, size in enumerate(sizes)
    ]
    config, refused = Config(), Refused(list[str]().append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_GROUPS", most)
        patch.setattr(module, "BLOCK_CHARACTERS", characters)
        blocks = list(graded(iter(made), Grader(verifier), config, refused))
    assert [group.problem.id for block in blocks for group in block] == [one.where for one in made]
    for block in blocks[:-1]:
        size = sum(1 + len(group.rollouts[0].text) for group in block)
        assert len(block) == most or characters <= size
    assert all(len(block) <= most for block in blocks)
