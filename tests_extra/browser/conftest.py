"""Pages of the report in Debian's Chromium (``make test-browser``): the pages are made by the package's environment,
the browser is driven from one of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from chromium import browser  # noqa: F401  # a fixture

ROOT = Path(__file__).parents[2]


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
