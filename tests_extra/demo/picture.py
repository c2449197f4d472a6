"""A picture of the page, by ``python tests_extra/demo/picture.py OUT PROBLEM ROUNDS [WIDTH [dark]] -- OPTIONS``.

``docs/images/demo.png`` is made with it; the problem is picked from the held-out ones where it is among them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "programs"))  # as pytest has it

from chromium import CHROMIUM
from shown import Shown


def main(out: Path, problem: str, rounds: str, width: int, scheme: str, options: list[str]) -> None:
    with Shown(*options) as shown, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        page.goto(shown.url)
        page.fill("#spark-rounds input[type=number]", rounds)
        page.fill("#spark-heldout input", problem)
        if page.get_by_role("option").count():
            page.get_by_role("option").first.click()
            expect(page.locator("#spark-question textarea")).to_have_value(problem)
        else:
            page.fill("#spark-question textarea", problem)
        page.click("#spark-solve")
        expect(page.locator(".spark-model:not(:has(.spark-wait)) .spark-final").last).to_be_visible(timeout=120_000)
        page.wait_for_timeout(1500)
        page.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = sys.argv[1:at]
    size = int(given[3]) if len(given) > 3 else 1400
    main(Path(given[0]), given[1], given[2], size, given[4] if len(given) > 4 else "light", sys.argv[at + 1 :])
