"""The wheel, built and run from an empty folder: everything that the package reads at run time is in it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from running import ENVIRONMENT, SMALL

pytest.importorskip("hatchling", reason="the wheel is built with hatchling, which this environment lacks")

ROOT = Path(__file__).parents[1]
RELATIVE = re.compile(r"\]\((?!https?:|#)|<img\b[^>]*src=\"(?!https?:)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True,
                   capture_output=True, timeout=200)  # fmt: skip
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def test_the_metadata_is_what_an_index_can_show(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = wheel.read(name).decode().partition("\n\n")[2]
    assert text.startswith("# spark-rl")
    plain = "\n".join(line for line in text.split("\n") if not line.startswith("    "))
    assert RELATIVE.search(plain) is None
    assert "docs/embedded.md" in text, "named, though not linked"
    assert all(url.partition(", ")[2].startswith("https://") for url in metadata.get_all("Project-URL", []))
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["License-Expression"] == "Apache-2.0"


def test_links_lead_to_the_repository_where_one_is_named() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from hatch_build import readable_elsewhere
    finally:
        sys.path.remove(str(ROOT))
    text = (
        'a [b](docs/c.md#d) [e](https://f.org) <img src="docs/g.png" width="4">\n\n    [h](i.md)\n```\n[j](k.md)\n```'
    )
    code = "\n\n    [h](i.md)\n```\n[j](k.md)\n```"
    assert readable_elsewhere(text) == f"a b [e](https://f.org) {code}"
    image = '<img src="https://x.org/y/raw/main/docs/g.png" width="4">'
    link = "[b](https://x.org/y/blob/main/docs/c.md#d)"
    assert readable_elsewhere(text, "https://x.org/y") == f"a {link} [e](https://f.org) {image}{code}"


def test_the_wheel_runs_from_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    wheel.extractall(unpacked)
    empty.mkdir()
    assert (unpacked / "spark_rl" / "py.typed").exists()

    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "spark_rl", *arguments], cwd=empty, capture_output=True, text=True,
                              env={**ENVIRONMENT, "PYTHONPATH": str(unpacked)}, timeout=200, check=False)  # fmt: skip
        assert str(ROOT / "src") not in done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "embedded-vl" in run("config", "--config", "tiny-vl")
    run("train", "--run-dir", "run", *SMALL, "recycle.templates=natural", "train.steps=1")
    assert {"model", "report.html", "metrics.jsonl"} <= {path.name for path in (empty / "run").iterdir()}
    assert "<style" in (empty / "run" / "report.html").read_text(encoding="utf-8")
