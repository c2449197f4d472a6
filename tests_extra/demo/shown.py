"""A page started as people start it."""

from __future__ import annotations

from collections.abc import Sequence

from started import Started


class Shown(Started):
    """``spark-rl demo``, or another command that shows the page, in a process of its own."""

    def __init__(
        self, *options: str, command: Sequence[str] = ("-m", "spark_rl", "demo", "--port", "0"), **variables: str
    ) -> None:
        super().__init__([*command, *options], r"on (http://\S+)  \(Ctrl-C stops\)", **variables)
