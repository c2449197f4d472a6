"""Rows of data in every kind of file, layout and benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from fuzzing.hostile import damaged, dumped, mangled
from fuzzing.watch import Bench, tokenizer_of
from spark_rl.chat import ChatFormat
from spark_rl.config import ChatConfig, DataConfig
from spark_rl.data import load_problems
from spark_rl.data.decode import ImageError
from spark_rl.data.images import image_digest, open_image
from spark_rl.errors import UserError
from spark_rl.evals.benchmarks.catalogue import all_benchmarks
from spark_rl.problem import Problem
from spark_rl.verify.grade import grade

BENCHMARKS = all_benchmarks()

ROWS: Mapping[str, dict[str, Any]] = {
    "columns": {"question": "What is 6 times 7?", "answer": "42", "id": "x1", "PassRate": 0.5},
    "choices": {"question": "Which?", "choices": ["ab", "cd", "ef"], "answer": 1},
    "labelled": {"question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "B"},
    "several": {"question": "Which?", "option_a": "x", "option_b": "y", "option_c": "z", "answer": "C"},
    "image": {"question": "<image>What is it?", "image": "good.png", "answer": "3"},
    "images": {"question": "Which? <image> <image>", "images": ["good.png", {"path": "good.png"}], "answer": "3"},
    "message": {"message": json.dumps([{"role": "user", "content": "1+1?"}]), "answer": "2"},
    "chat": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "1?"}, {"type": "image"}]}],
        "image": "good.png",
        "answer": "2",
    },
    "gsm8k": {"question": "1+1?", "answer": "One and one.\n#### 2"},
    "simplerl": {
        "input": "<|im_start|>user\n1+1?<|im_end|>",
        "answer": "2",
        "gt_answer": "2",
        "subject": "x",
        "level": 1,
    },
    "mathvista": {
        "question": "q",
        "choices": ["1", "2"],
        "question_type": "multi_choice",
        "answer_type": "text",
        "precision": 1.0,
        "answer": "1",
        "unit": None,
        "image": "good.png",
        "query": "q",
    },
    "mathverse": {
        "question": "q",
        "problem_version": "Text Dominant",
        "question_type": "multi-choice",
        "answer": "A",
        "image": "good.png",
        "query_cot": "q",
    },
    "wemath": {
        "question": "q",
        "option": "A. 1; B. 2",
        "answer": "A",
        "image_path": "good.png",
        "knowledge concept": "k",
    },
    "dynamath": {"question": "q", "answer_type": "float", "subject": "s", "image": "good.png", "ground_truth": "1.0"},
    "logicvista": {"question": "q", "imagename": "good.png", "answer": "A, B", "skill": ["s"]},
    "pope": {"question_id": 1, "text": "Is it?", "label": "yes", "image": "good.png"},
}
KINDS = (".jsonl",) * 16 + (".json", ".csv", ".tsv", ".benchmark") * 6 + (".parquet",)
BENCHMARK_ROWS = {
    "problem": "1+1?", "question": "1+1?", "answer": "2", "unique_id": "u", "subject": "s", "level": 2,
    "image": "good.png", "options": ["x", "y"], "choices": ["x", "y"], "query": "q", "ground_truth_rating": [3],
    "index": 1, "A": "a", "B": "b", "C": "c", "D": "d", "category": "c", "prompt": "p", "chosen": ["x"],
    "rejected": ["y", "z", "w"], "num_correct": 1, "solution": "s", "id": "i", "hint": "h", "text": "t",
    "label": "yes", "decoded_image": {"bytes": None, "path": "good.png"}, "question_id": "3",
    "capability": "ocr", "image_path": "good.png", "option": "A. x; B. y",
}  # fmt: skip


def write_rows(rng: random.Random, place: Path, kind: str, rows: list[Any]) -> Path:
    """Rows as a file, which may be damaged on the way."""
    path = place / f"data{kind}"
    if kind == ".parquet":
        try:
            table = pa.Table.from_pylist(
                [{str(key): value for key, value in row.items()} for row in rows if isinstance(row, dict)]
            )
            pq.write_table(table, path, compression=rng.choice(("snappy", "gzip", "zstd", "none")))
        except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError, OSError, UnicodeError):
            pq.write_table(pa.table({"question": ["1+1?"] * 9, "answer": ["2"] * 9}), path)
        if rng.random() < 0.6:
            path.write_bytes(mangled(rng, path.read_bytes()))
        return path
    if kind in {".csv", ".tsv"}:
        mark = "," if kind == ".csv" else "\t"
        flat = [row for row in rows if isinstance(row, dict)] or [{}]
        names = list(flat[0])
        lines = [
            mark.join(
                json.dumps(str(cell)).replace("\\", "")
                for cell in (names, *([row.get(n) for n in names] for row in flat))[i]
            )
            for i in range(len(flat) + 1)
        ]
        text = "\n".join(lines)
    elif kind == ".jsonl":
        text = "\n".join(dumped(row) for row in rows)
    else:
        text = dumped(rng.choice((rows, {"data": rows}, {f"k{i}": row for i, row in enumerate(rows)}, *rows)))
    path.write_bytes(mangled(rng, text.encode("utf-8", "surrogatepass"), None if rng.random() < 0.5 else 0))
    return path


def bomb(rng: random.Random, place: Path) -> Path:
    """A file of some kilobytes that is far more when it is read."""
    size, path = 100_000_000, place / "bomb.parquet"
    which = rng.randrange(3)
    if which == 0:  # one text, stored once and referred to
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["a" * 100_000]))
        pq.write_table(pa.table({"question": column, "answer": column}), path, compression="zstd")
    elif which == 1:
        pq.write_table(pa.table({"question": ["a" * size], "answer": ["1"]}), path, compression="zstd")
    else:
        path = place / "bomb"
        path.mkdir()
        schema = pa.schema([("question", pa.string()), ("answer", pa.string())])
        with pa.ipc.new_stream(
            path / "data-00000-of-00001.arrow", schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
        ) as file:
            file.write_batch(pa.record_batch([pa.array(["a" * size]), pa.array(["1"])], schema=schema))
        (path / "state.json").write_text(
            json.dumps(
                {
                    "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
                    "_fingerprint": "x",
                    "_format_columns": None,
                    "_format_kwargs": {},
                    "_format_type": None,
                    "_output_all_columns": False,
                    "_split": None,
                }
            )
        )
        (path / "dataset_info.json").write_text("{}")
    return path


def is_deep(value: Any, levels: int = 12) -> bool:
    """Whether it is nested so deeply that ``datasets``, which looks at each level twice, takes forever to write it."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not levels or any(is_deep(member, levels - 1) for member in members)


def saved(rng: random.Random, place: Path, rows: list[Any]) -> Path:
    """A folder as ``datasets`` writes it, damaged."""
    path = place / "saved"
    try:
        made = datasets.Dataset.from_list([row for row in rows if isinstance(row, dict) and not is_deep(row)])
        made.save_to_disk(str(path))
    except (
        pa.ArrowException,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        OSError,
        UnicodeError,
        AttributeError,
    ):
        shutil.rmtree(path, ignore_errors=True)
        datasets.Dataset.from_list([{"question": "1+1?", "answer": "2"}] * 3).save_to_disk(str(path))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if rng.random() < 0.8:
        file = rng.choice(files)
        content = file.read_bytes()
        if file.suffix == ".json" and rng.random() < 0.6:
            file.write_text(dumped(damaged(rng, json.loads(content), 1)))
        else:
            file.write_bytes(mangled(rng, content))
    return path


def data_config(rng: random.Random) -> DataConfig:
    """Options as a user may set them."""
    return DataConfig.model_validate(
        {
            "layout": rng.choice(
                ("auto",) * 40
                + (
                    "columns",
                    "message",
                    "gsm8k",
                    "simplerl",
                    "mathvista",
                    "mathverse",
                    "wemath",
                    "dynamath",
                    "logicvista",
                    "pope",
                )
            ),
            "kind": rng.choice(("auto", "auto", "math", "choice", "exact")),
            "columns": rng.choice(
                (
                    {},
                    {},
                    {},
                    {"id": "id"},
                    {"question": "question", "answer": "answer"},
                    {"images": "image"},
                    {"choices": "choices"},
                )
            ),
            "ranges": rng.choice(
                (None, None, None, None, None, None, None, {"PassRate": [0, None]}, {"level": [None, 3]})
            ),
            "sample": rng.choice((None, None, None, 1, 100)),
            "limit": rng.choice((None, None, 1)),
            "split": rng.choice(("train",) * 9 + ("test",)),
            "images": {
                "broken": rng.choice(("skip", "skip", "skip", "error")),
                "confined": rng.random() < 0.7,
                "unusual": rng.choice(("convert", "refuse")),
            },
        }
    )


def use(problems: Sequence[Problem], bench: Bench, graded: bool = True) -> None:
    """What training does with problems, once."""
    if "chat" not in bench.made:
        bench.made["chat"] = ChatFormat(tokenizer_of(), ChatConfig())
    chat = bench.made["chat"]
    for problem in problems[:3]:
        for image in problem.images:
            image_digest(image)
            with contextlib.suppress(ImageError):
                open_image(image)
        with contextlib.suppress(UserError):
            prompt = chat.encode(problem)
            assert prompt.token_ids, "a prompt without tokens"
        if graded:
            grade("so \\boxed{42}", problem.answer, problem.kind, problem.choices)


def try_rows(rng: random.Random, bench: Bench) -> None:
    """One file of rows, loaded and used."""
    with bench.watch.off():
        place = bench.folder()
        kind = rng.choice(KINDS)
        layout = rng.choice(list(ROWS.values()))
        rows = [damaged(rng, layout) for _ in range(rng.choice((1, 2, 3, 5)))]
        if rng.random() < 0.6:
            rows.insert(rng.randint(0, len(rows)), layout)
        if kind == ".benchmark":
            benchmark = rng.choice(BENCHMARKS)
            file = place / Path(benchmark.files[0]).name
            suffix = file.suffix or ".jsonl"
            rows = [damaged(rng, {**BENCHMARK_ROWS, **rng.choice(list(ROWS.values()))}) for _ in range(2)]
            path = write_rows(rng, place, suffix if suffix in {".json", ".jsonl", ".csv", ".tsv"} else ".jsonl", rows)
        elif rng.random() < 0.003:
            path = bomb(rng, place)
        elif kind == ".parquet" and rng.random() < 0.5:
            path = saved(rng, place, rows)
        else:
            path = write_rows(rng, place, kind, rows)
        if rng.random() < 0.01:
            path = place / rng.choice(("fifo", "loop", "folder", "fifo.jsonl", "folder.json", "x.csv"))
            if path.name == "fifo.jsonl":
                os.mkfifo(path)
            elif path.suffix == ".json":
                path.mkdir()
        config = data_config(rng)
    if kind == ".benchmark":
        benchmark.load(path)
        return
    bench.watch.forbidden = str(bench.scratch / "secret") if config.images.confined else ""
    golds = rng.random() < 0.8
    problems = load_problems(
        str(path), config, rng.choice(("train", "heldout")), columns=rng.random() < 0.5, golds=golds
    )
    use(problems, bench, golds)
