"""Recycled problems as a data set: the same whatever the files, and read by those it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer

from recycle.groups import groups as random_groups
from recycle.groups import solved
from spark_rl.config import Config, RecycleConfig
from spark_rl.files import whole_folder
from spark_rl.model.places import EMBEDDED
from spark_rl.problem import Group
from spark_rl.recycle import dataset as module
from spark_rl.recycle.dataset import Counts, DataSet, data_card, recycled_blocks
from spark_rl.rewards.recycled import compute_score, reward_func, verified

CONFIG = Config()
NUMBERS = count()


def build(folder: Path, blocks: Sequence[Sequence[Group]], config: Config = CONFIG) -> tuple[Counts, str]:
    counts = Counts()
    with whole_folder(folder) as scratch:
        data = DataSet(scratch, config.chat)
        for problems in recycled_blocks(blocks, config, counts):
            data.write(problems)
        card = data_card(counts, {"not JSON": 3}, config, "spark-rl recycle `x`", ["a|b.jsonl"])
        data.close(card)
    return counts, card


def load(folder: Path, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(cache))["train"]


@pytest.fixture
def plain_groups() -> list[Group]:
    """Without images: those of ``recycle.groups`` name one that is not there."""
    made = [solved(3, 3, number) for number in range(6)] + [solved(0, 2, 6), solved(4, 0, 7)]
    return [replace(group, problem=replace(group.problem, images=())) for group in made]


def test_the_data_set_holds_what_was_recycled(tmp_path: Path, plain_groups: list[Group]) -> None:
    config = Config(recycle=RecycleConfig(per_group=2, judge_cap=1, reflection_cap=1))
    counts, _ = build(tmp_path / "out", [plain_groups[:4], plain_groups[4:]], config)
    rows = load(tmp_path / "out", tmp_path / "cache")
    assert len(rows) == counts.problems > 16, "the caps of a training step do not apply"
    assert {task: sum(row["task"] == task for row in rows) for task in counts.tasks} == dict(counts.tasks)
    assert {row["parent"] for row in rows} <= {group.problem.id for group in plain_groups}
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["prompt"][-1]["role"] == "user"
        assert row["answer"] == row["solution"] == row["reward_model"]["ground_truth"]
        assert row["answer"] not in {"", None}
    assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))


def test_trl_verl_and_openrlhf_read_it_as_it_is(
    tmp_path: Path, plain_groups: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "out", [plain_groups])
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["embedded"])
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    rows = list(load(tmp_path / "out", tmp_path / "cache"))
    right = [f"so \\boxed{{{row['answer']}}}" for row in rows]
    wrong = ["\\boxed{nothing}" for _ in rows]

    # TRL: a chat is conversational where its turns have role and content; columns arrive by name
    assert all(set(turn) == {"role", "content"} for row in rows for turn in row["prompt"])
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in {"prompt", "completion"}}
    for texts, reward in ((right, 1.0), (wrong, 0.0)):
        chats = [[{"role": "assistant", "content": text}] for text in texts]
        assert verified(prompts=[row["prompt"] for row in rows], completions=chats, **columns) == [reward] * len(rows)

    # verl: one Parquet file after the other, the prompt by the chat template, the reward by ground truth
    files = sorted((tmp_path / "out" / "data").glob("*.parquet"))
    cache = str(tmp_path / "verl")
    parts = [datasets.load_dataset("parquet", data_files=str(file), cache_dir=cache)["train"] for file in files]
    read = datasets.concatenate_datasets(parts)
    for row, text in zip(read, right, strict=True):
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=True)
        assert {"data_source", "reward_model", "extra_info", "ability"} <= set(row)
        given = (row["data_source"], text, row["reward_model"]["ground_truth"], row["extra_info"])
        assert (row["reward_model"]["style"], compute_score(*given)) == ("rule", 1.0)

    # OpenRLHF: the chat template on --input_key prompt, and the text of --label_key answer
    prompts = [tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True) for row in rows]
    queries = [prompt + text for prompt, text in zip(prompts, right, strict=True)]
    found = reward_func(queries, prompts, [row["answer"] for row in rows])
    assert found["rewards"].tolist() == [1.0] * len(rows)
    assert all(isinstance(row["answer"], str) for row in rows)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, plain_groups: list[Group]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(tmp_path / name, [plain_groups], Config(seed=seed))
    first, second, other = (
        (tmp_path / name / "data" / "train-00000-of-00001.parquet").read_bytes() for name in ("a", "b", "c")
    )
    assert first == second != other


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=random_groups(largest=8), written=st.integers(1, 5), shard=st.integers(1, 4000))
def test_rows_do_not_depend_on_how_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[Group], written: int, shard: int
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    shown = [replace(group, problem=replace(group.problem, images=(str(picture),) * (n % 2 * (n > 3))))
             for n, group in enumerate(found)]  # fmt: skip
    blocks = [shown[:3], shown[3:]]
    name = str(next(NUMBERS))
    build(tmp_path / f"{name}-a", blocks)
    with monkeypatch.context() as patch:
        patch.setattr(module, "WRITTEN_ROWS", written)
        patch.setattr(module, "SHARD_BYTES", shard)
        build(tmp_path / f"{name}-b", blocks)
    tables = [[pq.read_table(path) for path in sorted((tmp_path / f"{name}-{one}" / "data").iterdir())] for one in "ab"]
    rows = [[row for table in some for row in table.to_pylist()] for some in tables]
    assert rows[0] == rows[1]
    assert len({table.schema for some in tables for table in some}) <= 1, "all files have the same columns"


def test_images_come_along_and_early_rows_without_them_load_too(tmp_path: Path, plain_groups: list[Group]) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 32), "red").save(picture)
    shown = [replace(group, problem=replace(group.problem, images=(str(picture), picture.read_bytes())))
             for group in plain_groups]  # fmt: skip
    build(tmp_path / "out", [plain_groups[:2], shown[2:]])
    picture.unlink()
    rows = load(tmp_path / "out", tmp_path / "cache")
    counts = {len(row["images"]) for row in rows}
    assert counts == {0, 2}
    for row in rows:
        assert row["prompt"][-1]["content"].count("<image>") == len(row["images"])
        assert all(image.size == (40, 32) for image in row["images"])


def test_a_reflection_problem_without_a_gold_answer_is_left_out(tmp_path: Path, plain_groups: list[Group]) -> None:
    some = [replace(group, problem=replace(group.problem, answer="", alternatives=())) for group in plain_groups]
    counts, card = build(tmp_path / "out", [some])
    assert counts.tasks["reflection"] == 0 < counts.unlabelled
    assert f"{counts.unlabelled} reflection problems left out" in card


def test_balance_holds_within_a_block(plain_groups: list[Group]) -> None:
    many = [replace(group, problem=replace(group.problem, id=f"{n}-{group.problem.id}"))
            for n in range(40) for group in plain_groups]  # fmt: skip
    counts = Counts()
    list(recycled_blocks([many], Config(recycle=RecycleConfig(balance=True, pointwise_share=0.5)), counts))
    for task, labels in (("pairwise", "AB"),):
        assert counts.labels[task, labels[0]] == counts.labels[task, labels[1]] > 0
    assert counts.labels["pointwise", "Yes"] == counts.labels["pointwise", "No"] > 0


def test_the_card_says_what_there_is(tmp_path: Path, plain_groups: list[Group]) -> None:
    counts, card = build(tmp_path / "out", [plain_groups], Config(seed=7))
    assert (tmp_path / "out" / "README.md").read_text() == card
    _, header, body = card.split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert "license" not in front
    assert "# license: fill in" in header
    assert front["size_categories"] == ["n<1K"]
    for task, made in counts.tasks.items():
        assert f"| {task} | {made} |" in body
    assert "Seed 7;" in body
    assert "````" not in body
    assert "```\nspark-rl recycle `x`\n```" in body
    assert "a/b.jsonl" in body
    assert "- 3 rows left out: not JSON" in body
