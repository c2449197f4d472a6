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
import base64
import bz2
import contextlib
import errno
import gzip
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
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spark_rl.chat import ChatFormat, rendering
from spark_rl.cli import main as command_line
from spark_rl.commands import terminal
from spark_rl.commands.terminal import Plain
from spark_rl.config import ChatConfig, DataConfig, parse_config
from spark_rl.data import load_problems
from spark_rl.data.decode import ImageError
from spark_rl.data.images import image_digest, open_image, stored_image
from spark_rl.engine.base import Sampling
from spark_rl.engine.openai import OpenAIEngine
from spark_rl.errors import UserError
from spark_rl.evals.benchmarks.catalogue import all_benchmarks
from spark_rl.files import resolved
from spark_rl.model.load import load_model
from spark_rl.problem import Problem
from spark_rl.recycle.templates import load_templates, render_judge, render_pairwise, render_reflection
from spark_rl.verify.grade import grade

TRIES = 200
"""Of one child."""
LONGEST = 4000
"""Characters of a refusal."""
SECRET = "canary-" + "c0ffee" * 4
"""Told in the environment and in files that nothing may read."""
MEMORY = Path("/dev/shm")  # noqa: S108  # a disk would be most of the time
QUICK = 0.5
"""Seconds that a template may take here: hundreds of them never end."""


BENCHMARKS = all_benchmarks()


# Hostile values

NAMES = (
    "../../secret/secret.png", "/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd", "fifo", "loop",
    "folder", "link.png", "linked/secret.png", "..", ".", "~", "~root", "a" * 300, "a/" * 3000, "a\0b.png",
    "file:///etc/passwd", "file://../secret/secret.png", "http://127.0.0.1:9/x.png", "\\\\host\\share\\x.png",
    "good.png", "good.png/", "con", "-", "--run-dir", "%s%n", "{0.__class__}", "\ud800.png", "\u202egnp.exe",
    "data:", "data:image/png;base64,", "data:image/png;base64," + "A" * 5000, "data:text/html,<script>",
    "data:;base64,====", "$HOME", "`id`", ";id",
)  # fmt: skip
"""What may stand where a path is wanted."""
TEXTS = (
    "", " ", "\0", "\x1b[31m\x1b]0;owned\x07", "\x9b31m", "\ud800", "\udfff\ud800", "\u202e", "\u2028",
    "\ufeff", "\U000e0041", "\r", "\n" * 50, "\x08" * 20, "a" * 200_000, "<image>", "<image>" * 500,
    "<|im_end|>", "\ufdd0", "{question}", "{{", "{%", "[" * 3000, "{" * 3000, "(" * 5000, "\\boxed{",
    "\\frac{" * 400, "'" * 999, '"' * 999, "[{", '[{"role":"user"}]',
    '[{"role": "user", "content": [{"type": "image"}]}]', "['a', 'b'", "9" * 5000, "9^9^9^9^9", "(10!)!",
    "1e999999999", "A", "AB", "Yes", "#### 5", "#### ", "٣", "½", "nan", "-0", "= cmd|' /C calc'!A0",
    "\\x" * 200, "\\u12" * 50, "a) b) c)", "(A) x\n(B) y\n(C) z", "é" * 10_000, "e\u0301" * 3000, "𐍈" * 3000,
    "%" * 99,
)  # fmt: skip
"""What may stand where a text is wanted."""


def nested(depth: int, kind: str = "list") -> Any:
    """A value in a value, ``depth`` times."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def hostile(rng: random.Random) -> Any:
    """Any value."""
    which = rng.randrange(10)
    if which < 3:
        return rng.choice(TEXTS)
    if which < 5:
        return rng.choice(NAMES)
    return rng.choice(
        (
            None,
            True,
            False,
            0,
            -1,
            1,
            2**31,
            2**63,
            2**64,
            -(2**63) - 1,
            10**400,
            1e308,
            -1e308,
            5e-324,
            0.1,
            float("nan"),
            float("inf"),
            -float("inf"),
            [],
            {},
            [[]],
            [None],
            {"": None},
            nested(40),
            nested(900),
            nested(300, "dict"),
            [1] * 5000,
            {"bytes": None},
            {"bytes": "AAAA"},
            {"bytes": [1, 2, 300]},
            {"bytes": [[]], "path": "x"},
            {"path": "good.png"},
            {"url": "file:///etc/passwd"},
            {"role": "user"},
            {str(i): i for i in range(2000)},
            ["A", "B", ["C"]],
            {"text": ["x"], "label": ["A", "B"]},
            {"A": "x", "a": "y"},
            ["x"] * 30,
            "Zm9v" * 300,
        )
    )


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value of a tree may be replaced."""
    yield at
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        if len(at) < 6:
            yield from places(value, (*at, key))


def damaged(rng: random.Random, tree: Any, times: int | None = None) -> Any:
    """A copy of a tree with hostile values, names and gaps in it."""
    try:
        tree = deepcopy(tree)
    except RecursionError:  # damaged before
        return tree
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3)) if times is None else times):
        at = rng.choice(list(places(tree)))
        if not at:
            if rng.random() < 0.1:
                return hostile(rng)
            continue
        inside = tree
        for key in at[:-1]:
            inside = inside[key]
        how = rng.randrange(8)
        if how == 0 and isinstance(inside, dict):
            inside[str(rng.choice((*TEXTS, *NAMES)))] = inside.pop(at[-1])
        elif how == 1:
            del inside[at[-1]]
        elif how == 2 and isinstance(inside[at[-1]], str):
            text, cut = inside[at[-1]], rng.randint(0, len(inside[at[-1]]))
            inside[at[-1]] = text[:cut] + str(rng.choice(TEXTS)) + text[cut:]
        elif how == 3:
            inside[at[-1]] = [inside[at[-1]]] * rng.choice((1, 2, 30))
        else:
            inside[at[-1]] = hostile(rng)
    return tree


def mangled(rng: random.Random, data: bytes, times: int | None = None) -> bytes:
    """Bytes flipped, cut, spliced, repeated, in another encoding."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4)) if times is None else times):
        size = len(changed)
        at, to = sorted((rng.randint(0, size), rng.randint(0, size)))
        how = rng.randrange(11)
        if how == 0:
            del changed[at:]
        elif how == 1:
            del changed[at:to]
        elif how == 2:
            changed[at:at] = changed[at : min(to, at + 2000)] * rng.choice((1, 3, 50))
        elif how == 3:
            changed[at:at] = rng.choice(
                (
                    b"\0",
                    b"\xff" * 8,
                    b"\x1b[31m",
                    b"\xef\xbb\xbf",
                    b"\xed\xa0\x80",
                    b"\r",
                    b"\n\n",
                    b'"',
                    b"[" * 5000,
                    b"\x00" * 4096,
                    b"9" * 5000,
                )
            )
        elif how == 4 and rng.random() < 0.3:
            with contextlib.suppress(UnicodeError):
                changed = bytearray(
                    bytes(changed).decode("utf-8").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
                )
        elif how == 5 and size > 4:
            place = rng.randrange(size - 3)
            changed[place : place + 4] = struct.pack(
                rng.choice("<>") + "I", rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
            )
        elif how == 6 and rng.random() < 0.2:
            changed = bytearray(rng.choice((gzip.compress, bz2.compress, zlib.compress))(bytes(changed)))
        elif size:
            for _ in range(rng.choice((1, 1, 8))):
                changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(changed[:3_000_000])


def dumped(tree: Any) -> str:
    """JSON, of lone surrogates and NaN too; empty where it is nested too deeply to be written."""
    try:
        return json.dumps(tree)
    except (RecursionError, ValueError):
        return "[" * 2000


# What a try is watched by


class FoundError(Exception):
    """What must not happen has."""


class Watch:
    """Opens and starts of this process, told by Python's own audit events."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = str(scratch)
        self.forbidden = ""
        """A folder that nothing may read from."""
        self.seen: list[str] = []
        self._on = True
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """What the fuzzer itself does."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def _keep(self, what: str, path: str) -> None:
        """Keep a file elsewhere as it is: what would change it is seen, and stopped."""
        if not path.startswith((self.scratch, "/dev/", "/proc/", "/tmp/tmp", "/tmp/torch")):  # noqa: S108
            self.seen.append(f"{what} {path}")
            raise PermissionError(errno.EPERM, "the fuzzer keeps it as it is", path)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._keep("wrote", path)
            if self.forbidden and path.startswith(self.forbidden):
                self.seen.append(f"read {path}")
        elif event in {"os.rename", "os.truncate", "os.remove"} and not isinstance(arguments[0], int):
            for name in arguments[: 1 + (event == "os.rename")]:
                named = Path(os.fsdecode(name))
                place = resolved(named) if event == "os.truncate" else resolved(named.parent) / named.name
                self._keep(event, str(place))
        elif event in {"os.system", "os.exec", "os.posix_spawn", "pty.spawn", "webbrowser.open"}:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "subprocess.Popen" and not str(arguments[0]).startswith(sys.executable):
            self.seen.append(f"started {arguments[1]!r:.200}")
        elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != "127.0.0.1":
            self.seen.append(f"connected to {arguments[1]!r:.200}")


def check_line(error: BaseException) -> None:
    """Raises :class:`FoundError` for a refusal that is no clear line."""
    text = str(error)
    if len(text) > LONGEST:
        raise FoundError(f"a refusal of {len(text):,} characters: {text[:200]!r}")
    check_text(text)
    if "\n" in text or not text.strip():
        raise FoundError(f"a refusal that is not one line: {text[:200]!r}")


def check_text(text: str) -> None:
    """Raises :class:`FoundError` for what a terminal would obey, and for the secret."""
    odd = [c for c in text if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t\r"] or re.findall(
        "[\u202a-\u202e\u2066-\u2069]", text
    )
    if odd:
        raise FoundError(f"{odd[0]!r} in {text[max(0, text.index(odd[0]) - 80) :][:200]!r}")
    if SECRET in text:
        raise FoundError(f"the secret was told: {text[:200]!r}")


@dataclass(slots=True)
class Bench:
    """What a target works with, in its child."""

    scratch: Path
    watch: Watch
    logged: io.StringIO
    made: dict[str, Any] = field(default_factory=dict)
    """What is made once a child."""

    def folder(self) -> Path:
        """A new folder with traps beside good files."""
        place = self.scratch / "try"
        shutil.rmtree(place, ignore_errors=True)
        (place / "folder").mkdir(parents=True)
        (place / "good.png").write_bytes(picture("PNG"))
        os.mkfifo(place / "fifo")
        (place / "loop").symlink_to("loop")
        (place / "link.png").symlink_to("../secret/secret.png")
        (place / "linked").symlink_to("../secret")
        return place


@lru_cache(maxsize=64)
def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> bytes:
    """A small valid one."""
    file = io.BytesIO()
    Image.new(mode, size, 1 if mode in {"1", "I", "F"} else None).save(file, kind)
    return file.getvalue()


ENDS = "<|im_end|>"


def tokenizer_of(template: Any = None) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and a few special ones."""
    alphabet = [*pre_tokenizers.ByteLevel.alphabet()]
    words = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.add_special_tokens(["<|im_start|>", ENDS])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=ENDS, chat_template=template)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # fmt: skip


# Rows

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


# Images


def png_of(width: int, height: int, data: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))

    head = struct.pack("!IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def image_bytes(rng: random.Random) -> bytes:
    """Encoded, and wrong in some way."""
    which = rng.randrange(12)
    size = rng.choice(((7, 5), (1, 1), (1, 150), (300, 1), (1, 300), (64, 64)))
    if which == 0:
        side = rng.choice((0, 1, 30_000, 60_000, 2**31 - 1))
        return png_of(
            side,
            rng.choice((side, 1, 0)),
            bytes(rng.choice((0, 100, 5_000_000))),
            rng.choice((1, 8, 16)),
            rng.choice((0, 2, 3, 6)),
        )
    if which == 1:
        file = io.BytesIO()
        frames = [Image.new("P", size, i) for i in range(rng.choice((2, 40)))]
        frames[0].save(file, rng.choice(("GIF", "WEBP", "PNG", "TIFF")), save_all=True, append_images=frames[1:])
        return mangled(rng, file.getvalue())
    if which == 2:
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = rng.choice((0, 1, 6, 9, 65535))
        Image.new("RGB", size).save(file, rng.choice(("JPEG", "PNG", "WEBP", "TIFF")), exif=exif)
        return mangled(rng, file.getvalue())
    if which == 3:  # two formats in one
        return picture("GIF", "L") + picture("PNG") + b"PK\x03\x04" + picture("JPEG")[rng.randrange(40) :]
    if which == 4:
        return rng.choice(
            (
                b"",
                b"\x89PNG",
                b"GIF89a",
                b"BM",
                b"II*\0",
                b"RIFF\xff\xff\xff\xffWEBPVP8X",
                b"<svg xmlns='x'><image href='file:///etc/passwd'/></svg>",
                b"%!PS\n(x) run",
                b"%PDF-1.4",
                b"\0\0\1\0",
                b"8BPS",
                b"P6 9999999 9999999 255\n",
                b"\xff\x0a",
            )
        )
    if which == 5:
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
        return mangled(rng, file.getvalue().replace(b"\xff\xda", b"\xff\xda" * rng.choice((1, 150, 300)), 1))
    if which == 6:  # a large one in few bytes
        return rng.choice(
            (
                picture("PNG", "1", (9000, 9000)),
                picture("PNG", "RGB", (3000, 3000)),
                picture("TIFF", "1", (9000, 9000)),
                picture("WEBP", "RGB", (3000, 3000)),
            )
        )
    kind, mode = rng.choice(
        (
            ("PNG", "RGB"),
            ("PNG", "RGBA"),
            ("PNG", "P"),
            ("PNG", "1"),
            ("PNG", "I;16"),
            ("PNG", "LA"),
            ("JPEG", "RGB"),
            ("JPEG", "CMYK"),
            ("JPEG", "L"),
            ("WEBP", "RGBA"),
            ("GIF", "P"),
            ("TIFF", "F"),
            ("TIFF", "I"),
            ("TIFF", "CMYK"),
            ("BMP", "RGB"),
            ("BMP", "1"),
            ("TIFF", "RGB"),
        )
    )
    return mangled(rng, picture(kind, mode, size))


def try_images(rng: random.Random, bench: Bench) -> None:
    """One image of a row, by path, bytes or text."""
    with bench.watch.off():
        place = bench.folder()
        confined = rng.random() < 0.6
        settings = DataConfig.model_validate(
            {
                "images": {
                    "confined": confined,
                    "unusual": rng.choice(("convert", "refuse")),
                    "max_megapixels": rng.choice((1, 16, 50)),
                }
            }
        ).images
        how, data = rng.randrange(6), image_bytes(rng)
        value: Any = data
        if how == 0:
            value = rng.choice(NAMES)
        elif how == 1:
            (place / "made.png").write_bytes(data)
            value = rng.choice(
                ("made.png", "./folder/../made.png", str(place / "made.png"), f"file://{place}/made.png")
            )
        elif how == 2:
            value = f"data:image/{rng.choice(('png', 'jpeg', 'svg+xml'))};base64,{base64.b64encode(data).decode()}"
            value = mangled(rng, value.encode(), rng.choice((0, 1))).decode("latin-1")
        elif how == 3:
            value = {
                rng.choice(("bytes", "data", "base64", "url", "path", "image")): rng.choice(
                    (base64.b64encode(data).decode(), list(data)[:4000])
                )
            }
        elif how == 4:
            value = hostile(rng)
    bench.watch.forbidden = str(bench.scratch / "secret") if confined else ""
    if rng.random() < 0.2 and isinstance(value, str | list | dict):
        (place / "row.jsonl").write_text(dumped({"question": "What?", "answer": "1", "image": value}))
        config = DataConfig.model_validate({"images": settings.model_dump()})
        use(load_problems(str(place / "row.jsonl"), config), bench)
        return
    kept = stored_image(value, place, confined)
    image_digest(kept)
    opened = open_image(kept, settings)
    assert opened.mode == "RGB"
    assert opened.width * opened.height <= settings.max_megapixels * 1e6


# Templates

EXPRESSIONS = (
    "''.__class__.__mro__[1].__subclasses__()", "cycler.__init__.__globals__.os.popen('touch CANARY')",
    "lipsum.__globals__['os'].environ", "self.__init__.__globals__", "messages|attr('__class__')",
    "'{0.__class__.__init__.__globals__}'.format(messages)", "('{0.__class__}'|string).format(cycler)",
    "'%s'|format(messages.__class__)", "namespace.__init__.__globals__", "joiner.__init__",
    "(messages|map('attr','__class__')|list)", "(messages|map(attribute='__class__')|list)",
    "raise_exception.__globals__", "strftime_now.__globals__.sys", "strftime_now('%' * 99999)",
    "strftime_now('\\ud800')", "messages.append(1)", "messages[0].update({'role': 'system'})", "dict.__base__",
    "range(10**12)", "range(99999)|list|length", "'a' * 10**10", "'a' * 10**7", "(9**9**9)", "[0] * 10**9",
    "'%9999999999d' % 1", "'{:>9999999999}'.format(1)", "'a'|center(10**10)", "'a'|indent(10**9)",
    "('a' * 99999)|replace('a', 'b' * 99999)", "(range(99999)|list * 999)|sort|length", "'a'.ljust(10**10)",
    "messages[10**100]", "messages[-1]", "undefined.x.y", "1/0", "1 // 0", "2 ** -1.5",
    "messages|tojson(indent=10**9)", "('x' * 99)|wordwrap(0)", "messages|tojson", "messages[0].content",
    "messages[0].content|upper", "bos_token", "eos_token", "''|join", "lipsum(99)", "lipsum(n=10**9)",
    "raise_exception('\x1b[31m' + 'x' * 99999)", "raise_exception(messages)", "raise_exception('')", "'\ud800'",
    "'\x1b]0;x\x07'", "loop", "caller()", "varargs", "messages|random", "messages|groupby('role')",
    "('a,' * 9999).split(',')|batch(2)|list", "'(a+)+$'", "messages|pprint", "messages|xmlattr",
    "'a'|filesizeformat", "10**4300", "(10**4999)|string", "'x'|int(base=99)", "0|round(10**9)", "messages|sum",
    "messages|slice(10**7)|list", "''|format(*range(99999))",
)  # fmt: skip
STATEMENTS = (
    "{{% for i in range(99999) %}}{{% for j in range(99999) %}}{{% for k in range(99999) %}}{body}{{% endfor %}}"
    "{{% endfor %}}{{% endfor %}}",
    "{{% macro m(x) %}}{body}{{{{ m(x) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
    "{{% for i in range(1000000000000) %}}{body}{{% endfor %}}",
    "{{% set ns = namespace(a='a') %}}{{% for i in range(60) %}}{{% set ns.a = ns.a ~ ns.a %}}{{% endfor %}}"
    "{{{{ ns.a }}}}{body}",
    "{{% for m in messages recursive %}}{{{{ loop(messages) }}}}{body}{{% endfor %}}",
    "{{% include '/etc/passwd' %}}{body}", "{{% import 'os' as os %}}{body}", "{{% extends 'x' %}}{body}",
    "{{% set messages = [] %}}{body}", "{{% if messages[0].content != 'spark-rl probe' %}}{body}{{% endif %}}",
    "{{% for m in messages %}}<|im_start|>{{{{ 'system' if m.role == 'user' else m.role }}}}{body}{{% endfor %}}",
    "{{% generation %}}{body}{{% endgeneration %}}", "{{% set x %}}{body}{{% endset %}}{{{{ x }}}}",
    "{{% filter upper %}}{body}{{% endfilter %}}", "{{% call(x) messages() %}}{body}{{% endcall %}}",
    "{{% for m in messages %}}{body}{{% break %}}{{% endfor %}}", "{{% raw %}}{body}", "{{# {body}",
    "{{% autoescape true %}}{body}{{% endautoescape %}}",
    "{{% set ns = namespace(l=[0]) %}}{{% for i in range(99) %}}{{% set ns.l = ns.l + ns.l %}}{{% endfor %}}{body}",
    "{body}",
)  # fmt: skip


def hostile_template(rng: random.Random) -> str:
    """A chat template."""
    body = "".join(
        rng.choice(("{{ " + rng.choice(EXPRESSIONS) + " }}", "{{ messages[0].content }}", rng.choice(TEXTS)))
        for _ in range(rng.choice((1, 2, 3)))
    )
    for _ in range(rng.choice((1, 1, 2))):
        body = rng.choice(STATEMENTS).format(body=body)
    text = rng.choice((CHATML + body, body, body + CHATML, body))
    if rng.random() < 0.05:
        text = "{% if 1 %}" * rng.choice((50, 500)) + text + "{% endif %}" * 50
    if rng.random() < 0.2:
        text = mangled(rng, text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return text


TEMPLATES: dict[str, Any] = {
    "instruction": "explicit",
    "pointwise": [{"labels": "yes_no", "text": "{question} {response}\nGive \\boxed{Yes} or \\boxed{No}."}],
    "pairwise": [{"text": "{question} {response_a} {response_b}\nGive \\boxed{A} or \\boxed{B}."}],
    "reflection": [{"text": "{question} {response}\nGive \\boxed{} again."}],
}  # fmt: skip
YAML = (
    "!!python/object/apply:os.system ['touch CANARY']",
    "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c]", "- " * 3000, "a: 2024-99-99",
    "? [x]\n: y", "\t- x", "%YAML 9.9\n---\n", "a: !!binary x", "a: 0x" + "f" * 9999, "{" * 3000, "a: 1\na: 2",
    "&a [*a]", "<<: &a {<<: *a}", "a: 1:1:1:1", "\ud800", "--- x\n--- y", "a: .inf",
)  # fmt: skip


def try_templates(rng: random.Random, bench: Bench) -> None:
    """One chat template, recycling template or few-shot text, rendered."""
    rendering.SECONDS = QUICK
    with bench.watch.off():
        place = bench.folder()
        os.chdir(place)
        which = rng.random()
    problem = Problem(id="p", question=rng.choice(("1+1?", *TEXTS)), answer="2")
    if which < 0.3:
        text = dumped(damaged(rng, TEMPLATES)) if rng.random() < 0.7 else rng.choice(YAML)
        name = f"set-{rng.random()}.yaml"
        Path(name).write_bytes(mangled(rng, text.encode("utf-8", "surrogatepass"), rng.choice((0, 0, 1))))
        templates = load_templates(
            name if rng.random() < 0.97 else rng.choice(("folder", "loop", "nowhere", "\0", "a" * 300))
        )
        said = rng.choice(TEXTS)
        render_judge(templates, problem.question, said, rng, "answer")
        render_pairwise(templates, problem.question, said, "\\boxed{2}", rng, "cot")
        render_reflection(templates, problem.question, said, rng, "cot")
        return
    template = hostile_template(rng)
    settings: dict[str, Any] = {
        name: rng.choice(TEXTS) for name in ("few_shot", "system", "policy") if rng.random() < 0.15
    }
    settings.setdefault("policy", "{question}")
    own: Any = template
    if which < 0.5:
        settings["template"], own = template, None
        if rng.random() < 0.3:
            Path("t.jinja").write_bytes(template.encode("utf-8", "surrogatepass"))
            settings["template"] = rng.choice(("t.jinja", "t.jinja", "folder.jinja", "nowhere.jinja", "~.jinja"))
    elif which < 0.6:
        own = rng.choice(
            ({"default": template}, {"rag": template, "tool_use": CHATML}, [{"name": "default", "template": template}])
        )
    try:
        chat = ChatFormat(tokenizer_of(own), ChatConfig(**settings))
        prompt = chat.encode(problem)
        check_secret(prompt.text)
    finally:
        if (place / "CANARY").exists():
            raise FoundError("a template has written a file")


def check_secret(text: str) -> None:
    """Raises :class:`FoundError` if a template has read the environment."""
    if SECRET in text:
        raise FoundError(f"the secret was told: {text[:200]!r}")


# Run folders


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
        if path.name == "tokenizer.json" and rng.random() < 0.1:
            tree["model"]["vocab"] = {f"t{i}": i for i in range(300_000)}
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


# Replies

REPLY: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{
        "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "\\boxed{2}"},
        "logprobs": {"content": [
            {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]},
        ]},
    }],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}
ERRORS = (
    {"error": {"message": "no", "type": "x", "param": "seed", "code": None}},
    {"detail": [{"loc": ["body", "n"], "msg": "extra"}]}, {"message": "\x1b[31m"}, {"error": "x"},
)  # fmt: skip
STATUSES = (200,) * 60 + (
    100, 101, 204, 206, 301, 302, 307, 308, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 599, 999, 0, -1,
)  # fmt: skip


class Server:
    """Answers each connection with bytes that the try has made."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.answers: list[tuple[bytes, str]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(3)
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(65536)
                if not piece:
                    return
                asked += piece
            found = re.search(rb"(?i)content-length: *(\d+)", asked)
            left = int(found[1]) if found else 0
            left -= len(asked.partition(b"\r\n\r\n")[2])
            while left > 0:
                piece = connection.recv(65536)
                if not piece:
                    return
                left -= len(piece)
            content, manner = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            if manner == "drip":
                for at in range(0, len(content), 7):
                    connection.sendall(content[at : at + 7])
                    time.sleep(0.02)
            elif manner == "endless":
                connection.sendall(content)
                for _ in range(4000):
                    connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            elif manner == "silent":
                connection.sendall(content[: len(content) // 2])
                time.sleep(2)
            else:
                connection.sendall(content)


def reply_bytes(rng: random.Random) -> tuple[bytes, str]:
    """One answer of a server, and the manner in which it comes."""
    status = rng.choice(STATUSES)
    tree: Any = (
        damaged(rng, REPLY)
        if rng.random() < 0.75
        else rng.choice((damaged(rng, MODELS), damaged(rng, rng.choice(ERRORS)), hostile(rng)))
    )
    body = dumped(tree).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        body = mangled(rng, body)
    headers = {"Content-Type": rng.choice(("application/json", "text/html", "application/json; charset=utf-7", "\x7f"))}
    manner = rng.choice(("plain",) * 14 + ("drip", "endless", "silent"))
    how = rng.random()
    if how < 0.02:
        body = rng.choice((b" " * 90_000_000, b"[" * 3_000_000, b'{"choices": [' + b"{}," * 500_000 + b"{}]}"))
    if how < 0.12:
        level = b" " * rng.choice((1000, 200_000_000)) if rng.random() < 0.15 else body
        encoding = rng.choice(("gzip", "deflate", "gzip, gzip", "br", "zstd", "identity", "x"))
        body = gzip.compress(level, 1) if "gzip" in encoding else zlib.compress(level, 1)
        body = gzip.compress(body, 1) if encoding.count("gzip") == 2 else body
        headers["Content-Encoding"] = encoding
    if 300 <= status < 400:
        headers["Location"] = rng.choice(
            (
                "file:///etc/passwd",
                "http://127.0.0.1:9/v1",
                "/v1/chat/completions",
                "http://169.254.169.254/",
                "//x",
                "\ud83d".encode("utf-8", "replace").decode(),
            )
        )
    if rng.random() < 0.1:
        headers["Retry-After"] = rng.choice(
            ("0", "-1", "nan", "1e999", "99999999", "x", "Wed, 21 Oct 2015 07:28:00 GMT")
        )
    length = rng.choice(
        (str(len(body)),) * 12 + ("0", "-1", str(len(body) + 5), "x", "9" * 30, str(max(0, len(body) - 3)))
    )
    if manner == "endless" or rng.random() < 0.1:
        headers["Transfer-Encoding"] = "chunked"
        if manner != "endless":
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    else:
        headers["Content-Length"] = length
    if rng.random() < 0.02:
        headers["X"] = "y" * 200_000
    head = (
        f"HTTP/1.1 {status} {rng.choice(('OK', chr(27) + '[31m', ''))}\r\n"
        + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        + "Connection: close\r\n\r\n"
    )
    whole = head.encode("latin-1", "replace") + (body if manner != "endless" else b"")
    return (mangled(rng, whole, 1) if rng.random() < 0.05 else whole), manner


def try_replies(rng: random.Random, bench: Bench) -> None:
    """One call of an engine, answered by a server that nobody may trust."""
    with bench.watch.off():
        server: Server = bench.made.setdefault("server", None) or Server()
        bench.made["server"] = server
        server.answers = [reply_bytes(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
    from spark_rl.chat import Prompt  # noqa: PLC0415

    engine = OpenAIEngine(server.url, "m" if rng.random() < 0.9 else None, timeout=1.0, retries=0)
    prompt = Prompt("1+1?", (), ({"role": "user", "content": "1+1?"},))
    sampling = Sampling(n=rng.choice((1, 1, 3)), max_new_tokens=8, top=rng.choice((0, 3)), seed=rng.randrange(99))
    ((*found,),) = engine.generate([prompt], sampling)
    assert len(found) == sampling.n
    for each in found:
        assert isinstance(each.text, str)
        assert all(-1e6 < value < 1e6 for value in each.logprobs)
        if each.error is not None:
            check_line(UserError(each.error))


# The campaign

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
