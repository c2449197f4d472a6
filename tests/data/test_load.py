"""Loading: every kind of source, bad rows and broken files, and held-out problems that never reach training."""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spark_rl.config import ColumnsConfig, DataConfig, ImagesConfig, load_config
from spark_rl.data import check_disjoint, load_problems, parquet, remove_overlap
from spark_rl.data.images import open_image, read_image
from spark_rl.errors import ConfigError, DataError
from spark_rl.problem import Problem

ROWS: list[dict[str, Any]] = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(5)]
SHARED = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data"))


def write(path: Path, rows: Any) -> str:
    """The rows in the format the file's suffix names."""
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return str(path)


@pytest.fixture(autouse=True)
def _quiet_datasets() -> None:
    datasets.disable_progress_bars()


@pytest.mark.parametrize("name", ["set.json", "set.jsonl", "set.parquet", "set.csv", "set"])
def test_every_source_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    spec = write(tmp_path / name, ROWS)
    problems = load_problems(spec, DataConfig())
    assert [(p.question, p.answer) for p in problems] == [(row["question"], row["answer"]) for row in ROWS]
    assert [p.id for p in problems] == [f"set-{i}" for i in range(1, 6)]
    assert {(p.source, p.kind, p.task) for p in problems} == {(spec, "math", "policy")}


def test_a_list_under_data_and_lines_in_a_json_file(tmp_path: Path) -> None:
    wrapped = load_problems(write(tmp_path / "set.json", {"version": 1, "data": ROWS}), DataConfig())
    lines = tmp_path / "lines" / "set.json"
    lines.parent.mkdir()
    lines.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    assert [p.question for p in wrapped] == [p.question for p in load_problems(str(lines), DataConfig())]
    assert len(wrapped) == 5


def test_a_byte_order_mark_blank_lines_and_odd_separators_are_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(
        '\ufeff{"question": "a\u2028b\x85c", "answer": 1}\r\n\n{"question": "d", "answer": 2}', encoding="utf-8"
    )
    problems = load_problems(str(path), DataConfig())
    assert [p.question for p in problems] == ["a\u2028b\x85c", "d"]
    assert [p.id for p in problems] == ["set-1", "set-3"]


def test_a_saved_dictionary_of_splits_and_a_file_that_looks_like_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = datasets.Dataset.from_list(ROWS[:2])
    datasets.DatasetDict(train=half, test=datasets.Dataset.from_list(ROWS[2:])).save_to_disk(
        str(tmp_path / "org" / "set")
    )
    monkeypatch.chdir(tmp_path)
    assert len(load_problems("org/set", DataConfig())) == 2
    assert len(load_problems("org/set", DataConfig(split="test"))) == 3
    assert len(load_problems("org/set/test", DataConfig())) == 3
    with pytest.raises(DataError, match=r"org/set has no split 'dev'; set data\.split to one of: train, test"):
        load_problems("org/set", DataConfig(split="dev"))


def picture(colour: str = "red", form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(file, form)
    return file.getvalue()


def seen(*images: Any, **more: Any) -> dict[str, Any]:
    return {"question": "q", "answer": "2", "images": list(images), **more}


def test_image_columns_of_parquet_files(tmp_path: Path) -> None:
    rows = [{"question": "<image>q", "answer": "2", "image": {"bytes": picture(), "path": "a.png"}}]
    problem = load_problems(write(tmp_path / "set.parquet", rows), DataConfig())[0]
    assert (problem.question, *map(read_image, problem.images)) == ("q", picture())


def test_rows_of_a_parquet_file_are_counted_without_a_gap(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": "2"} for i in range(1, 2301)]
    problems = load_problems(write(tmp_path / "set.parquet", rows), DataConfig())
    assert [p.id for p in problems] == [f"set-{i}" for i in range(1, 2301)]
    assert problems[-1].question == "q2300"


def test_images_of_hugging_face_data_sets_keep_their_own_encoding(tmp_path: Path) -> None:
    jpeg = picture("blue", "JPEG")
    several = datasets.Dataset.from_list(
        [{"question": "q", "answer": "2", "images": [{"bytes": jpeg, "path": None}]}],
        features=datasets.Features(
            {"question": datasets.Value("string"), "answer": datasets.Value("string"),
             "images": datasets.List(datasets.Image())}
        ),
    )  # fmt: skip
    one = datasets.Dataset.from_dict({"question": ["q"], "answer": ["2"], "image": [Image.new("RGB", (3, 3), "lime")]})
    several.save_to_disk(str(tmp_path / "several"))
    one.save_to_disk(str(tmp_path / "one"))
    assert load_problems(str(tmp_path / "several"), DataConfig())[0].images == (jpeg,)
    (image,) = load_problems(str(tmp_path / "one"), DataConfig())[0].images
    assert open_image(image).getpixel((1, 1)) == (0, 255, 0)


def test_rows_of_an_object_have_their_keys_as_ids(tmp_path: Path) -> None:
    rows = {"v1_7": {"question": "q", "answer": "2"}, "v1_9": {"question": "r", "answer": ""}}
    path = write(tmp_path / "set.json", rows | {"v1_8": {"question": "r", "answer": "3"}})
    assert [p.id for p in load_problems(path, DataConfig())] == ["v1_7", "v1_8"]
    bad = write(tmp_path / "bad.json", {"v1_9": {"question": "r", "answer": ""}})
    with pytest.raises(DataError, match="none of 1 rows is usable as columns: first is row v1_9, empty answer"):
        load_problems(bad, DataConfig())


def test_image_paths_start_at_the_file_or_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("set/images/a.png", "else/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(picture())
    spec = write(tmp_path / "set" / "a.jsonl", [seen("images/a.png"), seen("a.png", picture_text()), seen()])
    monkeypatch.chdir(tmp_path)
    for relative in (spec, "set/a.jsonl"):
        images = [tuple(map(read_image, p.images)) for p in load_problems(relative, DataConfig())]
        path = str(tmp_path / "set" / "images" / "a.png")
        assert images == [(path,), (path, picture_text()), ()]
    spec = write(tmp_path / "set" / "b.jsonl", [seen("b.png")])
    for root in (str(tmp_path / "else"), "else"):
        settings = DataConfig(images=ImagesConfig(root=root))
        assert load_problems(spec, settings)[0].images == (str(tmp_path / "else" / "b.png"),)


def picture_text() -> str:
    return "data:image/png;base64," + base64.b64encode(picture()).decode()


def broken_set(folder: Path, count: int = 600) -> str:
    """Every fifth row has a broken image: gone, empty, cut short, or an address, in turn."""
    (folder / "good.png").write_bytes(picture())
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(picture()[:60])
    bad = ["gone.png", "empty.png", "cut.png", "http://x/a.png"]
    rows = [seen(bad[i // 5 % 4] if i % 5 == 2 else "good.png", name=f"n{i}") for i in range(count)]
    return write(folder / "set.jsonl", rows)


def test_a_broken_image_stops_with_its_row_and_the_mend(tmp_path: Path) -> None:
    spec = broken_set(tmp_path)
    for role in ("train", "heldout"):
        with pytest.raises(DataError) as caught:
            load_problems(spec, DataConfig(), role)
        assert str(caught.value) == (
            f"{spec}, row 3: image {tmp_path}/gone.png: there is no such file; mend it, set data.images.root to the "
            "folder that paths start from, or data.images.broken to skip"
        )


def test_broken_images_are_skipped_counted_apart_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = broken_set(tmp_path)
    with (tmp_path / "set.jsonl").open("a") as file:
        file.write('{"question": "", "answer": "2", "images": []}\n')
    settings = DataConfig(images=ImagesConfig(broken="skip"), columns=ColumnsConfig(id="name"))
    with caplog.at_level(logging.WARNING):
        problems = load_problems(spec, settings)
    assert [p.id for p in problems] == [f"n{i}" for i in range(600) if i % 5 != 2]
    assert caplog.messages == [
        f"skipped 1 of 601 rows of {spec}: first is row 601, no question",
        f"skipped 120 of 601 rows of {spec} for their images: 30 like row 3, {tmp_path}/gone.png: there is no such "
        f"file; 30 like row 8, {tmp_path}/empty.png: empty, no bytes at all; 30 like row 13, {tmp_path}/cut.png: "
        "truncated or damaged (image file is truncated); 30 like row 18, http://x/a.png: addresses are not fetched; "
        "download it and give a path",
    ]


def test_a_set_without_a_single_image_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    spec = write(tmp_path / "set.jsonl", [seen("gone.png")] * 3)
    with pytest.raises(DataError, match=r"none of 3 rows is usable with its images: first is row 1, .*no such file"):
        load_problems(spec, DataConfig(images=ImagesConfig(broken="skip")))


def test_settings_of_images_reach_them(tmp_path: Path) -> None:
    Image.new("CMYK", (30, 20)).save(tmp_path / "a.jpg")
    spec = write(tmp_path / "set.jsonl", [seen("a.jpg")])
    assert len(load_problems(spec, DataConfig())) == 1
    with pytest.raises(DataError, match=r"row 1: image .*a\.jpg: CMYK, which data\.images\.unusual refuses"):
        load_problems(spec, DataConfig(images=ImagesConfig(unusual="refuse")))
    with pytest.raises(DataError, match=r"a\.jpg: 30 x 20, larger than data\.images\.max_megapixels"):
        load_problems(spec, DataConfig(images=ImagesConfig(max_megapixels=0.0005)))


def test_only_the_images_of_the_rows_in_use_are_opened(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture())
    spec = write(tmp_path / "set.jsonl", [seen("good.png")] * 3 + [seen("gone.png")] * 500)
    assert len(load_problems(spec, DataConfig(limit=3))) == 3
    rows = [seen("good.png", p=1.0), seen("gone.png", p=0.0)] * 5
    assert len(load_problems(write(tmp_path / "b.jsonl", rows), DataConfig(ranges={"p": (0.5, None)}))) == 5


def test_images_sets_with_unbalanced_boxes_drop_them_and_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}.jpg").write_bytes(picture("blue", "JPEG"))
    rows = [
        {"question": "<image>x?", "answer": "\\boxed{1}", "image": ["images/a.jpg"], "qid": "u-1", "PassRate": 0.5},
        {
            "question": "<image>y?",
            "answer": "\\boxed{\\frac{1}{2}",
            "image": ["images/a.jpg"],
            "qid": "u-2",
            "PassRate": 1.0,
        },
        {
            "question": "<image><image>z?",
            "answer": "\\boxed{A}",
            "image": ["images/a.jpg", "images/b.jpg"],
            "qid": "u-3",
            "PassRate": 1.0,
        },
        {"question": "1+1?", "answer": "\\boxed{2}", "image": [], "qid": "u-4", "PassRate": 0.0},
    ]
    spec = write(tmp_path / "39Krelease.parquet", rows)
    columns = ColumnsConfig(id="qid")
    with caplog.at_level(logging.WARNING):
        problems = load_problems(spec, DataConfig(columns=columns))
    assert [(p.id, p.question, p.answer, len(p.images)) for p in problems] == [
        ("u-1", "x?", "1", 1), ("u-3", "z?", "A", 2), ("u-4", "1+1?", "2", 0),
    ]  # fmt: skip
    assert caplog.messages == [
        f"skipped 1 of 4 rows of {spec}: first is row 2, unbalanced braces in the box of the answer"
    ]
    some = load_problems(spec, DataConfig(columns=columns, ranges={"PassRate": (None, 0.99)}))
    assert [p.id for p in some] == ["u-1", "u-4"]


def test_ranges_apply_to_training_only_and_name_what_is_missing(tmp_path: Path) -> None:
    spec = write(tmp_path / "set.jsonl", [row | {"p": i / 4} for i, row in enumerate(ROWS)])
    assert [p.id for p in load_problems(spec, DataConfig(ranges={"p": (0.25, 0.75)}))] == ["set-2", "set-3", "set-4"]
    assert len(load_problems(spec, DataConfig(ranges={"q": (0.25, 0.75)}), "heldout")) == 5
    with pytest.raises(DataError, match=r"data\.ranges names 'q', which is no column; there are: question, answer, p"):
        load_problems(spec, DataConfig(ranges={"q": (0.25, 0.75)}))
    with pytest.raises(DataError, match=r"none of 5 rows is within data\.ranges; widen them"):
        load_problems(spec, DataConfig(ranges={"p": (7, None)}))


def test_ranges_can_be_written_in_full_or_one_by_one() -> None:
    both = {"PassRate": (None, 0.99), "level": (3.0, None)}
    assert load_config(data={"ranges": {"PassRate": [None, 0.99], "level": [3, None]}}).data.ranges == both
    assert load_config(None, ["data.ranges={PassRate: [null, 0.99], level: [3, null]}"]).data.ranges == both
    assert load_config(None, ["data.ranges.PassRate=[null, 0.99]", "data.ranges.level=[3, null]"]).data.ranges == both
    with pytest.raises(ConfigError, match=r"data\.ranges: input should be a list \(got 0\.99\)"):
        load_config(None, ["data.ranges.PassRate=0.99"])


def test_a_sample_is_random_seeded_and_in_the_order_of_the_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": f"{i}+1?", "answer": str(i)} for i in range(200)]
    spec = write(tmp_path / "set.jsonl", rows)

    def drawn(**settings: Any) -> list[int]:
        return [int(p.answer) for p in load_problems(spec, DataConfig(**settings))]

    first = drawn(sample=50)
    assert first == sorted(first) == drawn(sample=50) != drawn(sample=50, sample_seed=1)
    assert len(set(first)) == 50
    assert max(first) > 150
    assert set(drawn(sample=20)) < set(first)
    assert drawn(sample=50, limit=5) == first[:5]
    assert len(load_problems(spec, DataConfig(sample=50), "heldout")) == 200
    assert not caplog.messages
    assert len(drawn(sample=500)) == 200
    assert caplog.messages == [f"data.sample asks for 500 problems; {spec} has 200"]


def test_a_sample_makes_up_for_broken_images(tmp_path: Path) -> None:
    spec = broken_set(tmp_path, 100)
    problems = load_problems(spec, DataConfig(sample=80, images=ImagesConfig(broken="skip")))
    assert len(problems) == 80


def test_limit_applies_to_training_only_and_counts_usable_rows(tmp_path: Path) -> None:
    spec = write(tmp_path / "set.jsonl", [{"question": "", "answer": "x"}, *ROWS])
    assert [p.question for p in load_problems(spec, DataConfig(limit=2))] == ["0+1?", "1+1?"]
    assert len(load_problems(spec, DataConfig(limit=2), "heldout")) == 5
    assert len(load_problems(spec, DataConfig(limit=2), "transfer")) == 5


def test_settings_reach_the_rows(tmp_path: Path) -> None:
    spec = write(
        tmp_path / "set.json", [{"frage": "q", "antwort": "2", "nr": "x"}, {"frage": "r", "antwort": "3", "nr": "x"}]
    )
    columns = ColumnsConfig(question="frage", answer="antwort", id="nr")
    problems = load_problems(spec, DataConfig(columns=columns, kind="exact"))
    assert [(p.id, p.question, p.kind) for p in problems] == [("x", "q", "exact"), ("x-2", "r", "exact")]
    with pytest.raises(DataError, match="none of 2 rows is usable as gsm8k: first is row 1, no #### in the answer"):
        load_problems(spec, DataConfig(columns=columns, layout="gsm8k"))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "a-2", "a-3", "b", ""]), min_size=1, max_size=12))
def test_ids_are_unique(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    rows = [{"question": "q", "answer": "2", "id": name} for name in ids]
    spec = write(tmp_path_factory.getbasetemp() / "ids.json", rows)
    found = [p.id for p in load_problems(spec, DataConfig(columns=ColumnsConfig(id="id")))]
    assert len(set(found)) == len(ids)
    assert found[0] == ids[0]


def test_bad_rows_are_skipped_counted_and_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*ROWS, {"question": "q", "answer": ""}, {"answer": "2"}, ["x"], {"question": "q", "answer": {}}]
    spec = write(tmp_path / "set.json", rows)
    with caplog.at_level(logging.WARNING):
        assert len(load_problems(spec, DataConfig())) == 5
    assert caplog.messages == [
        f"skipped 4 of 9 rows of {spec}: 1 like row 6, empty answer; 1 like row 7, no question; 1 like row 8, not an "
        "object with named columns; 1 like row 9, the answer is a dict, not text or a number"
    ]


def test_good_files_are_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="spark_rl"):
        load_problems(write(tmp_path / "set.jsonl", ROWS), DataConfig())
    assert not caplog.messages


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"question": "q", "answer": 1}\n\n{"question": \n',
            r"a\.jsonl, line 3: not valid JSON .*one JSON object",
        ),
        ("a.json", '[\n{"question": "q",\n}]', r"a\.json, line 3: not valid JSON"),
        ("a.json", '{"question": "q"}\n{"question": \n', r"a\.json, line 2: not valid JSON"),
        ("a.json", "[" * 200_000, r"a\.json: not usable JSON \(nested too deeply\)"),
        ("a.jsonl", '{"question":' * 200_000, r"a\.jsonl, line 1: not valid JSON \(nested too deeply\)"),
        ("a.json", "9" * 10_000, r"a\.json: not usable JSON \(Exceeds the limit"),
        ("a.json", '{"rows": []}', 'must hold a list of rows, an object of rows, or one with a list under "data"'),
        ("a.json", "3", "must hold a list of rows"),
        ("a.json", "[]", r"a\.json has no rows"),
        ("a.jsonl", "\n", r"a\.jsonl has no rows"),
        ("a.json", '["q", "r"]', "rows must be objects with named columns"),
        (
            "a.json",
            '[{"question": "", "answer": "1"}]',
            "none of 1 rows is usable as columns: first is row 1, no question",
        ),
        ("a.json", '[{"qu": "", "answer": "1"}]', r"no column for the question .*; there are: qu, answer"),
        ("a.json", b"\xff\xfe[\x00]\x00", r"a\.json is not UTF-8 text \(byte 0\); convert it"),
        ("a.csv", 'question,answer\n"a,2\n', r"a\.csv: not valid CSV"),
        ("a.parquet", "not parquet", r"a\.parquet is not a readable Parquet file"),
        (
            "a.pkl",
            b"cos\nsystem\n(S'touch owned'\ntR.",
            r"a\.pkl: unknown kind of file '\.pkl'; convert it to one of \.json",
        ),
    ],
)
def test_broken_files_are_one_line_that_says_where(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_problems(str(path), DataConfig())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("spec", ["{}/trian.jsonl", "{}/nothing", "./nothing.txt", "nothing.parquet", "~/nothing/here"])
def test_a_missing_file_is_named(tmp_path: Path, spec: str) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    spec = spec.format(tmp_path)
    with pytest.raises(DataError, match=f"there is no file {re.escape(spec)}") as caught:
        load_problems(spec, DataConfig())
    assert str(caught.value).endswith(f"did you mean {tmp_path / 'train.jsonl'}?") == ("trian" in spec)


def test_a_directory_that_is_no_data_set(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no data set saved by datasets .*; name a file inside it") as caught:
        load_problems(str(tmp_path), DataConfig())
    assert "\n" not in str(caught.value)


def test_a_hub_data_set_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    code = (
        "from spark_rl.data import DataError, load_problems; from spark_rl.config import DataConfig\n"
        "try: load_problems('nobody/nothing:main@test', DataConfig())\n"
        "except DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(
        "there is no file nobody/nothing:main@test, and the hub data set could not be loaded ("
    )
    assert ran.stdout.endswith("check the name and the connection\n")
    assert ran.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("org/set", ("org/set", None, "train")),
        ("org/set:main", ("org/set", "main", "train")),
        ("org/set:main@test", ("org/set", "main", "test")),
        ("set@validation[:5]", ("set", None, "validation[:5]")),
    ],
)
def test_hub_specifications_name_set_configuration_and_split(
    monkeypatch: pytest.MonkeyPatch, spec: str, expected: tuple[str, str | None, str]
) -> None:
    """The hub itself is out of reach here: a local data set stands in for what ``datasets`` would fetch."""
    asked = []

    def fetched(name: str, configuration: str | None, split: str) -> datasets.Dataset:
        asked.append((name, configuration, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", fetched)
    problems = load_problems(spec, DataConfig())
    assert asked == [expected]
    assert [p.id for p in problems[:2]] == ["set-1", "set-2"]
    assert problems[0].source == spec


def test_several_sources_are_put_together_with_unique_ids(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
    first = write(tmp_path / "a" / "set.jsonl", ROWS)
    second = write(tmp_path / "b" / "set.jsonl", [{"problem": "7+7?", "solution": "\\boxed{14}"}])
    config = load_config(data={"train": [first, {"path": second}]}).data
    problems = load_problems(config.train, config)
    assert [p.id for p in problems] == [*(f"set-{n}" for n in range(1, 6)), "set-1-2"]
    assert [p.source for p in problems] == [first] * 5 + [second]
    assert problems[-1].answer == "14"
    limited = load_problems([first, second], DataConfig(limit=2))
    assert [p.source for p in limited] == [first, first, second], "limit counts in each source"
    mixed = load_problems([first, "procedural:operators"], DataConfig(limit=3))
    assert [p.source for p in mixed] == [first] * 3 + ["procedural:operators"] * 3
    kept, removed = remove_overlap(problems, load_problems(second, config, "heldout"))
    assert (len(kept), removed) == (5, 1)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("[]", "data: train is an empty list; name at least one source"),
        ("[a.jsonl, a.jsonl]", "train names 'a.jsonl' twice"),
        ("[a.jsonl, {source: b.jsonl, weight: 2}]", "train gives 'a.jsonl' no weight and others one; give all or none"),
        ("[{source: a.jsonl, weight: 0}]", "data.train.0.weight: input should be greater than 0 (got 0)"),
        ("[a.jsonl, {source: b.jsonl, wieght: 1}]", "data.train.1.wieght: extra inputs are not permitted (got 1)"),
        ("[{weight: 1}]", "data.train.0.source: field required"),
    ],
)
def test_lists_of_sources_that_say_nothing_are_refused(train: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(None, [f"data.train={train}"])
    assert "\n" not in str(caught.value)


def test_sources_can_be_written_as_overrides_and_one_stays_a_text() -> None:
    config = load_config(None, ["data.train=[a.jsonl, {source: b.jsonl}]"])
    assert [getattr(entry, "source", entry) for entry in config.data.train] == ["a.jsonl", "b.jsonl"]
    assert config.data.shares is None
    weighted = load_config(None, ["data.train=[{source: a, weight: 1}, {path: b, weight: 3}]"])
    assert weighted.data.shares == {"a": 0.25, "b": 0.75}
    assert load_config(None, [], **json.loads(json.dumps(weighted.model_dump(mode="json")))) == weighted
    assert load_config(None, ["data.train=2024"]).data.train == "2024"
    assert load_config(None, ["data.train=a.jsonl"]).data.shares is None


def test_names_that_are_too_long_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_problems(f"{tmp_path}/{'x' * 5000}.jsonl", DataConfig())
    (tmp_path / "good.png").write_bytes(picture())
    spec = write(tmp_path / "set.jsonl", [seen("good.png"), seen("y" * 5000 + ".png"), seen("good.png")])
    with pytest.raises(DataError, match=r"row 2: image \.\.\.y+\.png: can't be read \(File name too long\)"):
        load_problems(spec, DataConfig())
    assert len(load_problems(spec, DataConfig(images=ImagesConfig(broken="skip")))) == 2


def test_images_can_be_confined_to_a_root(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "in.png").write_bytes(picture())
    (tmp_path / "out.png").write_bytes(picture("blue"))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "out.png")
    (tmp_path / "set" / "door").symlink_to(tmp_path)
    (tmp_path / "set" / "alias.png").symlink_to(tmp_path / "set" / "in.png")
    confined = DataConfig(images=ImagesConfig(confined=True))
    inside = ["in.png", str(tmp_path / "set" / "in.png"), "../set/in.png", "alias.png", picture_text()]
    for image in inside:
        assert len(load_problems(write(tmp_path / "set" / "a.jsonl", [seen(image)]), confined)[0].images) == 1
    outside = ["../out.png", str(tmp_path / "out.png"), "link.png", "door/out.png", "/etc/passwd", "../nothing.png",
               f"file://{tmp_path}/out.png"]  # fmt: skip
    for image in outside:
        spec = write(tmp_path / "set" / "a.jsonl", [seen(image)])
        with pytest.raises(DataError, match=r"row 1: image .*outside of .*/set, which data\.images\.confined refuses"):
            load_problems(spec, confined)
    wider = DataConfig(images=ImagesConfig(confined=True, root=str(tmp_path)))
    assert len(load_problems(write(tmp_path / "set" / "a.jsonl", [seen("out.png")]), wider)) == 1
    assert len(load_problems(write(tmp_path / "set" / "a.jsonl", [seen("../out.png")]), DataConfig())) == 1


def problems_of(*questions: str) -> tuple[Problem, ...]:
    return tuple(
        Problem(id=f"p-{i}", question=question, answer="1", source="s") for i, question in enumerate(questions)
    )


def test_held_out_questions_are_removed_from_training_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    train = problems_of("what is\n 1+1?", "2+2?", "3+3?", "2+2?")
    heldout = problems_of("what  is 1+1?", "9+9?")
    assert check_disjoint(train, heldout) == 1
    with caplog.at_level(logging.WARNING):
        kept, removed = remove_overlap(train, heldout)
    assert (kept, removed) == ((train[1], train[2], train[3]), 1)
    assert check_disjoint(kept, heldout) == 0
    assert caplog.messages == ["removed 1 of 4 training problems whose question is held out"]


def test_the_same_question_over_another_picture_is_another_problem(tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue")):
        (tmp_path / name).write_bytes(picture(colour))
    a, b, c = (str(tmp_path / name) for name in ("a.png", "b.png", "c.png"))

    def asked(*images: Any) -> Problem:
        return Problem(id="p", question="solve", answer="1", images=images, source="s")

    text = picture_text()
    train = (asked(a), asked(b), asked(c), asked(), asked(a, c), asked(c, a), asked(text), asked(picture("red")))
    heldout = (asked(b), asked(c, a))
    assert check_disjoint(train, heldout) == 2
    kept, removed = remove_overlap(train, heldout)
    assert (kept, removed) == ((asked(c), asked(), asked(a, c)), 5)
    assert check_disjoint(kept, heldout) == 0
    assert check_disjoint(train, train) == 5


def test_images_are_read_only_where_questions_collide(tmp_path: Path) -> None:
    """A terabyte (of holes): reading it would end in a MemoryError."""
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(10**12)
    huge = str(tmp_path / "huge.png")
    train = tuple(Problem(id=q, question=q, answer="1", images=(huge,)) for q in ("one", "two"))
    heldout = [Problem(id="h", question="three", answer="1", images=(huge,)), *problems_of("four")]
    assert remove_overlap(train, heldout) == (train, 0)
    assert check_disjoint(train, heldout) == 0


def test_nothing_is_removed_or_said_when_there_is_no_overlap(caplog: pytest.LogCaptureFixture) -> None:
    train = problems_of("a", "b")
    assert remove_overlap(train, problems_of("c")) == (train, 0)
    assert remove_overlap((), problems_of("c")) == ((), 0)
    assert not caplog.messages


def test_training_on_nothing_but_held_out_problems_is_an_error() -> None:
    with pytest.raises(DataError, match=r"all 2 training problems of s are held out, p-0 for one; give data\.heldout"):
        remove_overlap(problems_of("a", "b"), problems_of("b ", "a"))


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.lists(st.sampled_from("bcd "), min_size=1))
def test_no_held_out_question_survives_in_training(train: list[str], heldout: list[str]) -> None:
    problems = problems_of("always kept", *train)
    kept, removed = remove_overlap(problems, problems_of(*heldout))
    assert [p.question for p in kept] == ["always kept", *(q for q in train if q not in heldout)]
    assert removed == len(problems) - len(kept)


def test_the_same_problem_in_another_layout_is_still_found(tmp_path: Path) -> None:
    suffix = (
        "\nPlease first conduct reasoning, and then answer the question. Repeat the final answer using a '\\boxed{}.'"
    )
    content = [{"role": "user", "content": [{"type": "text", "text": "0+1?" + suffix}]}]
    train = load_problems(write(tmp_path / "t.json", [{"message": json.dumps(content), "answer": "1"}]), DataConfig())
    heldout = load_problems(write(tmp_path / "h.jsonl", ROWS), DataConfig(), "heldout")
    assert check_disjoint(train, heldout) == 1


def test_cells_may_hold_line_breaks_other_separators_and_a_book(tmp_path: Path) -> None:
    long = "x" * 300_000
    rows = [{"question": f"a\r\nb\u2028c\x0bd\x85e {long}", "answer": "1"}, {"question": "f\x0bg", "answer": "2"}]
    limit = csv.field_size_limit()
    problems = load_problems(write(tmp_path / "set.csv", rows), DataConfig())
    assert [p.question for p in problems] == [row["question"] for row in rows]
    assert csv.field_size_limit() == limit
    bare = tmp_path / "bare.csv"
    bare.write_text("question,answer\nf\x0bg,2\nh\u2028i,3\n", encoding="utf-8")
    assert [p.question for p in load_problems(str(bare), DataConfig())] == ["f\x0bg", "h\u2028i"]


def test_a_table_with_tabs(tmp_path: Path) -> None:
    path = tmp_path / "set.tsv"
    path.write_text('question\tanswer\n1,5 + 1?\t"2,5"\n', encoding="utf-8")
    assert [(p.question, p.answer) for p in load_problems(str(path), DataConfig())] == [("1,5 + 1?", "2,5")]
    path.write_text('question\tanswer\n"a\t2\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"set\.tsv: not valid TSV"):
        load_problems(str(path), DataConfig())


def again(value: Any, times: int) -> pa.Array:
    """One value many times over, stored once."""
    return pa.array([value]).dictionary_encode().take(pa.array([0] * times))


LARGE = "x" * 2**20


@pytest.mark.parametrize(
    ("most", "columns"),
    [
        (None, {"question": again(LARGE, 6000), "answer": again("1", 6000)}),
        (10**8, {"question": again("q", 200), "answer": again("1", 200),
                 "image": pa.array([[{"bytes": LARGE.encode(), "path": None}]] * 200)}),
        (10**8, {"question": pa.array([LARGE + str(n) for n in range(100)]), "answer": again("1", 100)}),
        (10**8, {"question": ["q"], "answer": ["1"],
                 "numbers": pa.ListArray.from_arrays([0, 10**7], pa.nulls(10**7, pa.int8()))}),
    ],
    ids=["a text again and again", "a picture again and again", "long texts", "nothing, often"],
)  # fmt: skip
def test_a_small_parquet_file_that_expands_to_gigabytes_is_refused_with_its_size(
    tmp_path: Path, most: int | None, columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table(columns), path, compression="zstd")
    if most is not None:
        monkeypatch.setattr(parquet, "MOST_BYTES", most)
    assert path.stat().st_size < 2e6
    with pytest.raises(DataError, match=r"set\.parquet: \d+\.\d MB that expand to [\d.]+ GB or more, over") as caught:
        load_problems(str(path), DataConfig())
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_repeats_itself_within_bounds_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MOST_BYTES", 10**8)
    path = tmp_path / "set.parquet"
    columns = {"question": [f"{n}?" for n in range(3000)], "answer": again("1", 3000), "s": again("y" * 20_000, 3000)}
    pq.write_table(pa.table(columns), path)
    assert [p.question for p in load_problems(str(path), DataConfig())] == columns["question"]


def shared(name: str, role: Any = "train") -> tuple[Problem, ...]:
    path = SHARED / "llm" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no shared data at {path}")
    return load_problems(str(path), DataConfig(), role)


@pytest.mark.shared
def test_gsm8k_loads_whole_with_numeric_golds(caplog: pytest.LogCaptureFixture) -> None:
    train, test = shared("gsm8k_train"), shared("gsm8k_test", "heldout")
    assert (len(train), len(test)) == (7473, 1319)
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", p.answer) for p in (*train, *test))
    assert (train[0].answer, train[1].answer) == ("72", "10")
    assert not caplog.messages
    assert check_disjoint(remove_overlap(train, test)[0], test) == 0


@pytest.mark.shared
def test_mathematics_benchmarks_load_whole() -> None:
    math, aime, amc = shared("math500"), shared("aime24"), shared("amc23")
    assert (len(math), len(aime), len(amc)) == (500, 30, 40)
    assert math[0].answer == "\\left( 3, \\frac{\\pi}{2} \\right)"
    assert all(p.answer.isdecimal() and int(p.answer) <= 999 for p in aime)
    assert all(re.fullmatch(r"-?\d+", p.answer) for p in amc)
    assert {p.kind for p in (*aime, *amc)} == {"math"}
    chosen = [p for p in math if p.kind == "choice"]
    assert [(p.answer, len(p.choices)) for p in chosen] == [("C", 6), ("E", 5), ("B", 5)], "their options are inside"


@pytest.mark.shared
def test_mmlu_stem_is_multiple_choice() -> None:
    problems = shared("mmlu_stem")
    assert len(problems) == 3018
    assert {p.kind for p in problems} == {"choice"}
    assert {p.answer for p in problems} == set("ABCD")
    assert problems[0].answer == "C"
    assert problems[0].question.endswith(f"\n(D) {problems[0].choices[3]}")
