"""Outputs that are there whole or not at all: kills, stops and links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from running import ENVIRONMENT
from spark_rl.commands.lines import LineFile
from spark_rl.errors import UserError
from spark_rl.files import whole_folder

HOLD = """
import sys, time
from pathlib import Path
from spark_rl.files import whole_folder
with whole_folder(Path(sys.argv[1])) as scratch:
    (scratch / "half").write_text("half")
    print("there", flush=True)
    time.sleep(600)
"""


def holding(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process


def write(folder: Path) -> None:
    with whole_folder(folder) as scratch:
        (scratch / "all").write_text("all")


def write_and(then: Callable[[], None], path: Path) -> None:
    with LineFile(path, 0, "writing", whole=True) as file:
        file.write([{"n": 3}])
        then()


def stop() -> None:
    raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_another_writes_is_not(tmp_path: Path) -> None:
    first, second = holding(tmp_path / "out"), holding(tmp_path / "out")
    other = tmp_path / ".other.1.partial"
    other.mkdir()
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not (tmp_path / "out").exists()
        write(tmp_path / "out")
        assert names(tmp_path) == sorted([f".out.{second.pid}.partial", other.name, "out"])
        assert names(tmp_path / "out") == ["all"]
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_partial_folder_of_another_machine_stays_while_it_is_locked(tmp_path: Path) -> None:
    """Its process can't be seen here; its lock can."""
    import fcntl

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    partial = tmp_path / f".out.{gone.pid}.partial"
    partial.mkdir()
    descriptor = os.open(partial, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    write(tmp_path / "out")
    assert names(tmp_path) == [partial.name, "out"]
    os.close(descriptor)
    (tmp_path / "out" / "all").unlink()
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_link_to_an_empty_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link")
    assert (names(tmp_path), names(tmp_path / "real")) == (["link", "real"], ["all"])
    assert (tmp_path / "link").is_symlink()


def test_a_file_of_rows_that_belong_together_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    with LineFile(path, 0, "writing", whole=True) as file:
        file.write([{"n": 1}])
        assert not path.exists()
        file.write([{"n": 2}])
    assert (path.read_text(), names(path.parent)) == ('{"n": 1}\n{"n": 2}\n', ["rows.jsonl"])
    with pytest.raises(KeyboardInterrupt):
        write_and(stop, path)
    assert (path.read_text(), names(path.parent)) == ('{"n": 1}\n{"n": 2}\n', ["rows.jsonl"])
    (tmp_path / "link.jsonl").symlink_to(path)
    with LineFile(tmp_path / "link.jsonl", 0, "writing", whole=True) as file:
        file.write([{"n": 4}])
    assert (path.read_text(), (tmp_path / "link.jsonl").is_symlink()) == ('{"n": 4}\n', True)


def test_a_pipe_gets_rows_as_they_are_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    reader = subprocess.Popen(["cat", tmp_path / "pipe.jsonl"], stdout=subprocess.PIPE)
    with LineFile(tmp_path / "pipe.jsonl", 0, "writing", whole=True) as file:
        file.write([{"n": 1}])
    assert reader.communicate(timeout=60)[0].startswith(b'{"n": 1}\n')


def test_a_file_that_cannot_be_put_in_its_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*rows\.jsonl: "):
        write_and((tmp_path / "rows.jsonl").mkdir, tmp_path / "rows.jsonl")
    assert names(tmp_path) == ["rows.jsonl"]
