"""Problems from data in memory: what may be handed over, that it reads like a file, and streams."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from PIL import Image

from spark_rl.config import DataConfig, load_config
from spark_rl.data import load_problems
from spark_rl.data.batches import LOOK_BACK, Streamed
from spark_rl.data.images import open_image
from spark_rl.data.memory import MemorySource, asked, check_data, in_memory
from spark_rl.data.source import CHUNK
from spark_rl.errors import DataError
from spark_rl.problem import Problem

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(10)]


def source(data: Any, **settings: Any) -> MemorySource:
    return MemorySource(data, "train", load_config(data=settings).data)


def numbers(last: int | None = None, *, bad: int = 0) -> Iterator[dict[str, Any]]:
    """Rows without end, or as many as ``last``; every ``bad``-th has no answer."""
    for n in itertools.count() if last is None else range(last):
        yield {"question": f"What is {n}?", "answer": "" if bad and n % bad == bad - 1 else str(n)}


class Endless:
    """What can be gone through again and again, and not counted."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return numbers()


def test_rows_in_memory_are_the_problems_of_a_file(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "no answer", "answer": ""}, {"question": "Pick", "choices": ["x", "y"], "answer": 1}]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = load_problems(str(file), DataConfig())
    here = source(rows).problems()
    assert [(p.id, p.question, p.answer, p.kind, p.choices) for p in here] == [
        (p.id, p.question, p.answer, p.kind, p.choices) for p in read
    ]
    assert len(here) == len(rows) - 1


@pytest.mark.parametrize(
    "data",
    [
        ROWS, tuple(ROWS), Dataset.from_list(ROWS), Dataset.from_list(ROWS * 2).select(range(10)),
        DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])}),
        Dataset.from_list(ROWS).with_transform(lambda batch: batch),
    ],
    ids=["list", "tuple", "Dataset", "selected", "DatasetDict", "transformed"],
)  # fmt: skip
def test_every_kind_of_data_gives_the_same_problems(data: Any) -> None:
    assert not source(data).streams
    assert source(data).problems() == source(ROWS).problems()


@pytest.mark.parametrize(
    "data",
    [IterableDataset.from_generator(lambda: iter(ROWS)), lambda: iter(ROWS)],
    ids=["IterableDataset", "function"],
)
def test_a_stream_gives_the_same_problems(data: Any) -> None:
    assert source(data).streams
    assert tuple(source(data).once()) == source(ROWS).problems()


def test_problems_are_taken_as_they_are_with_ids_of_their_own() -> None:
    given = [Problem(id="a", question="1?", answer="1"), Problem(id="a", question="2?", answer="2")]
    given.append(Problem(id="", question="3?", answer="3"))
    assert [p.id for p in source(given).problems()] == ["a", "a-2", "train-3"]


def test_rows_of_trl_are_read() -> None:
    chat = [{"role": "user", "content": "What is 2 + 2?"}]
    rows = [
        {"prompt": "What is 1 + 1?", "solution": r"so \boxed{2}"},
        {"prompt": chat, "solution": r"it is \boxed{4}"},
    ]
    assert [(p.question, p.answer) for p in source(rows).problems()] == [
        ("What is 1 + 1?", "2"), ("What is 2 + 2?", "4"),
    ]  # fmt: skip
    assert [p.question for p in source(Dataset.from_list([rows[1]])).problems()] == ["What is 2 + 2?"]


def test_a_system_turn_is_left_out_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    (problem,) = source([{"prompt": chat, "answer": "2"}]).problems()
    assert problem.question == "1 + 1?"
    assert "chat.system" in caplog.text


def test_images_may_be_pictures_bytes_or_mappings() -> None:
    picture = Image.new("RGB", (40, 30), "red")
    held = io.BytesIO()
    picture.save(held, "PNG")
    rows = [
        {"question": "Colour?", "answer": "red", "image": image}
        for image in (picture, held.getvalue(), {"bytes": held.getvalue(), "path": None}, [picture])
    ]
    problems = source(rows).problems()
    assert [open_image(p.images[0]).getpixel((1, 1)) for p in problems] == [(255, 0, 0)] * 4
    hub = Dataset.from_list([{"question": "Colour?", "answer": "red", "image": {"bytes": held.getvalue()}}])
    assert source(hub).problems()[0].images == (held.getvalue(),)


def test_what_can_not_be_used_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert len(source([*ROWS, {"question": "?", "answer": None}]).problems()) == 10
    assert "skipped 1 of 11 rows of train: first is row 11" in caplog.text


def test_the_settings_of_data_hold() -> None:
    rows = [{**row, "hard": n, "asked": row["question"]} for n, row in enumerate(ROWS)]
    settings: dict[str, Any] = {"limit": 2, "ranges": {"hard": [3, None]}, "columns": {"question": "asked"}}
    assert [p.answer for p in source(rows, **settings).problems()] == ["4", "5"]
    assert [p.answer for p in source(lambda: iter(rows), **settings).once()] == ["4", "5"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "train is a NoneType"),
        (3, "train is a int"),
        ("gsm8k", "train is a str"),
        ({"question": ["a"]}, "train is a dict"),
        (Dataset, "train is the class Dataset"),
        (object(), "train is a object"),
    ],
)
def test_what_is_no_data_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        check_data(data, "train")
    assert "must be a datasets.Dataset" in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "train has no rows"),
        (["text"], "rows must be objects with named columns"),
        ([{"text": "a", "label": "b"}], "no column for the question"),
        ([Problem("a", "1?", "1"), {"question": "2?"}], "a dict among Problem records"),
        ([Problem("a", " ", "1")], "has no question"),
        (DatasetDict({"test": Dataset.from_list(ROWS)}), "no split 'train'; set data.split to one of: test"),
        (lambda: iter(ROWS), "can't be counted"),
    ],
)
def test_data_that_can_not_be_used_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        source(data).problems()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter(ROWS), "can be gone through once only; give the function"),
        (lambda: "text", "returned a str"),
        (lambda: iter(()), "has no rows"),
        (lambda: iter([{"question": "?", "answer": ""}] * 300), "none of .* rows is usable"),
    ],
)
def test_a_stream_that_can_not_be_used_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(source(data).once())


def test_an_endless_stream_says_what_it_leaves_out_and_keeps_none_of_it(caplog: pytest.LogCaptureFixture) -> None:
    stream = source(Endless()).once()
    assert [p.answer for p in itertools.islice(stream, 3)] == ["0", "1", "2"]
    stream = source(lambda: numbers(bad=4)).once()
    for _ in itertools.islice(stream, 3 * CHUNK):
        pass
    assert f"skipped {CHUNK // 4} of {CHUNK} rows of train" in caplog.text
    assert f"skipped {CHUNK // 2} of {2 * CHUNK} rows of train" in caplog.text


def batches(data: Any, size: int = 4) -> Streamed:
    return Streamed(source(data).once, size)


def test_a_stream_is_batched_in_order_and_begins_again() -> None:
    stream = batches(lambda: numbers(10))
    drawn = [[p.answer for p in stream.of(step)] for step in range(4)]
    assert drawn == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9", "0", "1"], ["2", "3", "4", "5"]]


def test_a_step_has_the_same_problems_whenever_it_is_asked() -> None:
    stream, other = batches(lambda: numbers(10)), batches(lambda: numbers(10))
    straight = [stream.of(step) for step in range(6)]
    other.of(0)
    assert other.of(5) == straight[5]  # as a resumed run asks
    assert stream.of(5 - LOOK_BACK + 1) == straight[5 - LOOK_BACK + 1]
    assert stream.of(0) == straight[0]
    assert stream.of(5) == straight[5]


def test_held_out_problems_are_left_out_on_the_way() -> None:
    stream = batches(lambda: numbers(10))
    stream.hold_out([Problem("h", "What is  1?", "1"), Problem("h", "What is 2?", "2")])
    assert [p.answer for p in stream.of(0)] == ["0", "3", "4", "5"]


def test_a_stream_of_held_out_problems_does_not_hang() -> None:
    stream = batches(lambda: numbers(2))
    stream.hold_out([Problem("h", "What is 0?", "0"), Problem("h", "What is 1?", "1")])
    with pytest.raises(DataError, match="no problem that is not held out"):
        stream.of(0)


def test_a_digest_says_whether_data_is_the_same() -> None:
    problems = source(ROWS).problems()
    assert in_memory("train_dataset", problems) == in_memory("train_dataset", source(list(ROWS)).problems())
    assert in_memory("train_dataset", problems) != in_memory("train_dataset", problems[::-1])
    assert in_memory("train_dataset", problems).startswith("memory:train_dataset (10 problems, ")
    with pytest.raises(DataError, match="given from Python"):
        load_problems(in_memory("train_dataset", problems), DataConfig())


def test_a_question_becomes_a_problem() -> None:
    images = DataConfig().images
    picture = Image.new("RGB", (40, 30), "red")
    assert asked("1 + 1?", (), images).question == "1 + 1?"
    assert len(asked("What is it?", [picture], images).images) == 1
    problem = Problem("a", "1?", "1")
    assert asked(problem, (), images) is problem
    for question, given, message in [
        ("", (), "empty"), (3, (), "a int"), (problem, [picture], "own images"), ("?", ["none.png"], "no such file"),
        ("<image> and <image>", [picture], "2 <image> markers"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=message):
            asked(question, given, images)  # type: ignore[arg-type]


def _breaks() -> Iterator[dict[str, Any]]:
    yield {"question": "1+1", "answer": "2"}
    raise OSError("connection\nlost")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_breaks, r"train_dataset raised OSError: connection lost \(test_memory\.py line \d+\)"),
        (lambda: 1 / 0, r"train_dataset raised ZeroDivisionError: division by zero"),
        (lambda _missing: [], r"train_dataset raised TypeError: .*missing 1 required positional argument"),
    ],
)
def test_what_the_users_own_code_raises_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as found:
        list(MemorySource(data, "train_dataset", DataConfig()).once())
    assert found.value.__cause__ is not None, "and its traceback is not lost"
