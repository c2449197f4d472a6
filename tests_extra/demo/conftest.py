"""The page in Debian's Chromium (``make test-demo``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright
from shown import Shown

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("there is no chromium; apt-get install chromium, or say where one is with CHROMIUM=/path")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


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
