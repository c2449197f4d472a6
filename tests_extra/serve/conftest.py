"""Servers that several tests ask: each takes some seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Served

from spark_rl.backend import open_reasoner
from spark_rl.config import load_config
from spark_rl.inference import Reasoner


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    with Served("--model", "embedded") as server:
        yield server


@pytest.fixture(scope="session")
def offline() -> Reasoner:
    """The same model without a server."""
    return open_reasoner(load_config("tiny"))
