"""The published vision-language sets at hand: every row is read, every image opens, nothing is skipped in silence."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from spark_rl.config import ColumnsConfig, DataConfig, ImagesConfig
from spark_rl.data import check_disjoint, load_problems
from spark_rl.data.images import fit, open_image
from spark_rl.data.layouts import detect_layout
from spark_rl.data.rows import read_row
from spark_rl.errors import DataError
from spark_rl.verify.grade import grade

DATA = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data")) / "vlm"
SKIP = DataConfig(images=ImagesConfig(broken="skip"))

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set SPARK_RL_DATA_ROOT"),
]

SETS: dict[str, tuple[int, int, dict[str, int]]] = {
    "mathvision/test.jsonl": (60, 60, {"choice": 31, "math": 29}),
    "wemath/testmini.json": (66, 66, {"choice": 66}),
    **{f"dynamath/trial{i}/dataset.json": (6, 6, {"math": 4, "choice": 2}) for i in range(1, 11)},
    "logicvista/dataset.json": (60, 60, {"choice": 60}),
    "k12/k12.json": (60, 60, {"math": 60}),
    "mathverse/testmini_text_only.json": (788, 0, {"choice": 432, "math": 356}),
}
"""File -> problems, images, problems of each kind."""


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_used_and_every_image_opens(name: str, caplog: pytest.LogCaptureFixture) -> None:
    count, images, kinds = SETS[name]
    with caplog.at_level(logging.WARNING):
        problems = load_problems(str(DATA / name), DataConfig())
    assert not caplog.messages
    assert (len(problems), sum(len(p.images) for p in problems)) == (count, images)
    assert Counter(p.kind for p in problems) == kinds
    assert len({p.id for p in problems}) == count
    for problem in problems:
        assert grade(f"\\boxed{{{problem.answer}}}", problem.answer, problem.kind, problem.choices)[0] == "correct"
        assert "<image>" not in problem.question
        for image in problem.images:
            opened = open_image(image)
            with Image.open(image) as raw:
                assert opened.size == raw.size
            assert opened.mode == "RGB"
            small = fit(opened, None, 50_000)
            assert small.width * small.height <= 50_000


@pytest.mark.parametrize("name", ["mathvision/test.jsonl", "wemath/testmini.json", "logicvista/dataset.json"])
def test_letters_are_the_golds_of_multiple_choice(name: str) -> None:
    problems = [p for p in load_problems(str(DATA / name), DataConfig()) if p.kind == "choice"]
    assert all(re.fullmatch("[A-G]", problem.answer) for problem in problems)


def test_transparent_diagrams_stand_on_white() -> None:
    """Most of We-Math's diagrams are transparent: on black their lines would vanish."""
    problems = load_problems(str(DATA / "wemath/testmini.json"), DataConfig())
    corners = [open_image(p.images[0]).getpixel((0, 0)) for p in problems if p.images[0].endswith(".png")]
    assert (0, 0, 0) not in corners


def test_the_variants_of_dynamath_are_different_problems() -> None:
    first, second = (load_problems(str(DATA / f"dynamath/trial{i}/dataset.json"), DataConfig()) for i in (1, 2))
    assert [p.id for p in first] == ["4", "103", "152", "166", "400", "434"]
    assert {p.question for p in first} & {p.question for p in second}
    assert check_disjoint(first, second) == 0
    assert check_disjoint(first, first) == 6


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("mathvista/testmini.json", 1000, "images/1.jpg"),
        ("pope/coco_pope_random.json", 3000, "COCO_val2014_000000310196.jpg"),
        ("pope/coco_pope_popular.json", 3000, "COCO_val2014_000000310196.jpg"),
        ("pope/coco_pope_adversarial.json", 3000, "COCO_val2014_000000310196.jpg"),
    ],
)
def test_sets_whose_images_are_not_here_say_so(name: str, count: int, first: str) -> None:
    with pytest.raises(DataError, match=rf"row 1: image .*{first}: there is no such file; mend it, set data\.images"):
        load_problems(str(DATA / name), DataConfig())
    with pytest.raises(DataError, match=f"none of {count} rows is usable with its images: first is row 1, .*{first}"):
        load_problems(str(DATA / name), SKIP)


@pytest.mark.parametrize("name", ["mathvista/testmini.json", "pope/coco_pope_random.json"])
def test_they_load_whole_once_their_images_are_there(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (DATA / name).read_text(encoding="utf-8")
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    for image in set(re.findall(r'"image": "([^"]+)"', text)):
        (tmp_path / image).parent.mkdir(exist_ok=True)
        (tmp_path / image).symlink_to(tmp_path / "one.png")
    settings = DataConfig(images=ImagesConfig(root=str(tmp_path)))
    with caplog.at_level(logging.WARNING):
        problems = load_problems(str(DATA / name), settings)
    assert not caplog.messages
    kinds = {"choice": 540, "math": 460} if "mathvista" in name else {"verdict": 3000}
    assert Counter(p.kind for p in problems) == kinds


def test_prompts_of_mathvista_are_those_of_its_authors() -> None:
    rows = json.loads((DATA / "mathvista/testmini.json").read_text(encoding="utf-8"))
    queries = json.loads((DATA / "mathvista/query.json").read_text(encoding="utf-8"))
    differ = 0
    for key, row in rows.items():
        assert detect_layout([row], ColumnsConfig()) == "mathvista"
        problem = read_row(row, "mathvista", ColumnsConfig(), "auto", "")
        differ += problem.question != queries[key].strip()
        assert problem.question.split() == queries[key].split()
        if row["choices"]:
            assert row["choices"][ord(problem.answer) - ord("A")].strip() == row["answer"].strip()
    assert differ == 6  # by white space around questions and options


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mmmu/answer_dict_val.json", "no column for the question .*; there are: question_type, ground_truth"),
        ("mathvista/query.json", "must hold a list of rows, an object of rows, or one with a list under"),
    ],
)
def test_files_without_questions_or_answers_say_so(name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        load_problems(str(DATA / name), DataConfig())
