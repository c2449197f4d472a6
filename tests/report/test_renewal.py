"""report.html while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.test_html import make_run, record
from spark_rl.report import renewal as module
from spark_rl.report.renewal import Renewal


def test_the_report_is_written_every_so_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 1e9)  # however long a page takes here
    folder = make_run(tmp_path / "run", [record(1)])
    renewal = Renewal(folder, 3, say=pytest.fail)
    assert [renewal.after(step) for step in range(1, 8)] == [False, False, True, False, False, True, False]
    assert "Unfinished" in (folder / "report.html").read_text()
    assert not Renewal(folder, None, say=pytest.fail).after(100)


def test_renewals_wait_while_they_have_taken_their_share_of_the_time(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [record(step) for step in range(1, 200)])
    renewal = Renewal(folder, 1, say=pytest.fail)
    assert renewal.after(1)
    assert not renewal.after(2), "nothing but reports was made since the beginning"


def test_what_is_wrong_with_a_file_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARE", 1e9)
    folder = make_run(tmp_path / "run", [record(1)])
    (folder / "before.json").write_text("{")
    said: list[str] = []
    renewal = Renewal(folder, 1, say=said.append)
    assert [renewal.after(step) for step in (1, 2, 3)] == [False] * 3
    assert len(said) == 1
    assert "report.html is not renewed: " in said[0]
    assert "before.json" in said[0]
