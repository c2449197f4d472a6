"""The documentation as people meet it: a strict build that loads nothing from elsewhere, and the notebook run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
_LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
_ELSEWHERE = re.compile(r"^(https?:)?//")
_ASKED_OF_CSS = re.compile(r"url\(\s*['\"]?((?:https?:)?//[^)'\"]+)|@import\s+['\"]((?:https?:)?//[^'\"]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


class Loaded(HTMLParser):
    """What a browser loads for a page, and what its links lead to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if (address := given.get(_LOADS.get(tag, ""))) and given.get("rel") not in {"canonical", "next", "prev"}:
            self.loads.append(address)
        if tag == "a" and (address := given.get("href")):
            self.links.append(address)


def pages(site: Path) -> Iterator[tuple[Path, Loaded]]:
    for page in sorted(site.rglob("*.html")):
        yield page, Loaded(page)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = [(page.name, address) for page, loaded in pages(site) for address in loaded.loads]
    assert len(found) > 100
    assert not [one for one in found if _ELSEWHERE.match(one[1])]
    styles = [style for style in site.rglob("*.css") if _ASKED_OF_CSS.search(style.read_text(encoding="utf-8"))]
    assert not styles


def test_every_link_and_picture_of_every_page_leads_to_something_on_the_site(site: Path) -> None:
    lost = []
    for page, loaded in pages(site):
        if page.name == "404.html":  # its addresses begin at the root of wherever the site lies
            continue
        for address in (*loaded.links, *loaded.loads):
            path = address.partition("#")[0].partition("?")[0]
            if path and not re.match(r"\w+:", path):
                target = page.parent / path
                if not (target.is_file() or (target / "index.html").is_file()):
                    lost.append((str(page.relative_to(site)), address))
    assert not lost


def test_the_interface_is_written_from_its_docstrings(site: Path) -> None:
    text = (site / "api/index.html").read_text(encoding="utf-8")
    for name in ("SparkTrainer", "solve", "verify", "load_config", "Rollout", "UserError"):
        assert re.search(rf'id="spark_rl\.[\w.]*{name}"', text), name
    assert ":func:" not in text
    assert ":class:" not in text


def test_the_home_page_is_the_readme_and_files_that_pages_link_are_pages(site: Path) -> None:
    assert "Read the algorithm" in (site / "index.html").read_text(encoding="utf-8")
    assert ">def</span>" in (site / "examples/code_reward.py/index.html").read_text(encoding="utf-8")
    assert "SparkTrainer" in (site / "examples/quickstart.ipynb/index.html").read_text(encoding="utf-8")


def test_the_notebook_runs() -> None:
    notebook = nbformat.read(ROOT / "examples/quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs")], "outputs are not committed"
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    texts = ["".join(out.get("text", "") for out in cell.get("outputs", ())) for cell in notebook.cells]
    shown = "\n".join(texts)
    assert "verifier: correct" in shown
    assert "verifier: wrong" in shown
    for task, label in (("pairwise", "'A'"), ("reflection", "'3'")):
        assert re.search(rf"{task} +label {re.escape(label)}", shown)
    assert re.findall(r"^(\d) \{'reward/policy'", shown, re.MULTILINE) == ["1", "2", "3"]
    assert "&lt;svg" in json.dumps(notebook.cells[-1].outputs), "the report"
