"""Files that somebody else wrote: pipes, bombs, names that lead elsewhere, values that Python has no object for."""

from __future__ import annotations

import json
import logging
import os
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.errors import LONGEST, UserError

QUESTION, ANSWER = "What is 6 times 7?", "42"
BOMB = "expand to"


def table(**columns: Any) -> pa.Table:
    count = len(next(iter(columns.values()), [0]))
    return pa.table({"question": [QUESTION] * count, "answer": [ANSWER] * count, **columns})


def saved(folder: Path, rows: pa.Table, *, compression: str | None = None, name: str = "data.arrow") -> str:
    """A folder as ``Dataset.save_to_disk`` writes it."""
    folder.mkdir(exist_ok=True)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_stream(file, rows.schema, options=options) as writer:
            writer.write_table(rows)
    state = {"_data_files": [{"filename": name}], "_fingerprint": "0", "_format_columns": None, "_format_kwargs": {},
             "_format_type": None, "_output_all_columns": False, "_split": None}  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return str(folder)


def refusal(spec: str | Path) -> str:
    with pytest.raises(UserError) as refused:
        load_problems(str(spec), DataConfig())
    return str(refused.value)


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "a\0b", "\ud800", "\u202eabc", "a\x85b\u2028c\nd", "x" * 100_000, "\x07" * 999]
)
def test_a_refusal_is_one_printable_line_whatever_it_quotes(text: str) -> None:
    line = str(UserError(f"file.csv has {text}; mend it"))
    assert line.isprintable()
    assert len(line) <= LONGEST
    assert line.startswith("file.csv has ")
    assert line.endswith("; mend it")


def test_a_refusal_leaves_the_letters_of_other_scripts_as_they_are() -> None:
    assert str(UserError("根号下 \u3000 é 😀\xa0x")) == "根号下 \u3000 é 😀\xa0x"


def test_what_is_said_of_skipped_rows_is_printable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": QUESTION, "answer": ANSWER}, {"question": "?", "answer": "1", "image": "\x1b[2Jgone.png"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.WARNING):
        assert len(load_problems(str(path), DataConfig.model_validate({"images": {"broken": "skip"}}))) == 1
    (line,) = caplog.messages
    assert "x1b[2Jgone.png" in line
    assert line.isprintable()


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_nothing_is_read_from_pipes_and_devices(what: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert "reading it may never end" in refusal(path)


def test_a_saved_folder_is_read(tmp_path: Path) -> None:
    for compression in (None, "lz4", "zstd"):
        (problem,) = load_problems(saved(tmp_path / "saved", table(), compression=compression), DataConfig())
        assert (problem.question, problem.answer) == (QUESTION, ANSWER)


@pytest.mark.parametrize("name", ["../outside.arrow", "/dev/zero", "link.arrow", ""])
def test_a_saved_folder_names_files_beside_it_alone(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    saved(folder, table(), name=name)
    (tmp_path / "outside.arrow").write_bytes((folder / "data.arrow").read_bytes())
    (folder / "link.arrow").symlink_to(tmp_path / "outside.arrow")
    assert "which is no file beside it" in refusal(folder)


def test_texts_that_lie_outside_of_their_buffer_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    saved(folder, table(more=["abcdefghijklmnop"]))
    data = bytearray((folder / "data.arrow").read_bytes())
    offsets = data.index(struct.pack("<ii", 0, 16))
    data[offsets : offsets + 8] = struct.pack("<ii", 2000, 2016)
    (folder / "data.arrow").write_bytes(data)
    assert "no data set saved by datasets" in refusal(folder)


def test_compressed_buffers_that_say_they_are_huge_are_a_bomb(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    saved(folder, table(more=["x" * 100_000]), compression="zstd")
    data = bytearray((folder / "data.arrow").read_bytes())
    at = data.rindex(struct.pack("<q", 100_000) + b"\x28\xb5\x2f\xfd")  # what zstd begins with
    data[at : at + 8] = struct.pack("<q", 2**40)
    (folder / "data.arrow").write_bytes(data)
    assert BOMB in refusal(folder)


def test_texts_that_are_stored_once_and_shared_are_a_bomb(tmp_path: Path) -> None:
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 6000, pa.int32()), pa.array(["x" * 10**6]))
    assert BOMB in refusal(saved(tmp_path / "saved", table(more=shared)))


def test_rows_of_nothing_are_a_bomb_where_there_are_too_many(tmp_path: Path) -> None:
    assert BOMB in refusal(saved(tmp_path / "saved", pa.table({"question": pa.nulls(2 * 10**8)})))


@pytest.mark.parametrize("kind", ["date", "zone"])
def test_values_that_python_has_no_object_for_are_one_line(kind: str, tmp_path: Path) -> None:
    zone = {"date": None, "zone": "Europe/Nowhere"}[kind]
    more = pa.array([2**62 if kind == "date" else 0], pa.int64()).view(pa.timestamp("us", zone))
    assert "can't be read" in refusal(saved(tmp_path / "saved", table(more=more)))
    pq.write_table(table(more=more), tmp_path / "rows.parquet")
    assert "not a readable Parquet file" in refusal(tmp_path / "rows.parquet")


@pytest.mark.parametrize("state", ["[]", "{}", '{"_data_files": 3}', '{"_data_files": [null]}', "[" * 9999, "\ud800"])
def test_a_damaged_state_is_one_line(state: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    saved(folder, table())
    (folder / "state.json").write_bytes(state.encode("utf-8", "surrogatepass"))
    assert "no data set saved by datasets" in refusal(folder)


def test_a_precision_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = {
        "question": QUESTION,
        "choices": None,
        "question_type": "free_form",
        "answer_type": "float",
        "answer": ANSWER,
    }
    path.write_text(json.dumps([{**row, "precision": "9" * 5000}]))
    (problem,) = load_problems(str(path), DataConfig())
    assert QUESTION in problem.question


def test_a_question_of_blank_lines_takes_no_time(tmp_path: Path) -> None:
    """A pattern that begins anew at each of them would take an hour."""
    path = tmp_path / "rows.jsonl"
    question = f"{QUESTION}{' ' * 50_000}x{chr(10) * 80_000}Why?\n\nAnswer:"
    path.write_text(json.dumps({"question": question, "answer": ANSWER}))
    (problem,) = load_problems(str(path), DataConfig())
    assert problem.question.endswith("Why?")
