"""The page in Debian's Chromium (``make test-demo``)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import browser  # noqa: F401  # a fixture
from shown import Shown


@pytest.fixture(scope="session")
def shown() -> Iterator[Shown]:
    """The embedded base beside itself: two models, and held-out problems."""
    with Shown("--model", "embedded", "--base", "embedded") as page:
        yield page


@pytest.fixture(scope="session")
def seeing() -> Iterator[Shown]:
    """The embedded base that sees."""
    with Shown("--model", "embedded-vl") as page:
        yield page
