"""What runs are called, who writes them, and how they are listed: names, ``latest``, the lock, ``spark-rl runs``."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from running import ENVIRONMENT, SMALL, command, complaints, small, spark_rl_process
from spark_rl.cli import main, parse
from spark_rl.commands import resolve
from spark_rl.config import load_config
from spark_rl.errors import ConfigError, DataError
from spark_rl.lock import LOCK, check_free, hold, holder, last_holder
from spark_rl.manifest import write_manifest
from spark_rl.model.places import find_model
from spark_rl.parts import with_resolved_paths
from spark_rl.run import Run
from spark_rl.runs import find_run, latest_run, mark_latest, new_run, placed, trained_weights

HOLD = "import sys, time\nfrom spark_rl.lock import hold\nfrom pathlib import Path\n"


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that commands are started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(path: Path, **config: object) -> Path:
    """The files of a run that has begun."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"rollout": {}, **config}))
    return path


@contextmanager
def held_by_another(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the directory; killed in the end."""
    program = f"{HOLD}held = hold(Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(100)"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run_dir)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


# Names


def test_runs_that_start_in_one_minute_get_directories_of_their_own() -> None:
    def start(_number: int) -> Path:
        run = opened.enter_context(new_run(3))
        (run / "config.json").touch()
        return run

    with ExitStack() as opened, ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(start, range(16)))
    assert len(set(runs)) == 16
    assert all(run.parent == Path("runs") and "-seed3" in run.name for run in runs)
    assert all(run.is_dir() for run in runs)


def test_a_directory_that_stays_empty_is_gone_again(place: Path) -> None:
    with new_run(0) as run:
        assert run.is_dir()
    assert not list(place.iterdir())


def test_latest_leads_to_the_run_that_was_marked_last() -> None:
    for name in ("a", "b"):
        mark_latest(make_run(Path("runs") / name))
        assert latest_run() == find_run("latest") == find_run("runs/latest") == Path("runs") / name
    assert Path("runs/latest").is_symlink()
    assert Path("runs/latest").readlink() == Path("b"), "the folder may be moved"
    mark_latest(make_run(Path("elsewhere/c")))
    assert not Path("elsewhere/latest").exists()
    assert latest_run() == Path("runs/b")


def test_latest_is_a_text_file_where_there_are_no_links() -> None:
    run = make_run(Path("runs/a"))
    Path("runs/latest").write_text("b\n")
    with pytest.raises(ConfigError, match=r"runs/latest leads to runs/b, which is not there any more"):
        find_run("latest")
    Path("runs/latest").write_text("a\n")
    assert find_run("latest") == find_run("runs/latest") == run
    mark_latest(make_run(Path("runs/b")))
    assert find_run("latest") == Path("runs/b")


def test_a_folder_of_that_name_is_kept_and_wins(caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(Path("runs/a"))
    Path("runs/latest").mkdir()
    mark_latest(run)
    assert Path("runs/latest").is_dir()
    assert not Path("runs/latest").is_symlink()
    assert "runs/latest is not ours" in caplog.text
    Path("runs/latest").rmdir()
    Path("runs/latest").write_text("my notes\nof two lines\n")
    mark_latest(run)
    assert Path("runs/latest").read_text() == "my notes\nof two lines\n"
    Path("runs/latest").unlink()
    mark_latest(run)
    Path("latest").mkdir()
    assert placed("latest") == Path("latest")
    assert find_run("latest") is None


def test_a_run_is_found_by_its_name_its_path_and_its_checkpoints(place: Path) -> None:
    run = make_run(Path("runs/20261126-0147-seed0"))
    arm = make_run(Path("runs/ablation/spark-seed0"))
    for step in (5, 10):
        (run / "checkpoints" / f"step-{step:06d}" / "model").mkdir(parents=True)
        (run / "checkpoints" / f"step-{step:06d}" / "model" / "weights").write_text("w")
        write_manifest(run / "checkpoints" / f"step-{step:06d}", step)
    mark_latest(run)
    assert find_run("20261126-0147-seed0") == find_run(run) == find_run(run.resolve().name) == run
    assert find_run("ablation/spark-seed0") == arm
    assert find_run("nowhere") is find_run("a\0b") is find_run("x" * 5000) is None
    for name in (
        f"{run}/checkpoints/step-000005",
        "latest/checkpoints/step-000005",
        f"{run.name}/checkpoints/step-000005",
    ):
        assert find_run(name) == run
        assert trained_weights(placed(name)) == run / "checkpoints/step-000005/model"
    assert Path(find_model("latest")).relative_to(place.resolve()) == run / "checkpoints/step-000010/model"
    assert find_model("latest/checkpoints/step-000005").endswith("step-000005/model")
    resolved = with_resolved_paths(load_config(None, ["model.path=latest"]))
    assert resolved.model.path == find_model("latest"), "a run remembers which run it began with"


def test_no_latest_run_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("train --resume", "train --model latest", "solve 1+1 --model latest", "report latest"):
        assert main(line.split()) == 2
        assert capsys.readouterr().err == (
            "spark-rl: there is no latest run: runs/latest is not there; name a run (spark-rl runs lists them)\n"
        )
    assert not list(place.iterdir())


def test_the_run_to_continue_is_named_in_any_way() -> None:
    for name in ("a", "b"):
        run = make_run(Path("runs") / name, seed=len(name), run_dir="moved/since")
        mark_latest(run)
    for line, found in {
        "": "runs/b", "--run-dir latest": "runs/b", "--run-dir runs/latest": "runs/b", "--run-dir a": "runs/a",
        "--run-dir runs/a": "runs/a", "run_dir=a": "runs/a", "--run-dir b run_dir=runs/a": "runs/a",
    }.items():  # fmt: skip
        assert resolve(parse(["train", "--resume", *line.split()])).run_dir == found


# One process a run directory


def test_the_second_process_is_told_who_holds_the_run(place: Path) -> None:
    run = make_run(place / "runs" / "a")
    with held_by_another(run) as process:
        before = sorted(run.rglob("*"))
        found = holder(run)
        assert found is not None
        assert (found.pid, found.host) == (process.pid, socket.gethostname())
        assert abs(found.since - time.time()) < 60
        said = f"{run} is in use by process {process.pid} on {socket.gethostname()} since 20"
        for take in (hold, check_free):
            with pytest.raises(ConfigError) as told:
                take(run)
            assert str(told.value).startswith(said)
        done = spark_rl_process("train", "--resume", "--run-dir", run, cwd=place)
        assert done.returncode == 2
        assert complaints(done.stderr).startswith(f"spark-rl: {said}")
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""
        assert sorted(run.rglob("*")) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder(run) is None
        assert last_holder(run) == found, "killed, so it left its record"
        with hold(run) as mine:
            assert holder(run) != found
            assert mine.failed is False
    assert holder(run) is None
    assert not (run / LOCK).exists()


@pytest.mark.parametrize("left", ["nothing", "a dead process", "another with its number", "another machine"])
def test_of_processes_that_start_at_once_one_holds_the_run(tmp_path: Path, left: str) -> None:
    run = tmp_path / "run"
    if left != "nothing":
        run.mkdir()
        (run / "config.json").touch()
        host = "elsewhere" if left == "another machine" else socket.gethostname()
        pid = 2**22 - 1 if left == "a dead process" else os.getpid()
        (run / LOCK).write_text(json.dumps({"pid": pid, "host": host, "since": 1e9, "failed": False}))
    program = (
        f"{HOLD}from spark_rl.errors import ConfigError\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "try:\n    held = hold(Path(sys.argv[1]))\n    print('held', flush=True)\nexcept ConfigError as error:\n"
        "    print(error, flush=True)\nsys.stdin.readline()"
    )
    asked = [sys.executable, "-c", program, str(run)]
    started = [
        subprocess.Popen(asked, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    with ExitStack() as stack:
        for process in started:
            stack.enter_context(process)
            stack.callback(process.kill)
        pipes: list[tuple[Any, Any]] = [(process.stdin, process.stdout) for process in started]
        assert [out.readline() for _, out in pipes] == ["ready\n"] * 4
        for to, _ in pipes:
            to.write("\n")
            to.flush()
        told = [out.readline() for _, out in pipes]
        assert told.count("held\n") == 1
        owner = started[told.index("held\n")].pid
        for line in told:
            assert line == "held\n" or line.startswith(f"{run} is in use by process {owner} on {socket.gethostname()} ")
        for to, _ in pipes:
            to.write("\n")
            to.flush()
        assert [process.wait(60) for process in started] == [0] * 4


def test_who_has_just_taken_it_is_named_and_not_who_had_it_before(tmp_path: Path) -> None:
    def record(pid: int) -> bytes:
        return json.dumps({"pid": pid, "host": "elsewhere", "since": 1e9}).encode()

    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, record(4711))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        writes = threading.Timer(0.1, os.pwrite, (descriptor, record(4712), 0))
        writes.start()
        with pytest.raises(ConfigError, match="in use by process 4712 on elsewhere"):
            hold(tmp_path)
        writes.join()
    finally:
        os.close(descriptor)


def test_where_there_are_no_locks_the_line_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlockable(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", unlockable)
    for pid, host, refused in (
        (2**22 - 1, socket.gethostname(), False), (1, socket.gethostname(), True), (1, "elsewhere", True),
    ):  # fmt: skip
        (tmp_path / LOCK).write_text(json.dumps({"pid": pid, "host": host, "since": 1e9}))
        if refused:
            with pytest.raises(ConfigError, match=rf"process 1 on {host} .*if it is gone, remove .*/\.lock: this file"):
                hold(tmp_path)
        else:
            hold(tmp_path).release()


def test_one_process_holds_a_run_once(tmp_path: Path) -> None:
    with hold(tmp_path / "a"):
        with pytest.raises(ConfigError, match=r"a is in use by this very process; wait until that ends"):
            hold(tmp_path / "a")
        with hold(tmp_path / "b"):
            pass
    assert not list(tmp_path.iterdir()), "nothing was written, so nothing stays"
    hold(tmp_path / "a").release()


def test_what_asks_who_holds_a_run_never_keeps_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    program = "from spark_rl.lock import holder\nfrom pathlib import Path\nimport sys\nprint('asking', flush=True)\n"
    asking = f"{program}while True: holder(Path(sys.argv[1]))"
    with subprocess.Popen(
        [sys.executable, "-c", asking, str(tmp_path)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for _ in range(50):
                hold(tmp_path).release()
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_outlives_a_killed_run_does_not_keep_it(tmp_path: Path) -> None:
    program = (
        f"{HOLD}import os\nheld = hold(Path(sys.argv[1]))\nchild = os.fork()\n"
        "if child == 0:\n    time.sleep(20)\n    os._exit(0)\nprint(child, flush=True)\ntime.sleep(100)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert holder(tmp_path) is not None
            process.kill()
            process.wait()
            deadline = time.monotonic() + 10  # the child may not have run at all yet
            while holder(tmp_path) is not None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert holder(tmp_path) is None
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "host": 2, "since": 1e300}'])
def test_a_damaged_lock_file_stops_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    assert holder(tmp_path) is last_holder(tmp_path) is None
    hold(tmp_path).release()


def test_a_directory_that_cant_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="cannot write the run directory"):
            hold(run_dir)


# Whole runs


def test_a_run_holds_its_directory_until_it_is_closed() -> None:
    run_dir = Path("runs/a")
    with Run(small(run_dir)):
        assert holder(run_dir) is not None
        assert find_run("latest") == run_dir
        with pytest.raises(ConfigError, match="this very process"):
            Run(small(run_dir), resume=True)
    assert holder(run_dir) is None
    with pytest.raises(DataError, match="no procedural family"):
        Run(small(Path("runs/b"), "data.train=procedural:nothing"))
    assert not Path("runs/b").exists()
    assert find_run("latest") == run_dir, "a run that never started is not the latest"


def test_a_run_that_ends_with_an_error_is_listed_as_failed() -> None:
    with pytest.raises(ZeroDivisionError), Run(small(Path("runs/a"))):
        raise ZeroDivisionError
    assert main(["runs", "--json", "runs.json"]) == 0
    (run,) = json.loads(Path("runs.json").read_text())["runs"]
    assert (run["state"], run["step"], run["steps"]) == ("failed", 0, 2)
    with Run(small(Path("runs/a")), resume=True):
        pass
    assert main(["runs", "--json", "runs.json"]) == 0
    assert json.loads(Path("runs.json").read_text())["runs"][0]["state"] == "stopped"


def test_train_says_its_directory_first_and_the_whole_way_leads_to_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(
        command("train", *SMALL), cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first, run = process.stdout.readline().split()
        assert process.stdout.readline() == "loading torch ...\n"
        rest = process.stdout.read()
    assert process.returncode == 0
    run_dir = Path(run)
    assert (first, run_dir.parent) == ("run", Path("runs"))
    assert f"model   {run_dir / 'model'}\n" in rest
    assert find_run("latest") == run_dir
    assert main(["train", "--resume", "train.steps=3"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"run     {run_dir}\n")
    assert "step 3/3" in shown
    assert main(["solve", "7*_-4=17", "--model", "latest", "inference.rounds=0"]) == 0
    assert capsys.readouterr().err == f"loading torch ...\nloading the model {run_dir}/model ...\n"
    assert main(["report", "latest"]) == 0
    assert capsys.readouterr().out == f"report  {run_dir / 'report.html'}\n"


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("solve 1+1", "loading torch ..."),
        ("train", "loading torch ..."),
        ("eval", "loading the libraries ..."),
        ("doctor", "loading torch ..."),
    ],
)
def test_a_command_says_that_it_loads_before_it_does(line: str, first: str, tmp_path: Path) -> None:
    """Torch is made to fail, so that what is said comes before it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit(7)\n")
    done = subprocess.run(
        command(*line.split()), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
        env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"},
    )  # fmt: skip
    assert done.returncode == 7
    assert first in (done.stdout if line == "train" else done.stderr).splitlines()


# The list


def test_runs_are_listed_newest_first_with_their_states(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"model": {"path": "/there/qwen"}, "data": {"train": "/there/gsm8k.jsonl"}, "train": {"steps": 9}}
    made = ["finished", "stopped", "killed", "running", "ablation/spark-seed0", "damaged", "torn", "starting"]
    for age, name in enumerate(made):
        run = make_run(Path("runs") / name, **settings)
        config = json.loads((run / "config.json").read_text())
        (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3')
        os.utime(run / "metrics.jsonl", (1e9 + age, 1e9 + age))
        before, after = ({"policy_accuracy": p, "judge_accuracy": 0.5, "tts_accuracy": p} for p in (0.25, 0.75))
        (run / "before.json").write_text(json.dumps({"heldout": before}))
        if name == "finished":
            (run / "summary.json").write_text(json.dumps({"config": config, "before": before, "after": after}))
    Path("runs/damaged/config.json").write_text("{")
    Path("runs/torn/metrics.jsonl").write_bytes(b"\xff\xfe nothing of the kind\n")
    os.utime("runs/torn/metrics.jsonl", (1e9 + 6, 1e9 + 6))
    for name in ("config.json", "metrics.jsonl", "before.json"):
        Path("runs/starting", name).unlink()
    Path("runs/a_model").mkdir()
    Path("runs/a_model/config.json").write_text('{"model_type": "qwen2"}')
    mark_latest(Path("runs/running"))
    with ExitStack() as others:
        others.enter_context(held_by_another(Path("runs/running")))
        others.enter_context(held_by_another(Path("runs/starting")))
        with held_by_another(Path("runs/killed")) as process:
            process.kill()
            process.wait()
        assert main(["runs", "--json", "found.json"]) == 0
    listed = json.loads(Path("found.json").read_text())["runs"]
    assert listed[0]["name"] == "starting", "the only one without a dated file"
    assert [run["name"] for run in listed[1:]] == made[-2::-1]
    states = {run["name"]: run["state"] for run in listed}
    assert states == {name: name for name in made} | {"ablation/spark-seed0": "stopped", "torn": "stopped"}
    by_name = {run["name"]: run for run in listed}
    assert [name for name, run in by_name.items() if run["latest"]] == ["running"]
    assert (by_name["finished"]["step"], by_name["finished"]["steps"], by_name["torn"]["step"]) == (2, 9, 0)
    assert (by_name["finished"]["model"], by_name["finished"]["data"]) == ("qwen", "gsm8k.jsonl")
    assert by_name["finished"]["after"]["policy_accuracy"] == 0.75
    assert by_name["damaged"]["about"] == "config.json can't be read"
    assert by_name["torn"]["about"].endswith("metrics.jsonl: 1 of 1 rows is damaged and left out (line 1)")
    shown = capsys.readouterr().out
    assert "policy 25.0% -> 75.0%  judge 50.0% -> 50.0%  with TTS 25.0% -> 75.0%" in shown
    assert "running (latest)" in shown
    assert len(shown.splitlines()) == 2 * len(made) - 2


def test_an_empty_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "there are no runs in runs; spark-rl train makes one\n"
