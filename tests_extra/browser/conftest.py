"""Pages of the report in Debian's Chromium (``make test-browser``): the pages are made by the package's environment,
the browser is driven from one of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    python = ROOT / ".venv" / "bin" / "python"
    subprocess.run(
        [python, Path(__file__).with_name("pages.py"), folder],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("there is no chromium; apt-get install chromium, or say where one is with CHROMIUM=/path")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
