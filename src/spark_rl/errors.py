"""The errors that are the user's to mend. Each is one line."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in settings, data, files or templates: one line that says what is wrong, where, and how to mend it.

    The command line prints the line and exits with code 2. Anything else that escapes is ours, and exits with 1. Line
    breaks inside what a message quotes become spaces, so it is one line whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


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
