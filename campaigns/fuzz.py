r"""Hostile data, images, templates, run folders and replies: ``python campaigns/fuzz.py TARGET [--minutes 60]``.

============= =========================================================================================================
target        what is made, damaged, and read as a user's commands read it
============= =========================================================================================================
``rows``      JSON Lines, JSON, CSV, TSV, Parquet and Arrow in every layout and of every benchmark, loaded, rendered
              and graded once
``images``    PNG, JPEG, WebP, GIF, TIFF, BMP, bombs, polyglots, and paths that lead elsewhere, confined or not
``templates`` Jinja chat templates that escape, loop, bomb and lie; recycling templates and few-shot texts
``runs``      run folders: settings, logs, summaries, checkpoints, models; listed, reported, exported, loaded, resumed
``replies``   what a server of chat completions may answer: any JSON, wrong lengths, drips, bombs, redirects
============= =========================================================================================================

Each try is a valid input with hostile pieces put in, and ends in success or in a ``UserError``: one line of bounded
length without control characters. Anything else is a finding: another exception, a process that ends or works longer
than ``--seconds`` or takes more than ``--megabytes``, a file read outside of a confined folder, a canary written or
told, a process or connection that nobody asked for, a control character on the terminal. Findings are printed with
what repeats them (``--seed S --only N``), and their inputs are kept. Exit status 1 if there is one.

Tries are made in a forked child that has imported everything, some hundred in each; one that does not answer is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import torch
from fuzzing.hostile import SECRET
from fuzzing.images import try_images
from fuzzing.replies import try_replies
from fuzzing.rows import try_rows
from fuzzing.runs import make_run, try_runs
from fuzzing.templates import try_templates
from fuzzing.watch import Bench, FoundError, Watch, check_line, check_text, picture
from rich.console import Console
from rich.table import Table

from spark_rl.commands.terminal import Plain
from spark_rl.data.decode import ImageError
from spark_rl.errors import UserError

TRIES = 200
"""Of one child."""
MEMORY = Path("/dev/shm")  # noqa: S108  # a disk would be most of the time

ATTEMPTS: Mapping[str, Callable[[random.Random, Bench], None]] = {
    "rows": try_rows, "images": try_images, "templates": try_templates, "runs": try_runs,
    "replies": try_replies,
}  # fmt: skip
REFUSALS = {
    "rows": (UserError,), "images": (UserError, ImageError), "templates": (UserError,), "runs": (UserError,),
    "replies": (UserError,),
}  # fmt: skip


@dataclass(slots=True)
class Tally:
    """What came of a target."""

    tries: int = 0
    passed: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    kinds: dict[str, list[str]] = field(default_factory=dict)
    """Where findings come from -> all of them, so that one cause is printed once."""
    slowest: float = 0.0
    megabytes: float = 0.0
    """Beyond what the child had before."""
    seconds: float = 0.0


def attempt(target: str, seed: int, number: int, bench: Bench) -> tuple[str, str]:
    """(``passed``, ``refused`` or ``found``, what) of one try."""
    rng = random.Random(f"{target} {seed} {number}")
    bench.watch.seen.clear()
    bench.watch.forbidden = ""
    bench.logged.seek(0)
    bench.logged.truncate()
    try:
        try:
            ATTEMPTS[target](rng, bench)
            outcome = ("passed", "")
        except REFUSALS[target] as error:
            check_line(error)
            outcome = ("refused", str(error)[:200])
        check_text(bench.logged.getvalue())
        if bench.watch.seen:
            raise FoundError(bench.watch.seen[0])
    except FoundError as error:
        outcome = ("found", str(error))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is a finding
        frames = traceback.extract_tb(error.__traceback__)
        where = next(
            (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if "spark_rl" in f.filename), "fuzz"
        )
        outcome = ("found", f"{type(error).__name__} at {where}: {str(error)[:300]!r}")
    return outcome


def peak() -> float:
    """Megabytes of this process at most, since the last :func:`forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    """Count anew from here, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def child(
    target: str, seed: int, numbers: Sequence[int], scratch: Path, pipe: int, megabytes: float, run: Path | None
) -> None:
    """Make tries and tell what came of each."""
    torch.set_num_threads(1)
    os.environ["CANARY"] = SECRET
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    held = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (held + int(4 * megabytes * 2**20),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    (scratch / "secret").mkdir(exist_ok=True)
    (scratch / "secret" / "secret.png").write_bytes(picture("PNG"))
    (scratch / "secret" / "secret.txt").write_text(SECRET)
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    handler.setFormatter(Plain("%(message)s"))
    logging.getLogger().handlers = [handler]
    bench = Bench(scratch, Watch(scratch), logged)
    if run is not None:
        bench.made["run"] = run
    with os.fdopen(pipe, "w", buffering=1, encoding="ascii") as told:
        for number in numbers:
            told.write(json.dumps([number, "begun", "", 0, 0]) + "\n")
            forget_peak()
            before, began = peak(), time.monotonic()
            outcome, what = attempt(target, seed, number, bench)
            more = peak() - before
            if more > megabytes and outcome != "found":
                outcome, what = "found", f"{more:,.0f} MB"
            told.write(json.dumps([number, outcome, what, time.monotonic() - began, more]) + "\n")
            if more > megabytes:
                break  # what it has taken is not given back


def fuzz(
    target: str,
    seed: int,
    numbers: Iterator[int],
    until: float,
    seconds: float,
    megabytes: float,
    keep: Path,
    console: Console | None = None,
) -> Tally:
    """Try one target until the clock says ``until`` or there are no more numbers."""
    tally, begun = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        scratch = Path(name)
        run = make_run(scratch) if target == "runs" else None
        left: list[int] = []
        shown = time.monotonic()
        while time.monotonic() < until:
            left = left or [number for number, _ in zip(numbers, range(TRIES), strict=False)]
            if not left:
                break
            left = one_child(target, seed, left, scratch, run, tally, (seconds, megabytes, until), keep)
            if console is not None and time.monotonic() - shown > 60:
                shown = time.monotonic()
                console.print(
                    f"{target}: {tally.tries:,} tries, {tally.refused:,} refused, {len(tally.findings)} findings"
                )
    tally.seconds = time.monotonic() - begun
    return tally


def one_child(
    target: str,
    seed: int,
    numbers: list[int],
    scratch: Path,
    run: Path | None,
    tally: Tally,
    limits: tuple[float, float, float],
    keep: Path,
) -> list[int]:
    """Let a child make tries; returns those it has not made."""
    seconds, megabytes, until = limits
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.setpgid(0, 0)
            child(target, seed, numbers, scratch, writing, megabytes, run)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    now, done, what = numbers[0], 0, ""
    with os.fdopen(reading, encoding="ascii") as told:
        while True:
            line = answered(told, pid, seconds)
            if not line:
                what = f"no answer within {seconds:g} s" if line is None else ""
                break
            now, outcome, said, took, more = json.loads(line)
            if outcome == "begun":
                if time.monotonic() > until:
                    break
                continue
            done += 1
            tally.tries += 1
            tally.slowest, tally.megabytes = max(tally.slowest, took), max(tally.megabytes, more)
            tally.passed += outcome == "passed"
            tally.refused += outcome == "refused"
            if outcome == "found":
                note(tally, target, seed, now, said, scratch, keep)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if done < len(numbers) and time.monotonic() <= until and numbers[done - 1 : done] != [now]:
        tally.tries += 1
        done += 1
        note(tally, target, seed, now, what or f"the process ended with {ended}", scratch, keep)
    return numbers[done:]


def answered(told: Any, pid: int, seconds: float) -> str | None:
    """The next line of a child; ``None`` if it works for more than ``seconds``, or waits for three times as long."""
    began, worked = time.monotonic(), processor_seconds(pid)
    while not select.select([told], [], [], 1.0)[0]:
        if processor_seconds(pid) - worked > seconds or time.monotonic() - began > 3 * seconds:
            return None
    return str(told.readline())


def processor_seconds(pid: int) -> float:
    """What a process has worked."""
    with contextlib.suppress(OSError):
        spent = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def note(tally: Tally, target: str, seed: int, number: int, what: str, scratch: Path, keep: Path) -> None:
    """Write a finding down, and keep the input of the first of its kind."""
    kind = (
        re.sub(r"'[^']*'|\"[^\"]*\"|\d+(?!\w*:)", "", what)[:60] if " at " not in what[:60] else what.partition(": ")[0]
    )
    line = f"{target} --seed {seed} --only {number}: {what}"
    tally.findings.append(line)
    tally.kinds.setdefault(kind, []).append(line)
    if len(tally.kinds[kind]) == 1 and (scratch / "try").exists():
        shutil.rmtree(keep / f"{target}-{seed}-{number}", ignore_errors=True)
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(
                scratch / "try",
                keep / f"{target}-{seed}-{number}",
                symlinks=True,
                ignore=lambda _, names: [n for n in names if n.startswith("fifo")],
            )


def main() -> int:
    """Fuzz, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*ATTEMPTS, "all"], nargs="+")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each target")
    parser.add_argument("--tries", type=int, help="of each target, whatever time they take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="repeat one try")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of work in a try, at most; three times as long if it waits"
    )
    parser.add_argument("--megabytes", type=float, default=1024.0, help="that a try may add, at most")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where inputs of findings go")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    console = Console(width=120)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    keep = arguments.keep.absolute()
    tallies: dict[str, Tally] = {}
    for target in ATTEMPTS if "all" in arguments.target else arguments.target:
        numbers = (
            range(arguments.only, arguments.only + 1)
            if arguments.only is not None
            else range(arguments.tries or sys.maxsize)
        )
        until = (
            float("inf") if arguments.tries or arguments.only is not None else time.monotonic() + 60 * arguments.minutes
        )
        tallies[target] = fuzz(
            target, arguments.seed, iter(numbers), until, arguments.seconds, arguments.megabytes, keep, console
        )
    table = Table("target", "tries", "a second", "passed", "refused", "findings", "slowest s", "MB more")
    for target, tally in tallies.items():
        table.add_row(
            target,
            f"{tally.tries:,}",
            f"{tally.tries / tally.seconds:,.0f}",
            f"{tally.passed:,}",
            f"{tally.refused:,}",
            str(len(tally.findings)),
            f"{tally.slowest:.1f}",
            f"{tally.megabytes:,.0f}",
        )
    console.print(table)
    for tally in tallies.values():
        for lines in tally.kinds.values():
            console.print(f"FOUND {len(lines)} times, first: {lines[0]:.600}", markup=False)
    if arguments.json:
        facts = {
            target: {
                "tries": t.tries,
                "passed": t.passed,
                "refused": t.refused,
                "findings": t.findings,
                "slowest_seconds": t.slowest,
                "megabytes": t.megabytes,
                "seconds": t.seconds,
                "seed": arguments.seed,
            }
            for target, t in tallies.items()
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(any(tally.findings for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
