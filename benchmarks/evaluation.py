"""How fast ``spark-rl eval`` answers and judges, beside lm-eval with transformers on the same model.

    make bench-eval BENCH="--shape 3m --problems 1000"

Same weights, prompts (token ids), number format, threads and token limit, greedy. lm-eval (``--model hf``) answers;
ours answers, and in a second run also judges each of its answers. Each is the program that a user starts, in a process
of its own, in turns; its start is that of a run of ``--warm`` problems, and is taken off: what is compared are the
seconds of the problems beyond these. lm-eval's start varies by seconds, so ask for work that takes a minute at least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml
from rich.console import Console
from rich.table import Table
from step_shapes import TEXT_SHAPES, Shape, make_model, question_ids
from transformers.utils import logging

from spark_rl.chat import ChatFormat
from spark_rl.config import Config, load_config
from spark_rl.data import load_problems
from spark_rl.model.load import load_model
from spark_rl.problem import Problem

LM_EVAL = Path(__file__).parents[1] / ".venv-lmeval" / "bin" / "python"
TASK = "spark_rl_speed"


@dataclass(frozen=True, slots=True)
class Job:
    """What all are asked."""

    shape: Shape
    model: Path
    folder: Path
    dtype: str
    threads: int
    batch: int

    @property
    def settings(self) -> list[str]:
        """Ours: those of the recipe that the embedded base was made for, or a chat format without words."""
        own = [f"model.dtype={self.dtype}", f"model.threads={self.threads}", f"engine.max_rows={self.batch}",
               f"inference.max_new_tokens={self.shape.limit}"]  # fmt: skip
        return [*own, "chat.policy={question}"] if self.shape.settings else own

    @property
    def config(self) -> Config:
        """As ``eval`` reads it."""
        return load_config(None if self.shape.settings else "tiny", self.settings)


def problems_for(shape: Shape, config: Config, count: int) -> list[Problem]:
    """``count`` different problems."""
    if not shape.settings:
        data = config.data.model_copy(update={"problems": count})
        return list(load_problems("procedural:missing", data, "train")[:count])
    questions = (" ".join(f"w{token}" for token in question_ids(shape, number)) for number in range(count))
    return [Problem(f"p{number}", question, "A", kind="exact") for number, question in enumerate(questions)]


def write_sets(job: Job, count: int, warm: int) -> None:
    """The problems as each program reads them, all of them and the first ``warm``."""
    chat = ChatFormat(load_model(job.config).tokenizer, job.config.chat)
    problems = problems_for(job.shape, job.config, count)
    for name, some in (("all", problems), ("warm", problems[:warm])):
        ours = [{"id": p.id, "question": p.question, "answer": p.answer} for p in some]
        theirs = [{"prompt": chat.encode(p).text, "answer": p.answer} for p in some]
        _write_rows(job.folder / f"ours-{name}.jsonl", ours)
        _write_rows(job.folder / f"theirs-{name}.jsonl", theirs)
        task = {
            "task": f"{TASK}_{name}", "dataset_path": "json", "output_type": "generate_until", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(job.folder / f"theirs-{name}.jsonl")}},
            "doc_to_text": "{{prompt}}", "doc_to_target": "{{answer}}", "target_delimiter": "",
            "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": job.shape.limit},
            "metric_list": [{"metric": "exact_match"}],
        }  # fmt: skip
        (job.folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def command_of(tool: str, job: Job, name: str) -> list[str]:
    """What a user starts."""
    if tool == "lm-eval":
        return [
            str(LM_EVAL), "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--tasks", f"{TASK}_{name}",
            "--include_path", str(job.folder), "--batch_size", str(job.batch),
            "--model_args", f"pretrained={job.model},dtype={job.dtype}",
        ]  # fmt: skip
    recipe = [] if job.shape.settings else ["--config", "tiny"]
    judging = ["--judge"] if tool == "spark-rl, judging" else []
    return [
        sys.executable, "-m", "spark_rl", "eval", "--model", str(job.model), *recipe,
        "--data", str(job.folder / f"ours-{name}.jsonl"), *judging, *job.settings,
    ]  # fmt: skip


def seconds_of(command: Sequence[str], threads: int) -> float:
    """Of a process, from its start to its end."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{command} failed")
    return time.perf_counter() - began


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=TEXT_SHAPES, default="embedded")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--lengths", choices=("fixed", "natural"), default="natural")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--warm", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64, help="rows of both")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not LM_EVAL.exists():
        parser.error("lm-eval's environment is not there: run make bench-eval")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tools = ("spark-rl", "spark-rl, judging", "lm-eval")
    found: dict[str, list[tuple[float, float]]] = {tool: [] for tool in tools}
    with TemporaryDirectory() as folder:
        shape, model = TEXT_SHAPES[asked.shape], Path(folder) / "model"
        make_model(shape, model, fixed=asked.lengths == "fixed")
        job = Job(shape, model, Path(folder), asked.dtype, asked.threads, asked.batch)
        write_sets(job, asked.problems, asked.warm)
        for turn in range(asked.repeats):
            for tool in tools if turn % 2 else reversed(tools):
                print(f"round {turn + 1}: {tool}", file=sys.stderr)
                start, whole = (seconds_of(command_of(tool, job, name), asked.threads) for name in ("warm", "all"))
                found[tool].append((start, whole))
    show(found, shape, asked)
    if asked.json:
        names = ("shape", "dtype", "lengths", "threads", "problems", "warm", "batch", "repeats")
        facts = {**{name: getattr(asked, name) for name in names}, "seconds": found}
        asked.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def show(found: dict[str, list[tuple[float, float]]], shape: Shape, asked: argparse.Namespace) -> None:
    """Print what each took."""
    table = Table("program", "start, s", "whole, s", "problems a second", "lm-eval's time to it")
    taken = {tool: [whole - start for start, whole in runs] for tool, runs in found.items()}
    for tool, runs in found.items():
        ratios = [theirs / own for theirs, own in zip(taken["lm-eval"], taken[tool], strict=True)]
        table.add_row(
            tool, f"{median(start for start, _ in runs):.1f}", f"{median(whole for _, whole in runs):.1f}",
            f"{(asked.problems - asked.warm) / median(taken[tool]):.0f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f"{shape.about}: {asked.problems} problems, greedy, {shape.limit} new tokens at most, {asked.lengths} lengths; "
        f"{asked.dtype}, {asked.threads} threads, {asked.batch} rows"
    )
    console.print(table)


if __name__ == "__main__":
    main()
