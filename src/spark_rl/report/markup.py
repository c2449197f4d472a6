"""The few HTML building blocks of the report, and the one place where untrusted text becomes HTML."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from spark_rl.report.notation import DASH

_LONGEST_TEXT = 6000
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a page may load: nothing but what is in it. Of scripts, the one whose digest is added."""


def text(value: object, longest: int = _LONGEST_TEXT) -> str:
    """Anything as HTML text, also fit for a quoted attribute: escaped, cut at ``longest`` characters, and with control
    characters made visible. ``None`` is a dash."""
    return escape(visible(value, longest))


def visible(value: object, longest: int = _LONGEST_TEXT) -> str:
    """:func:`text` without the escapes: for what a script sets as text."""
    if value is None:
        return DASH
    content = str(value)
    cut = f" … {len(content) - longest:,} more characters" if len(content) > longest else ""
    lines = content[:longest].replace("\r\n", "\n")
    # A lone surrogate, which a byte-level tokeniser can produce, is no character that a page could hold.
    return "".join(_character(c) for c in lines) + cut


def _character(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return "?"
    return character if character >= " " or character in "\n\t" else chr(0x2400 + ord(character))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "data") -> str:
    """A table that scrolls sideways on a narrow screen. The first cell of a row is its header.

    Captions and heads are plain text and escaped here; cells are HTML already. ``kind`` is the CSS class.
    """
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{text(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Content behind a line to click; the line is plain text, the content HTML."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def figure(title: str, legend: Sequence[str], chart: str, note: str, data: str) -> str:
    """A chart with what belongs to it: title, legend entries, note and data table. All but the title are HTML."""
    entries = "".join(f"<li>{entry}</li>" for entry in legend)
    remark = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<figure><figcaption>{text(title)}</figcaption><ul class="legend">{entries}</ul>{chart}{remark}'
        f"{folded('Data', data)}</figure>"
    )


def swatch(tone: str, *, line: bool = False) -> str:
    """The sample of a colour beside its name in a legend."""
    shape = (
        '<path class="line {}" d="M0 5H18"/>' if line else '<rect class="fill {}" x="1" y="1" width="16" height="8"/>'
    )
    return f'<svg class="swatch" viewBox="0 0 18 10" aria-hidden="true">{shape.format(tone)}</svg>'


def page(title: str, header: str, sections: Sequence[str], style: str = "", script: str = "") -> str:
    """A whole self-contained page that may fetch nothing, and run nothing but ``script``. The title is plain text, the
    rest is HTML.

    ``style`` is CSS of the page's own behind that of ``report.css``; ``script`` is JavaScript of ours.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"{_POLICY}; script-src 'sha256-{digest}'" if script else _POLICY
    run = f"<script>{script}</script>\n" if script else ""
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    content = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>
{css}{style}</style>
</head>
<body>
{header}
<main>
{content}
</main>
{run}</body>
</html>
"""
