"""What the package index shows of README.md: the same text with links that work there.

Links relative to the repository lead nowhere on an index. Where the metadata names a repository they lead to it;
where it does not, they become plain text, and images are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!https?:|mailto:|#)([^)\s]+)\)")
_IMAGE = re.compile(r'!\[[^\[\]]*\]\((?!https?:)([^)\s]+)\)|<img\b[^>]*\bsrc="(?!https?:)([^"]+)"[^>]*>')


class ReadmeHook(MetadataHookInterface):
    """Gives the metadata its ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """See hatchling."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {"content-type": "text/markdown", "text": readable_elsewhere(text, repository)}


def readable_elsewhere(text: str, repository: str | None = None) -> str:
    """Markdown whose links do not depend on where it lies; code is left as it is."""
    lines, fenced = [], False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        lines.append(line if fenced or line.startswith("    ") else _elsewhere(line, repository))
    return "\n".join(lines)


def _elsewhere(line: str, repository: str | None) -> str:
    line = _IMAGE.sub(lambda found: _image(found, repository), line)
    return _LINK.sub(r"\1" if repository is None else rf"[\1]({repository}/blob/main/\2)", line)


def _image(found: re.Match[str], repository: str | None) -> str:
    path = found[1] or found[2]
    return "" if repository is None else found[0].replace(path, f"{repository}/raw/main/{path}")
