"""Text that grows with its tokens, for streams: what is sent is never taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoding writes for a character of which some bytes are still to come."""


class Deltas:
    """The text of one completion, as much of it as can't change any more.

    Tokens are decoded together with those just before them, because some tokenizers write a token differently at the
    beginning of a text. What may be the beginning of a stop string, and what ends in half a character, waits.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        """``decode`` makes text of tokens; ``stop`` are strings that end it."""
        self.decode, self.stop = decode, stop
        self.text = ""
        self.sent = 0
        self._ids: list[int] = []
        self._begin = self._read = 0

    def feed(self, token_ids: Sequence[int]) -> str:
        """What more of the text is certain with these tokens."""
        self._ids += token_ids
        known, more = self.decode(self._ids[self._begin : self._read]), self.decode(self._ids[self._begin :])
        if not more.endswith(REPLACEMENT):
            self.text += more[len(known) :]
            self._begin, self._read = self._read, len(self._ids)
        return self._upto(self._certain())

    def finish(self, text: str) -> str:
        """What is still to be sent of the whole text, as the engine read it."""
        rest = text[self.sent :] if text.startswith(self.text[: self.sent]) else ""
        self.sent += len(rest)
        return rest

    def _certain(self) -> int:
        found = [place for stop in self.stop if (place := self.text.find(stop)) >= 0]
        if found:
            return min(found)
        most = max((len(stop) for stop in self.stop), default=1) - 1
        for kept in range(min(most, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-kept:]) for stop in self.stop):
                return len(self.text) - kept
        return len(self.text)

    def _upto(self, end: int) -> str:
        new = self.text[self.sent : end]
        self.sent = max(self.sent, end)
        return new
