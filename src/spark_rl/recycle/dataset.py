"""Recycled problems as a data set that TRL, verl and OpenRLHF read as they are, written in bounded memory (Eq. 5 to 8).

One table serves all three: ``prompt`` is a chat and ``solution`` the label (TRL's conversational prompts and its reward
functions), ``data_source``, ``ability``, ``reward_model`` and ``extra_info`` are verl's, ``answer`` is what OpenRLHF's
``--label_key`` names. Sources: ``trl/rewards/accuracy_rewards.py``, ``verl/utils/dataset/rl_dataset.py``,
``openrlhf/datasets/prompts_dataset.py``.

Departures from :func:`spark_rl.recycle.recycle` on all groups at once: groups are recycled in blocks, each with a
random stream of its own that its number and the seed give; ``recycle.judge_cap`` and ``reflection_cap``, which bound a
step of training, do not apply; a reflection problem whose parent has no gold answer has no label and is left out.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spark_rl.chat import chat_messages, policy_prompt
from spark_rl.config import ChatConfig, Config
from spark_rl.data.encoded import data_bytes, is_data
from spark_rl.data.images import read_image, stored_image
from spark_rl.data.values import MARKER
from spark_rl.problem import TASKS, Group, Problem
from spark_rl.recycle.mixture import recycled
from spark_rl.seeds import stream_seed
from spark_rl.version import __version__

RECYCLED = tuple(task for task in TASKS if task != "policy")
SHARD_BYTES = 400 * 2**20
"""A file of the data set ends with the block that makes it as large in memory."""
WRITTEN_ROWS = 256
"""Rows that are tables at a time."""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))  # fmt: skip


@dataclass
class Counts:
    """What a data set was made of, and what it holds."""

    groups: int = 0
    responses: int = 0
    tasks: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(RECYCLED, 0)))
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(judging task, label) -> problems."""
    unlabelled: int = 0
    """Reflection problems whose parent has no gold answer."""

    @property
    def problems(self) -> int:
        return self.tasks.total()

    def add_groups(self, groups: Sequence[Group]) -> None:
        """What problems are made of."""
        self.groups += len(groups)
        self.responses += sum(len(group.rollouts) for group in groups)

    def add_problems(self, problems: Iterable[Problem]) -> None:
        """What was made."""
        for problem in problems:
            self.tasks[problem.task] += 1
            if problem.task != "reflection":
                self.labels[problem.task, problem.answer] += 1


def recycled_blocks(blocks: Iterable[Sequence[Group]], config: Config, counts: Counts) -> Iterator[list[Problem]]:
    """The problems of each block of groups, counted as they pass.

    Args:
        blocks: groups with their verdicts; what a block holds decides what ``recycle.balance`` balances.
        config: ``recycle``, ``seed`` and ``verify.thinking`` are read.
        counts: what passes is added to it.
    """
    most = {"judge_cap": 2**62, "reflection_cap": 2**62}
    settings = config.recycle.model_copy(update=most)
    for number, groups in enumerate(blocks):
        counts.add_groups(groups)
        rng = random.Random(stream_seed(config.seed, "recycled data", number))
        problems = []
        for problem in recycled(groups, settings, rng, config.verify.thinking):
            if problem.task == "reflection" and not problem.answer:
                counts.unlabelled += 1
            else:
                problems.append(problem)
        counts.add_problems(problems)
        yield problems


def row_of(problem: Problem, index: int, chat: ChatConfig) -> dict[str, Any]:
    """A problem as a row; images apart (:func:`image_of`)."""
    text = policy_prompt(problem, chat)
    if problem.images and text.count(MARKER) != len(problem.images):  # verl wants one for each
        text = MARKER * len(problem.images) + text.replace(MARKER, " ")
    graded = {"kind": problem.kind, "alternatives": list(problem.alternatives), "choices": list(problem.choices)}
    place = {"task": problem.task, "parent": problem.parent or ""}
    return {
        "prompt": chat_messages([text], chat.system),
        "answer": problem.answer, "solution": problem.answer, **graded, **place, "id": problem.id,
        "source": problem.source, "data_source": f"spark-rl/{problem.task}",
        "ability": "reflection" if problem.task == "reflection" else "judge",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": index, "id": problem.id, **place, **graded},
    }  # fmt: skip


def image_of(image: object) -> dict[str, Any]:
    """An image as ``datasets`` stores one: its encoded bytes.

    Raises:
        ImageError, OSError: it is gone since it was looked at.
    """
    held = stored_image(read_image(image), Path())
    if isinstance(held, str):
        held = data_bytes(held) if is_data(held) else Path(held.removeprefix("file://")).read_bytes()
    return {"bytes": held, "path": None}


class DataSet:
    """Writes rows into a folder as Parquet files that ``datasets.load_dataset`` reads, and what they are beside them::

        with whole_folder(path) as scratch:
            data = DataSet(scratch, config.chat)
            for problems in recycled_blocks(blocks, config, counts):
                data.write(problems)
            data.close(card)

    Of no problems there is no file, which ``datasets`` would not load. Once a problem has images, all rows have a
    column of them.
    """

    def __init__(self, folder: Path, chat: ChatConfig) -> None:
        import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

        self._parquet = pq
        self.folder, self.chat = folder / "data", chat
        self.folder.mkdir()
        self.rows = 0
        self._images = False
        self._files: list[Path] = []
        self._writer: Any = None
        self._held = 0

    def write(self, problems: Sequence[Problem]) -> None:
        """Rows for the problems of a block. Raises ``OSError`` if they can't be written."""
        import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

        if not self._images and any(problem.images for problem in problems):
            self._end_file()
            self._images = True
        schema = _schema(self._images)
        for start in range(0, len(problems), WRITTEN_ROWS):
            rows = []
            for problem in problems[start : start + WRITTEN_ROWS]:
                row = row_of(problem, self.rows, self.chat)
                rows.append(row | ({"images": [image_of(one) for one in problem.images]} if self._images else {}))
                self.rows += 1
            table = pa.Table.from_pylist(rows, schema=schema)
            if self._writer is None:
                self._files.append(self.folder / f"{len(self._files):05}.parquet")
                self._writer = self._parquet.ParquetWriter(self._files[-1], schema)
            self._writer.write_table(table)
            self._held += table.nbytes
        if self._held >= SHARD_BYTES:
            self._end_file()

    def close(self, card: str) -> None:
        """End the last file, name all of them, and write the card. Raises ``OSError`` if that can't be done."""
        self._end_file()
        for number, path in enumerate(self._files):
            if self._images:
                self._with_images(path)
            path.replace(self.folder / f"train-{number:05}-of-{len(self._files):05}.parquet")
        (self.folder.parent / "README.md").write_text(card, encoding="utf-8", errors="replace")

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._held = None, 0

    def _with_images(self, path: Path) -> None:
        """Give a file that was written before the first image its column of them, a row group at a time."""
        import pyarrow as pa

        schema = _schema(images=True)
        with self._parquet.ParquetFile(path) as file:
            if "images" in file.schema_arrow.names:
                return
            scratch = path.with_suffix(".tmp")
            with self._parquet.ParquetWriter(scratch, schema) as writer:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    empty = pa.array([[]] * table.num_rows, schema.field("images").type)
                    writer.write_table(table.append_column("images", empty).select(schema.names).cast(schema))
        scratch.replace(path)


def _schema(images: bool) -> Any:
    """The columns, with the features that ``datasets`` reads them as."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    graded = {"kind": text, "alternatives": List(text), "choices": List(text)}
    columns: dict[str, Any] = {
        "prompt": List({"role": text, "content": text}), "answer": text, "solution": text, **graded, "task": text,
        "parent": text, "id": text, "source": text, "data_source": text, "ability": text,
        "reward_model": {"style": text, "ground_truth": text},
        "extra_info": {"index": Value("int64"), "id": text, "task": text, "parent": text, **graded},
    }  # fmt: skip
    return Features(columns | ({"images": List(Image())} if images else {})).arrow_schema


def data_card(counts: Counts, refused: Mapping[str, int], config: Config, command: str, sources: Sequence[str]) -> str:
    """``README.md`` of a data set: a YAML header for the hub, counts, balance, the seed and the command.

    The licence is a line to fill in: it is that of the problems and of the model that answered them.
    """
    size = next((name for most, name in _SIZES if counts.problems < most), "n>100M")
    tasks = [f"| {task} | {counts.tasks[task]:,} | {_labels(counts, task)} |" for task in RECYCLED]
    lost = [f"- {count:,} rows left out: {_text(why)}" for why, count in sorted(refused.items())]
    if counts.unlabelled:
        lost.append(f"- {counts.unlabelled:,} reflection problems left out: their parent has no gold answer")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return "\n".join([
        "---", "# license: fill in, e.g. apache-2.0: that of the problems, and of the model that answered them",
        "configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: data/train-*",
        "task_categories:", "- text-generation", "tags:", "- reinforcement-learning", "- generative-reward-model",
        "- spark-rl", "size_categories:", f"- {size}", "---", "",
        "# Recycled rollouts", "",
        f"{counts.problems:,} problems for reinforcement learning with verifiable rewards, made of "
        f"{counts.responses:,} responses in {counts.groups:,} groups ({', '.join(map(_text, sources))}) "
        "as SPARK makes them ([paper](https://arxiv.org/abs/2509.22624)): is this response correct, which of two is, "
        "here is a wrong one, do better. Labels are what the verifier said of the responses.", "",
        "| task | problems | labels |", "| --- | --- | --- |", *tasks, *(["", *lost] if lost else []), "",
        f"Seed {config.seed}; spark-rl {__version__}; templates `{_text(config.recycle.templates)}`. Made with", "",
        fence, command, fence, "",
        "| column | holds |", "| --- | --- |",
        "| `prompt` | the chat to answer; the answer is asked for in `\\boxed{}` |",
        "| `answer`, `solution` | the label: Yes or No, A or B, or the parent's gold answer |",
        "| `kind`, `alternatives`, `choices` | how a response is compared with it (`spark_rl.verify.verify`) |",
        "| `task`, `parent`, `id`, `source` | what is asked, the problem it was made from, and the file of that |",
        "| `data_source`, `ability`, `reward_model`, `extra_info` | the same for verl |", "",
    ])  # fmt: skip


def _labels(counts: Counts, task: str) -> str:
    """``Yes 51%, No 49%``."""
    found = {label: n for (of, label), n in sorted(counts.labels.items()) if of == task}
    whole = sum(found.values())
    return ", ".join(f"{label} {n / whole:.0%}" for label, n in found.items()) or "gold answers"


def _text(text: str) -> str:
    """Text that ends no line, no cell of a table and no code of Markdown."""
    return " ".join(text.split()).replace("|", "/").replace("`", "'").replace("<", "&lt;")
