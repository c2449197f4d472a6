"""The report, a comparison and an ablation in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile import EVIL
from playwright.sync_api import Browser, Page, expect

PAGES = ("run/report.html", "going/report.html", "comparison.html", "ablation/report.html")
WIDTHS = (390, 600, 768, 1024, 1400, 1600)
CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (a > 0.5) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility() || node.disabled) continue;
    if (node.closest("script, style, noscript, title, desc")) continue;
    const style = getComputedStyle(node);
    const colour = numbers(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [low, high] = [light(colour), light(ground(node))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push([node.tagName, node.getAttribute("class"), node.textContent.slice(0, 40), ratio]);
  }
  return found;
}"""
CLIPPED = """() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
  if (!svg.checkVisibility()) return [];
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const own = text.getBoundingClientRect();
    const beside = own.left < box.left - 1 || own.right > box.right + 1;
    return beside || own.top < box.top - 1 || own.bottom > box.bottom + 1;
  }).map((text) => [svg.querySelector("title").textContent, text.textContent]);
})"""
UNFOLD = "() => document.querySelectorAll('details').forEach((one) => { one.open = true; })"


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1400, scheme: str = "light", **more: bool) -> Iterator[Page]:
    """A page, which must be silent: nothing in the console, nothing asked for but the file, no dialog."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
    page = context.new_page()
    noise: list[str] = []
    page.on("console", lambda one: noise.append(f"console: {one.text}"))
    page.on("pageerror", lambda one: noise.append(f"error: {one}"))
    page.on("dialog", lambda one: noise.append(f"dialog: {one.message}"))
    page.on("request", lambda one: noise.append(f"request: {one.url[:80]}"))
    page.goto(path.as_uri())
    yield page
    page.wait_for_timeout(100)
    asked = [line for line in noise if not line.startswith("request: data:")]
    assert asked == [f"request: {path.as_uri()[:80]}"]
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways_or_cuts_a_label_or_is_hard_to_read(
    browser: Browser, pages: Path, name: str, scheme: str
) -> None:
    with opened(browser, pages / name, scheme=scheme) as page:
        page.evaluate(UNFOLD)
        page.wait_for_timeout(200)
        page.evaluate(UNFOLD)  # those that were made when others opened
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, width
            assert page.evaluate(CLIPPED) == [], width
        assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("name", ["run/report.html", "going/report.html"])
def test_a_phone_shows_a_run_in_a_few_screens(browser: Browser, pages: Path, name: str) -> None:
    with opened(browser, pages / name, 390) as page:
        assert page.evaluate("document.documentElement.scrollHeight") < 7_000
        assert page.locator(".narrow svg").is_visible()
        assert not page.locator(".wide svg").is_visible()


def test_a_link_opens_the_section_that_it_leads_to(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "run/report.html") as page:
        chart = page.locator("#learner figure").first
        assert not chart.is_visible()
        page.locator("nav a", has_text="Learner").click()
        chart.wait_for(state="visible")


def shown(page: Page) -> str:
    return page.locator("#browser .count").inner_text()


def test_filters_and_search_find_problems_and_pages_are_bounded(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "run/report.html") as page:
        families = page.locator(".families > details")
        assert families.count() == 10
        total = int(shown(page).split()[0])
        assert shown(page) == f"{total} of {total} problems, page 1 of {-(-total // 10)}"
        page.get_by_role("button", name="next").click()
        assert "page 2 of" in shown(page)
        page.locator("[name=step]").select_option("late")
        assert "page 2" not in shown(page)
        steps = [
            int(one.split("step ")[1].split()[0])
            for one in page.locator(".families > details > summary").all_inner_texts()
        ]
        assert min(steps) > 30
        page.locator("[name=step]").select_option("")
        page.locator("[name=search]").fill("SOLVE 9?10")
        assert shown(page) == f"1 of {total} problems"
        page.locator("[name=task]").select_option("pairwise")
        assert shown(page) == f"0 of {total} problems", "a task, a status and a text are asked of one record"
        page.locator("[name=search]").fill("answer 9-1")
        assert shown(page) == f"1 of {total} problems"
        page.locator("[name=status]").select_option("correct")
        assert shown(page) == f"1 of {total} problems"


def test_a_problem_leads_to_its_group_and_to_what_was_made_of_it(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "run/report.html") as page:
        page.locator("[name=search]").fill("solve 9?10")
        family = page.locator(".families > details")
        family.locator("> summary").click()
        expect(family.locator("> .response")).to_have_count(8)  # it is filled when it opens
        children = family.locator("> .child")
        expect(children).to_have_count(3)
        assert "about answer 2" in children.first.locator("> summary").inner_text()
        children.first.locator("> summary").click()
        expect(children.first.locator(".response")).to_have_count(8)


def test_text_that_attacks_is_shown_as_text(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "run/report.html") as page:
        page.locator("[name=search]").fill("onerror")
        page.locator(".families > details > summary").first.click()
        page.locator(".child > summary").first.click()
        expect(page.locator(".child .response").first).to_be_attached()
        seen = EVIL.replace("\x00", "␀").replace("\x1b", "␛")
        assert any(seen in text for text in page.locator(".families pre, .families code").all_text_contents())
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert page.evaluate("document.scripts.length") == 2


def test_without_scripts_all_but_the_rollouts_is_there(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "run/report.html", java_script_enabled=False) as page:
        assert page.locator(".wide svg").is_visible()
        assert page.locator("noscript .warn").is_visible()
        assert "held-out problems right" in page.locator(".headline").inner_text()
