from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.manifest import held
from spark_rl.report import MetricsLog, metrics, read_metrics
from spark_rl.report.metrics import finite, read_rows


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.append({"step": 1, "reward/policy": 0.25})
        log.append({"step": 2, "reward/policy": 0.5, "note": "ü\n"})
    assert read_metrics(path) == [{"step": 1, "reward/policy": 0.25}, {"step": 2, "reward/policy": 0.5, "note": "ü\n"}]


def test_a_record_can_be_read_before_the_log_is_closed(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.append({"step": 1})
    assert read_metrics(log.path) == [{"step": 1}]
    log.close()


def test_what_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.append({"step": 1, "kl": math.nan, "loss": math.inf, "nested": {"x": [-math.inf, 1.0]}})
    record = json.loads(log.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    assert record == {"step": 1, "kl": None, "loss": None, "nested": {"x": [None, 1.0]}}


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.append({"step": np.int64(3), "kl": np.float32(0.5), "gap": np.float32("nan")})
    assert read_metrics(log.path) == [{"step": 3, "kl": 0.5, "gap": None}]


def test_a_number_that_no_float_holds_is_none() -> None:
    assert (finite(10**400), finite(math.inf), finite(7)) == (None, None, 7.0)


def test_what_json_cannot_hold_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log, pytest.raises(ValueError, match="cannot write a set as JSON"):
        log.append({"step": 1, "x": {1, 2}})
    assert log.path.read_bytes() == b""


@pytest.mark.parametrize("step", [None, 1.5, "1", True])
def test_a_record_needs_a_whole_step(tmp_path: Path, step: object) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log, pytest.raises(ValueError, match="needs a whole-number 'step'"):
        log.append({"step": step})


def test_a_log_killed_at_any_byte_opens_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsLog(path) as log:
        for step in (1, 2, 3):
            log.append({"step": step, "x": {"y": 0.5}})
    whole = path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert [record["step"] for record in read_metrics(path)] == list(range(1, complete + 1)), cut
        with MetricsLog(path) as log:
            log.append({"step": 99})
        assert [record["step"] for record in read_metrics(path)] == [*range(1, complete + 1), 99], cut


def test_reading_a_torn_file_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert read_metrics(path) == [{"step": 1}]
    assert path.read_text() == '{"step": 1}\n{"st'


DAMAGED = {
    "no JSON": b"not json", "a list": b"[1]", "no step": b"{}", "a step that is text": b'{"step": "1"}',
    "a step before the first": b'{"step": -1}', "a step that no float holds": b'{"step": 1%s}' % (b"0" * 400),
    "true": b'{"step": true}', "NUL": b"\0" * 40, "UTF-16": '{"step": 1}'.encode("utf-16-le"), "no text": b'"\xff"',
    "deep": b"[" * 20_000, "two rows": b'{"step": 1}{"step": 2}',
}  # fmt: skip


@pytest.mark.parametrize("row", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_row_is_left_out_and_said_once(tmp_path: Path, row: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.jsonl"
    before = b'{"step": 1}\n\n' + row + b'\n{"step": 3}\n' + row + b"\n"
    path.write_bytes(before)
    for _ in range(2):
        assert read_metrics(path) == [{"step": 1}, {"step": 3}]
    assert caplog.messages == [f"{path}: 2 of 4 rows are damaged and left out (lines 3, 5)"]
    with MetricsLog(path) as log:
        assert path.read_bytes() == before, "what can't be read is not removed"
        assert log.held == held(path)


def test_a_row_may_be_too_long_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LONGEST", 100)
    path = tmp_path / "m.jsonl"
    for length in (80, 99, 100, 101, 200, 201, 1000):
        row = b'{"step": 2, "x": "' + b"x" * (length - 21) + b'"}\n'
        assert len(row) == length
        path.write_bytes(b'{"step": 1}\n' + row + b'{"step": 3}\n{"step": 4}')
        records, damage = read_rows(path)
        assert [record["step"] for record in records] == ([1, 2, 3, 4] if length <= 100 else [1, 3, 4])
        assert (damage is None) == (length <= 100)
        with MetricsLog(path) as log:
            assert log.held == held(path)


def test_many_damaged_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("x\n" * 1200)
    assert str(read_rows(path)[1]) == f"{path}: 1,200 of 1,200 rows are damaged and left out (lines 1, 2, 3, 4, 5, ...)"


@pytest.mark.parametrize(
    ("rows", "step", "kept", "left"),
    [
        ("1 2 x 3 4", 3, 0, "1 2 x 3"),
        ("1 2 3 x 4", 3, 0, "1 2 3"),
        ("1 2 3 x 4", 3, 4, "1 2 3 x"),
        ("1 2 3 x y", 3, 4, "1 2 3 x"),
        ("x 1 2", 0, 0, ""),
        ("x 1 2", 0, 1, "x"),
        ("x y", 5, 0, ""),
        ("1 2 x 3", 9, 0, "1 2 x 3"),
    ],
)
def test_a_damaged_row_stays_if_it_is_before_the_checkpoint(
    tmp_path: Path, rows: str, step: int, kept: int, left: str
) -> None:
    def lines(names: str) -> list[bytes]:
        return [b'{"step": %s}\n' % name.encode() for name in names.split()]

    path = tmp_path / "m.jsonl"
    path.write_bytes(b"".join(lines(rows)))
    with MetricsLog(path) as log:
        damage = log.truncate(step, sum(map(len, lines(rows)[:kept])))
        assert path.read_bytes() == b"".join(lines(left))
        assert (0 if damage is None else len(damage.lines)) == left.count("x")
        assert damage is None or damage.rows == len(left.split())
        log.append({"step": 7})
        assert log.held == held(path)
        log.remove(lambda record: record["step"] == 7)
        assert path.read_bytes() == b"".join(lines(left)), "only what can be read is removed"
        assert log.held == held(path)


def test_truncating_drops_later_records_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsLog(path) as log:
        for step in (1, 2, 2, 3, 4):
            log.append({"step": step})
        log.truncate(2)
        assert [record["step"] for record in read_metrics(path)] == [1, 2, 2]
        log.append({"step": 3, "again": 1})
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 2, 3]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.jsonl"], "no scratch file is left behind"


@pytest.mark.parametrize(("step", "left"), [(0, []), (5, [1, 2]), (2, [1, 2])])
def test_truncating_at_the_ends(tmp_path: Path, step: int, left: list[int]) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.append({"step": 1})
        log.append({"step": 2})
        log.truncate(step)
    assert [record["step"] for record in read_metrics(log.path)] == left


@given(st.text())
def test_any_text_survives(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, MetricsLog(Path(folder) / "r.jsonl") as log:
        log.append({"step": 1, "response": text})
        log.append({"step": 2, "response": "\ud800\u2028"})
        assert [record["response"] for record in read_metrics(log.path)] == [text, "\ud800\u2028"]
