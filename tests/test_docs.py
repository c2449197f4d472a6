"""The pages for people: what they name is in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from spark_rl import load_config
from spark_rl.plugins import load_object
from spark_rl.recycle import load_templates

ROOT = Path(__file__).parents[1]
PAGES = (*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md")),
         *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")))  # fmt: skip
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
PLACES = (ROOT, ROOT / "src/spark_rl", ROOT / "tests")
"""Where paths of a page begin, beside its own folder."""
FOREIGN = {"calculate_score.py", "evaluate.py"}
"""Scripts of others that pages name."""
YOURS = {"mine.py", "mine.yaml"}
"""Files that a reader would write."""

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"`([\w./-]+\.(?:py|yaml|md))`")
_OURS = re.compile(
    r"(?<![\w./-])(?:src|tests|docs|examples|configs|benchmarks)/[\w./-]*\w\.(?:py|yaml|md|jinja|svg|png)"
)
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


def named(text: str) -> set[str]:
    """Paths in backticks outside of code, and whole paths of ours anywhere."""
    return {*_NAMED.findall(_FENCED.sub("", text)), *_OURS.findall(text)} - FOREIGN - YOURS


@EACH
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    names = named(page.read_text(encoding="utf-8"))
    assert not {name for name in names if not any((place / name).exists() for place in (*PLACES, page.parent))}


@EACH
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = set(_LINK.findall(page.read_text(encoding="utf-8")))
    assert not {link for link in links if not (page.parent / link).exists()}


def test_what_is_not_there_is_seen() -> None:
    text = "`verify/gone.py` is `loop.py`, `x.py:name` is not\n```\nmine/other.py src/spark_rl/no.py\n```\n"
    assert named(text) == {"verify/gone.py", "loop.py", "src/spark_rl/no.py"}


def test_the_parts_that_the_page_on_extending_shows_are_accepted(tmp_path: Path) -> None:
    blocks = [block[2] for block in _BLOCK.finditer((ROOT / "docs/extending.md").read_text(encoding="utf-8"))]
    reward, data, templates = (
        next(block for block in blocks if word in block) for word in ("def brevity", "columns:", "pairwise:")
    )
    (tmp_path / "reward.py").write_text(reward)
    (tmp_path / "templates.yaml").write_text(templates)

    assert load_config(**yaml.safe_load(data)).data.columns.question == "prompt"
    assert load_object(f"{tmp_path}/reward.py:brevity", "reward.function")(["short", "long" * 100]) == [1.0, 0.0]
    assert "Is it right?" in load_templates(str(tmp_path / "templates.yaml")).pointwise[0].text


def places(nav: object) -> list[str]:
    """The pages that a navigation of mkdocs names, in its order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [place for part in parts for place in places(part)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    named = places(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert not pages - set(named), "add a line for the new page to `nav` of mkdocs.yml"
    assert len(named) == len(set(named))
    elsewhere = {place.replace(".ipynb.md", ".ipynb") for place in named} - pages - {"index.md"}
    assert not {place for place in elsewhere if not (ROOT / place).exists()}, "no such page"
