"""Run folders that a user lists, reports, exports, loads and resumes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

from fuzzing.hostile import damaged, dumped, mangled
from fuzzing.watch import Bench, FoundError, check_text
from spark_rl.cli import main as command_line
from spark_rl.commands import terminal
from spark_rl.config import parse_config
from spark_rl.errors import UserError
from spark_rl.model.load import load_model


def make_run(scratch: Path) -> Path:
    """A run of two steps with two checkpoints, made once and copied."""
    from small_runs import SETTINGS, train_in_a_process  # noqa: PLC0415  # torch has been imported here

    from spark_rl.config import load_config  # noqa: PLC0415

    run = scratch / "made" / "run"
    settings = [
        *SETTINGS,
        "train.steps=2",
        "train.save_every=1",
        "train.keep=2",
        "data.heldout=null",
        "data.transfer=null",
        "train.sample_rollouts=8",
    ]
    if train_in_a_process(load_config("tiny", settings, run_dir=str(run)), resume=False):
        raise SystemExit("the run that is to be damaged could not be made")
    return run


def try_runs(rng: random.Random, bench: Bench) -> None:
    """One run folder, listed, reported, exported, loaded or resumed."""
    with bench.watch.off():
        place = bench.folder()
        run = place / "runs" / "run"
        shutil.copytree(bench.made["run"], run, symlinks=True, copy_function=os.link)
        files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
        small = [path for path in files if path.suffix in {".json", ".jsonl"}]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            damage_file(rng, rng.choice(small if rng.random() < 0.8 else files), run)
        os.chdir(place)
    name = rng.choice(("runs/run",) * 6 + ("runs/latest", "runs/run/checkpoints/step-000001", "runs/run/model"))
    out = str(place / "out")
    command = rng.choice(
        (
            ["runs"],
            ["runs"],
            ["report", name],
            ["report", name],
            ["report", name, "--out", f"{out}.html"],
            ["export", name, "--out", out],
            ["data", "runs/run/rollouts.jsonl"],
            ["solve", "1+1?", "--model", name, "inference.max_new_tokens=1", "inference.rounds=1", "model.threads=1"],
            ["train", "--run-dir", name, "--resume", "train.steps=2"],
            ["load", name],
        )
    )
    command_of(command)


def parsed(text: str | bytes) -> Any:
    """What JSON holds, or nothing where it was damaged before."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def model_of(tokenizer: Any) -> dict[str, Any] | None:
    """That of a tokenizer.json, unless it was damaged before."""
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    return model if isinstance(model, dict) else None


def damage_file(rng: random.Random, path: Path, run: Path) -> None:
    """Another file in the place of one."""
    if path.is_symlink() or not path.is_file():  # damaged before
        return
    content = path.read_bytes()
    path.unlink()  # it is linked to the run that was made once
    how = rng.randrange(12)
    if how == 0:
        return
    if how == 1:
        path.mkdir()
    elif how == 2:
        os.mkfifo(path)
    elif how == 3:
        path.symlink_to(
            rng.choice(
                (
                    "/dev/zero",
                    path.name,
                    "/etc/passwd",
                    str(run),
                    "/proc/self/mem",
                    str(run.parents[2] / "secret" / "secret.txt"),
                )
            )
        )
    elif how == 4 and path.suffix == ".safetensors":
        head = rng.choice(
            (
                b"{}",
                b"[" * 5000,
                dumped({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode(),
                b'{"a":' * 999,
            )
        )
        path.write_bytes(struct.pack("<Q", rng.choice((len(head), 0, 2**63, 10**9))) + head + content[-64:])
    elif path.suffix == ".json" and how < 10:
        tree = parsed(content)
        model = model_of(tree) if path.name == "tokenizer.json" and rng.random() < 0.1 else None
        if model is not None:
            model["vocab"] = {f"t{i}": i for i in range(300_000)}
        path.write_text(dumped(damaged(rng, tree, rng.choice((1, 2)))))
    elif path.suffix == ".jsonl" and how < 10:
        lines = content.decode(errors="replace").splitlines()
        at = rng.randrange(len(lines)) if lines else 0
        lines[at : at + 1] = [dumped(damaged(rng, parsed(lines[at]) if lines else {}, 1))]
        path.write_text("\n".join(lines) + rng.choice(("\n", "")))
    else:
        path.write_bytes(mangled(rng, content, 2))
    if rng.random() < 0.5:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            remake_manifest(path, run)


def remake_manifest(path: Path, run: Path) -> None:
    """Whoever can change a file can change its manifest too."""
    from spark_rl.manifest import MANIFEST, write_manifest  # noqa: PLC0415

    for folder in (*run.glob("checkpoints/step-*"), run / "model"):
        if path.is_relative_to(folder) and path.name != MANIFEST:
            step = int(folder.name.removeprefix("step-")) if folder.name != "model" else 2
            (folder / MANIFEST).unlink(missing_ok=True)
            write_manifest(folder, step)


def command_of(words: list[str]) -> None:
    """The command line in this process, with what it prints looked at."""
    if words[0] == "load":
        load_model(parse_config({"model": {"path": words[1], "device": "cpu", "threads": 1}}))
        return
    out, err = io.StringIO(), io.StringIO()
    status = 0
    terminal.console.file, terminal.errors.file = out, err
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command_line(words)
    except SystemExit as stop:
        status = int(stop.code or 0)
    said = "\n".join(line for line in err.getvalue().splitlines() if not line.endswith(" ..."))
    check_text(out.getvalue() + said)
    if status not in {0, 2}:
        raise FoundError(f"{words[0]} ended with {status}: {said[-300:]!r}")
    if status == 2:
        lines = [line for line in said.splitlines() if line.strip()]
        raise RefusedError(lines[-1] if lines else "")


class RefusedError(UserError):
    """What a command said before it ended with 2."""
