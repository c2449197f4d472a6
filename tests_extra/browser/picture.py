"""A picture of a page: ``.venv-browser/bin/python tests_extra/browser/picture.py PAGE OUT [WIDTH [HEIGHT [dark]]]``.

``docs/images/report.png`` is made with it, of a run's ``report.html``. Without a height the whole page is taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "programs"))  # as pytest has it

from chromium import CHROMIUM


def main(page: Path, out: Path, width: int = 1200, height: int | None = None, scheme: str = "light") -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": height or 900}, color_scheme=scheme)
        shown = context.new_page()
        shown.goto(page.resolve().as_uri())
        shown.screenshot(path=out, full_page=height is None)
        browser.close()


if __name__ == "__main__":
    given = sys.argv[3:]
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(int(one) for one in given[:2]), *(given[2:3] if given else ()))
