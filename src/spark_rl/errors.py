"""The errors that are the user's to mend. Each is one line."""

from __future__ import annotations

import re

LONGEST = 2000
"""Characters of a message. The mend is most often at its end, so the middle is left out."""

_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys or can't show: all controls but tabs and line feeds, changes of direction, lone
surrogates."""


def plain(text: str) -> str:
    r"""The text with what would steer a terminal written as escapes: ``"\x1b[31m"`` is ``"\\x1b[31m"``."""
    return _STEERS.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(ValueError):
    """A mistake in settings, data, files or templates: one line that says what is wrong, where, and how to mend it.

    The command line prints the line and exits with code 2. Anything else that escapes is ours, and exits with 1. What a
    message quotes may be hostile: it is one line of at most :data:`LONGEST` characters, none of which steers a
    terminal, whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        line = plain(" ".join(message.splitlines()))
        cut = (LONGEST - 10) // 2
        super().__init__(line if len(line) <= LONGEST else f"{line[:cut]} [...] {line[-cut:]}")


class ConfigError(UserError):
    """A mistake in the user's configuration, in one line: what is wrong, where, and how to mend it."""


class DataError(UserError):
    """A mistake in the data or in how it is named, in one line: what is wrong, where, and how to mend it."""


class ChatError(UserError):
    """A mistake in the chat settings, in one line: what is wrong, where, and how to mend it."""


class EngineError(UserError):
    """An engine gave something else than what was asked for, in one line: which engine, and what."""


class VerifierError(UserError):
    """The verifier's worker processes can't be started, in one line: why, and how to mend it."""


class DiskError(UserError):
    """What a run has to write can't be written, in one line: where, why, and how to go on."""


class Stopped(KeyboardInterrupt):
    """A run that a signal has stopped, in one line that says what is saved and how to go on.

    From Python it is a :class:`KeyboardInterrupt`; the command line prints the line and exits with ``code``.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        """128 and the number of the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
