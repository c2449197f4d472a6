"""Images that lie in rows of a file: read when they are needed, the same ones, and nothing of them in memory."""

from __future__ import annotations

import base64
import copy
import gc
import io
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spark_rl.config import DataConfig, RewardConfig
from spark_rl.data import load_problems, parquet, rowimages
from spark_rl.data.images import ImageError, image_digest, open_image, read_image
from spark_rl.data.rowimages import RowImage
from spark_rl.data.source import Source
from spark_rl.errors import DataError
from spark_rl.problem import Problem
from spark_rl.recycle import Pool
from spark_rl.rewards import RewardSet
from spark_rl.rewards.base import WeightedReward


def picture(number: int, side: int = 12) -> bytes:
    """Noise, which does not get smaller."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def in_parquet(path: Path, pictures: Sequence[bytes], group: int = 4) -> str:
    rows = [
        {"question": f"q{i}", "answer": "2", "image": {"bytes": data, "path": f"{i}.png"}}
        for i, data in enumerate(pictures)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)  # type: ignore[no-untyped-call]
    return str(path)


def in_lines(path: Path, pictures: Sequence[bytes]) -> str:
    shapes: list[Callable[[str], Any]] = [
        lambda t: f"data:image/png;base64,{t}",
        lambda t: t,
        lambda t: {"bytes": t},
        lambda t: [f"data:image/png;base64,{t}"],
    ]
    lines = [json.dumps({"question": f"q{i}", "answer": "2", "image": shapes[i % 4](text(data))})
             for i, data in enumerate(pictures)]  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    return str(path)


WRITERS = {"set.parquet": in_parquet, "set.jsonl": in_lines}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("settings", [DataConfig(), DataConfig(sample=5, sample_seed=3), DataConfig(limit=3)])
def test_problems_are_those_of_images_in_memory(name: str, settings: DataConfig, tmp_path: Path) -> None:
    pictures = [picture(i % 7) for i in range(10)]
    found = load_problems(WRITERS[name](tmp_path / name, pictures), settings)
    rows = [{"question": f"q{i}", "answer": "2", "image": text(data)} for i, data in enumerate(pictures)]
    (tmp_path / "whole.json").write_text(json.dumps(rows))
    whole = load_problems(str(tmp_path / "whole.json"), settings)
    assert [p.question for p in found] == [p.question for p in whole]
    for one, other in zip(found, whole, strict=True):
        assert isinstance(one.images[0], RowImage)
        assert isinstance(other.images[0], bytes)
        assert open_image(one.images[0]).tobytes() == open_image(other.images[0]).tobytes()
        assert image_digest(one.images[0]) == image_digest(other.images[0])
        assert image_digest(read_image(one.images[0])) == image_digest(other.images[0])
        assert copy.deepcopy(one.images[0]) == read_image(one.images[0]), "to another process the bytes travel"
    assert load_problems(str(tmp_path / name), settings) == found


def test_images_of_a_chat_and_several_of_a_row_are_found(tmp_path: Path) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text(picture(i))}"}} for i in (1, 2)]
    chat = [{"role": "user", "content": [*parts, {"type": "text", "text": "which?"}]}]
    rows = [{"message": written, "answer": "2"} for written in (chat, json.dumps(chat))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for problem in load_problems(str(tmp_path / "a.jsonl"), DataConfig()):
        assert [isinstance(image, RowImage) for image in problem.images] == [True, True]
        assert [open_image(i).tobytes() for i in problem.images] == [
            open_image(picture(n)).tobytes() for n in (1, 2)
        ]  # fmt: skip


@pytest.mark.parametrize("name", [*WRITERS, "whole.json"])
def test_memory_does_not_grow_with_the_images(name: str, tmp_path: Path) -> None:
    """The last case shows that the measure tells."""

    def kept(count: int) -> int:
        pictures = [picture(i, side=100) for i in range(count)]
        spec = str(tmp_path / name)
        if name in WRITERS:
            WRITERS[name](tmp_path / name, pictures)
        else:
            rows = [{"question": f"q{i}", "answer": "2", "image": text(data)} for i, data in enumerate(pictures)]
            Path(spec).write_text(json.dumps(rows))
        del pictures
        gc.collect()
        tracemalloc.start()
        try:
            problems = load_problems(spec, DataConfig())
            gc.collect()
            assert len(problems) == count
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    kept(4)
    grown = (kept(30) - kept(4)) / 26
    assert grown < 5_000 if name in WRITERS else grown > 30_000


def test_what_is_kept_of_row_groups_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CACHE_BYTES", 400_000)
    monkeypatch.setattr(parquet, "_columns", parquet._Columns())
    pictures = [picture(i, side=100) for i in range(40)]
    problems = load_problems(in_parquet(tmp_path / "a.parquet", pictures), DataConfig())
    for at in random.Random(0).choices(range(40), k=60):
        assert read_image(problems[at].images[0]) == pictures[at]
        held = parquet._columns._held.values()
        assert sum(column.nbytes for column in held) == parquet._columns._bytes <= 400_000
        assert held


def test_of_large_row_groups_images_stay_in_memory_which_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowimages, "MOST_GROUP", 100_000)
    readers: list[Source] = []
    pictures = [picture(i, side=100) for i in range(9)]
    spec = in_parquet(tmp_path / "a.parquet", pictures, group=8)
    problems = load_problems(spec, DataConfig(), readers=readers)
    assert [type(p.images[0]) for p in problems] == [bytes] * 8 + [RowImage]
    (line,) = readers[0].said()
    assert line.startswith(f"images of {spec} are kept in memory, because for one of them all of its row group is read")


def other_pictures(path: Path, write: Callable[..., str]) -> None:
    write(path, [picture(i + 50) for i in range(6)])


def swapped(path: Path, write: Callable[..., str]) -> None:
    write(path, [picture(i) for i in (1, 0, 2, 3, 4, 5)])


def fewer(path: Path, write: Callable[..., str]) -> None:
    write(path, [picture(9)])


def no_data(path: Path, _write: Callable[..., str]) -> None:
    path.write_text("nothing of the kind")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("change", [other_pictures, swapped, fewer, no_data])
def test_another_file_is_one_line(change: Callable[..., None], name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, [picture(i) for i in range(6)])
    problem = load_problems(str(path), DataConfig())[1]
    change(path, WRITERS[name])
    os.utime(path, ns=(1, 1))
    number = problem.images[0].number
    with pytest.raises(
        ImageError, match=rf"^the image in row {number} of {path} is not the one that was loaded; put the file back as"
    ):
        open_image(problem.images[0])


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_gone_is_one_line_and_a_copy_will_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, [picture(i) for i in range(6)])
    problem = load_problems(str(path), DataConfig())[0]
    shutil.move(path, tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"^the file of the image in row 1 of {path} is gone; put it back$"):
        open_image(problem.images[0])
    shutil.copy(tmp_path / "elsewhere", path)
    assert open_image(problem.images[0]).tobytes() == open_image(picture(0)).tobytes()


@pytest.mark.parametrize("name", WRITERS)
def test_a_pool_saves_the_place_and_resumes_with_the_same_problems(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, [picture(i) for i in range(6)])
    problems = load_problems(str(path), DataConfig())
    pool = Pool(9)
    pool.add([*problems, *problems[:2]])
    state = json.loads(json.dumps(pool.state()))
    assert len(json.dumps(state)) < 8 * 700
    assert "base64" not in json.dumps(state)
    restored = Pool.from_state(9, state)
    assert json.loads(json.dumps(restored.state())) == state
    assert restored.take(9) == [*problems, *problems[:2]]
    WRITERS[name](path, [picture(i + 50) for i in range(6)])
    with pytest.raises(DataError, match=rf"^the image in row 1 of {path} is not the one that was loaded"):
        Pool.from_state(9, state)
    path.unlink()
    with pytest.raises(DataError, match=r"is gone; put it back$"):
        Pool.from_state(9, state)


def test_reward_functions_are_given_the_bytes(tmp_path: Path) -> None:
    problems = load_problems(in_parquet(tmp_path / "a.parquet", [picture(0), picture(1)]), DataConfig())
    seen: list[Any] = []

    def looks(images: list[Any], **_: Any) -> list[float]:
        seen.extend(images)
        return [1.0] * len(images)

    rewards = RewardSet([WeightedReward(looks)], RewardConfig().timeout)
    asked: list[Problem] = [problems[0], problems[0], problems[1], Problem("none", "?", "1")]
    rewards.score(asked, [""] * 4, [""] * 4)
    assert seen == [[picture(0)], [picture(0)], [picture(1)], []]


@pytest.mark.parametrize("nested", [False, True])
def test_a_picture_of_many_rows_that_the_file_holds_once_is_read_once(nested: bool, tmp_path: Path) -> None:
    held = picture(0, 60)
    images: list[Any] = [[{"bytes": held}] if nested else held] * 5000 + [[{"bytes": picture(1)}] if nested else None]
    table = pa.table({"question": ["q"] * 5001, "answer": ["2"] * 5001, "image": images})
    pq.write_table(table, tmp_path / "a.parquet")  # type: ignore[no-untyped-call]
    assert (tmp_path / "a.parquet").stat().st_size < 3 * len(held) < 5000 * len(held) / 1000
    before = pa.total_allocated_bytes()
    problem = load_problems(str(tmp_path / "a.parquet"), DataConfig())[4000]
    assert problem.images[0].read() == held  # type: ignore[attr-defined]
    assert pa.total_allocated_bytes() - before < 100 * len(held)
