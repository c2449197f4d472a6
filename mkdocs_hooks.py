"""The repository's pages as a site: links that hold on a forge hold there too.

Pages of `docs/` link to files of the repository outside of it. Each file that is linked becomes a page: Markdown as it
is, a notebook as its cells, any other text as code. `README.md` is the home page. Links are worked out from the
files themselves, so that a page never says a different thing in the two places.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
ALWAYS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/quickstart.ipynb")
"""Files outside of `docs/` that are pages whether anything links to them or not."""
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)|(?<=\bsrc=\")(?!https?:)([^\"]+)")
_ROLE = re.compile(r":(?:func|class|mod|data|attr|meth|exc):(?=<code>)")
_INSIDE = re.compile(r"(?<=<code>)[~.]?(?:spark_rl\.)?(?=[\w.]+</code>)")


def place(path: Path) -> str:
    """Where a file of the repository lies on the site: `docs/a.md` is `a.md`, `examples/a.py` is `examples/a.py.md`."""
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    name = name.removeprefix("docs/")
    return name if path.suffix in {".md", ".png", ".svg"} else f"{name}.md"


def text_of(path: Path) -> str:
    """A file of the repository as Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"])
        return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)
    return f"# {path.name}\n\n```{path.suffix[1:]}\n{text}```\n"


def linked(path: Path) -> Iterator[Path]:
    """Files of the repository that a page leads to; folders and what is not there are left to the strict build."""
    for found in _LINK.finditer(path.read_text(encoding="utf-8")):
        target = (path.parent / (found[1] or found[2])).resolve()
        if target.is_file() and target.is_relative_to(ROOT):
            yield target


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside of `docs/` that a page leads to."""
    docs = Path(config.docs_dir)
    waiting = [*docs.rglob("*.md"), *(ROOT / name for name in ALWAYS)]
    known: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in known:
            continue
        known.add(path)
        if not path.is_relative_to(docs):
            files.append(File.generated(config, place(path), content=text_of(path)))
        if path.suffix == ".md":
            waiting += linked(path)
    _SOURCES.update({place(path): path for path in known})
    return files


_SOURCES: dict[str, Path] = {}
"""Page of the site -> the file that it is made of."""


def on_page_markdown(markdown: str, page: Page, **_rest: Any) -> str:
    """Lead links to the pages that the linked files are on the site."""
    path = _SOURCES[page.file.src_uri]

    def moved(found: re.Match[str]) -> str:
        target = (path.parent / found[0]).resolve()
        if not (target.is_file() and target.is_relative_to(ROOT)):
            return found[0]
        return os.path.relpath(place(target), Path(page.file.src_uri).parent)

    return _LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, **_rest: Any) -> str:
    """Docstrings name what they speak of by Sphinx's roles."""
    return _INSIDE.sub("", _ROLE.sub("", html)) if page.file.src_uri == "api.md" else html
