"""A terminal's window, as much of one as live views need, whose text is wrapped again when its width changes.

Terminals of today do that (VTE, kitty, iTerm2, Windows Terminal, tmux); the emulators on the package index cut lines.
"""

from __future__ import annotations

import io
import re

_CUT = re.compile(r"\x1b(\[[0-9;?]*)?$")
"""The beginning of a command whose rest has not come yet."""
_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")


class Window(io.StringIO):
    """What is written to it is on screen, in :meth:`lines`. Rows that have left the window can't be reached again."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.width, self.height = width, height
        self.rows: list[tuple[str, bool]] = [("", False)]
        """Text, and whether it goes on in the next row."""
        self.row = self.column = 0
        self._cut = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        whole = self._cut + text
        self._cut = found[0] if (found := _CUT.search(whole)) else ""
        for token in _TOKEN.finditer(whole.removesuffix(self._cut)):
            number, command, line, character = token.groups()
            if command == "A":
                self.row = max(self.row - int(number or 1), len(self.rows) - self.height, 0)
            elif command == "K":
                self.rows[self.row] = ("", False)
            elif line == "\r":
                self.column = 0
            elif line == "\n":
                self._down()
            elif character:
                self._put(character)
        return len(text)

    def _put(self, character: str) -> None:
        if self.column == self.width:
            self.rows[self.row] = (self.rows[self.row][0], True)
            self._down()
        text, goes_on = self.rows[self.row]
        text = text.ljust(self.column)
        self.rows[self.row] = (text[: self.column] + character + text[self.column + 1 :], goes_on)
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        self.column = 0
        if self.row == len(self.rows):
            self.rows.append(("", False))

    def resize(self, width: int) -> None:
        """Wrap everything again; the cursor stays behind the text that it is behind, on the last row."""
        assert self.row == len(self.rows) - 1, "a view stands at the end of what is written"
        whole, open_line = [], ""
        for text, goes_on in self.rows:
            open_line += text
            if not goes_on:
                whole.append(open_line)
                open_line = ""
        self.width = width
        self.rows = [
            (line[start : start + width], start + width < len(line))
            for line in whole
            for start in range(0, max(1, len(line)), width)
        ]
        self.row = len(self.rows) - 1
        self.column = len(self.rows[-1][0])

    def lines(self) -> list[str]:
        """All rows, those that have left the window too, without empty ones at the end."""
        texts = [text.rstrip() for text, _ in self.rows]
        while texts and not texts[-1]:
            texts.pop()
        return texts
