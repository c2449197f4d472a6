"""The parts of a run outside its directory: stored as absolute paths, known again by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spark_rl.config import parse_config
from spark_rl.model.places import EMBEDDED
from spark_rl.parts import digest, digests, gone, is_the_same_part, with_resolved_paths


def test_what_is_on_this_disk_gets_its_absolute_path(
    tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_models["llama"], tmp_path / "base")
    for name in ("data.jsonl", "mine.jinja", "mine.yaml", "natural", "embedded"):
        (tmp_path / name).write_text("x")
    config = parse_config({
        "model": {"path": "base"}, "data": {"train": "data.jsonl", "heldout": "split:3", "images": {"root": "."}},
        "chat": {"template": "mine.jinja"}, "recycle": {"templates": "mine.yaml"},
    })  # fmt: skip
    found = with_resolved_paths(config)
    assert found.model.path == str(tmp_path / "base")
    assert (found.data.train, found.data.heldout) == (str(tmp_path / "data.jsonl"), "split:3")
    assert found.data.images.root == str(tmp_path)
    assert found.chat.template == str(tmp_path / "mine.jinja")
    assert found.recycle.templates == str(tmp_path / "mine.yaml")
    assert with_resolved_paths(found) == found
    assert found.rollout.model_fields_set == set(), "what nobody set stays so"


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"path": "embedded"}, "recycle": {"templates": "natural"}},
        {"model": {"path": "owner/model"}, "data": {"train": "owner/data:main@test", "heldout": "procedural:missing"}},
        {"model": {"path": "./gone"}, "data": {"train": "gone.jsonl"}},
        {"chat": {"template": "{% for m in messages %}{{ m['content'] }}\n{% endfor %}" + "x" * 9000}},
    ],
)
def test_names_and_what_is_not_there_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "natural").mkdir()  # a set of templates comes before a directory of its name
    config = parse_config(sections)
    assert with_resolved_paths(config) == config


def test_a_part_is_known_again_by_its_content(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in ("old.jsonl", "new.jsonl", "other.jsonl"))
    old.write_text("a" * 3_000_000)
    recorded = digests(parse_config({"data": {"train": str(old)}}))
    old.rename(new)
    other.write_text("a" * 2_999_999 + "b")  # of the same size
    assert recorded == {str(old): digest(new), "embedded": digest(EMBEDDED["embedded"])}
    assert is_the_same_part(str(old), str(new), recorded)
    assert is_the_same_part("gone", "gone", {})
    assert is_the_same_part(None, None, {})
    assert not is_the_same_part(str(old), str(other), recorded)
    assert not is_the_same_part(str(old), str(old) + "-gone", recorded)
    assert not is_the_same_part(str(old), None, recorded)
    assert not is_the_same_part(str(old), str(new), {}), "nothing is known of what was there"
    assert is_the_same_part([{"source": str(old), "weight": 2}], [{"source": str(new), "weight": 2}], recorded)
    assert not is_the_same_part([{"source": str(old), "weight": 2}], [{"source": str(new), "weight": 3}], recorded)
    assert is_the_same_part("embedded", str(EMBEDDED["embedded"]), {}), "the same thing under another name"


def test_a_directory_is_all_its_files(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    copy = shutil.copytree(tiny_models["llama"], tmp_path / "copy")
    assert digest(copy) == digest(tiny_models["llama"])
    (copy / "config.json").rename(copy / "conf.json")
    assert digest(copy) != digest(tiny_models["llama"])


def test_what_is_gone_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").touch()
    config = parse_config({"model": {"path": "owner/name"}, "data": {"train": str(tmp_path / "data.jsonl")}})
    assert gone(config, ["model.path", "data.train", "data.heldout"]) is None
    (tmp_path / "data.jsonl").unlink()
    assert gone(config, ["model.path", "data.train"]) == ("data.train", str(tmp_path / "data.jsonl"))
    assert gone(config, ["model.path"]) is None
