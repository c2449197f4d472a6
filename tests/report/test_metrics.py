from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.report import MetricsLog, read_metrics


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


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\nnot json\n{"step": 3}\n')
    for read in (read_metrics, MetricsLog):
        with pytest.raises(ValueError, match=r"m\.jsonl, line 2 is not a JSON object"):
            read(path)


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
