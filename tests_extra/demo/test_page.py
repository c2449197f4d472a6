"""What people do on the page, in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from shown import Shown

ROOT = Path(__file__).parents[2]
EVIL = "</pre><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\" ' & ${window.pwned=3}{{pwned}}"
PUZZLE = "5?4?3?9=32"
TOO_LONG = "the problem has 20,001 characters, more than 20,000; shorten it"
WATCH = """() => {
  window.seen = [];
  const node = document.querySelector("#spark-answers");
  new MutationObserver(() => window.seen.push(node.innerText)).observe(
    node, {childList: true, subtree: true, characterData: true});
}"""
GRADIOS = "Method not implemented."
"""What Gradio warns of, of itself, at the end of each upload."""
CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    const veils = [];
    let under = [255, 255, 255];
    for (let one = node; one; one = one.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (a >= 1) { under = [r, g, b]; break; }
      if (a > 0) veils.push([r, g, b, a]);
    }
    for (const [r, g, b, a] of veils.reverse()) under = [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
    return under;
  };
  const found = [];
  for (const node of document.querySelectorAll(".gradio-container *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility() || node.closest("script, style, svg")) continue;
    const [low, high] = [numbers(getComputedStyle(node).color), ground(node)].map(light).sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push([node.tagName, node.className, node.textContent.slice(0, 40), ratio]);
  }
  return found;
}"""


@contextmanager
def opened(browser: Browser, shown: Shown, width: int = 1400, scheme: str = "light") -> Iterator[Page]:
    """The page, which must be silent: nothing in the console, nothing asked of others, no dialog."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    noise: list[str] = []
    page.on("console", lambda one: None if one.text == GRADIOS else noise.append(f"console: {one.text}"))
    page.on("pageerror", lambda one: noise.append(f"error: {one}"))
    page.on("dialog", lambda one: noise.append(f"dialog: {one.message}"))
    page.on("request", lambda one: None if own(one.url, shown) else noise.append(f"request: {one.url[:80]}"))
    page.goto(shown.url)
    page.wait_for_selector("#spark-question textarea")
    yield page
    assert page.evaluate("window.pwned") is None
    assert noise == []
    context.close()


def own(url: str, shown: Shown) -> bool:
    return url.startswith((f"{shown.url}/", "data:", "blob:"))


def solve(page: Page, text: str) -> None:
    page.fill("#spark-question textarea", text)
    page.click("#spark-solve")


def judge(page: Page, question: str, first: str, second: str = "") -> None:
    page.get_by_role("tab", name="Judge").click()
    page.fill("#judge-question textarea", question)
    page.fill("#judge-first textarea", first)
    page.fill("#judge-second textarea", second)
    page.click("#judge-start")


def test_rounds_appear_one_after_the_other(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        page.get_by_label("embedded", exact=True).first.check()
        page.evaluate(WATCH)
        solve(page, PUZZLE)
        expect(page.locator("#spark-answers .spark-final")).to_be_visible(timeout=60_000)
        seen = page.evaluate("window.seen")
        answer = next(at for at, text in enumerate(seen) if "Answer" in text and "Judge" not in text)
        verdict = next(at for at, text in enumerate(seen) if "Judge" in text)
        end = next(at for at, text in enumerate(seen) if "Final answer" in text)
        assert answer < verdict <= end
        assert page.locator(".spark-verdict").count() >= 1
        assert re.search(r"P\(Yes\) [01]\.\d{3}", page.inner_text("#spark-answers"))


def test_two_models_stand_side_by_side(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        solve(page, PUZZLE)
        expect(page.locator("#spark-answers .spark-final")).to_have_count(2, timeout=60_000)
        assert page.locator(".spark-model h3").all_inner_texts() == ["embedded", "embedded (base)"]
        left, right = (one.bounding_box() for one in page.locator(".spark-model").all()[:2])
        assert left is not None
        assert right is not None
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] <= right["x"]


def test_gold_is_shown_after_the_answer_of_a_held_out_problem(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        page.click("#spark-heldout input")
        page.get_by_role("option").nth(2).click()
        expect(page.locator("#spark-question textarea")).not_to_have_value("")
        assert "Gold" not in page.inner_text("body")
        page.click("#spark-solve")
        expect(page.locator(".spark-gold")).to_have_count(2, timeout=60_000)
        assert re.match(r"Gold answer:\s*\S+\s*(right|wrong)", page.locator(".spark-gold").first.inner_text())
        page.fill("#spark-question textarea", PUZZLE)  # another problem has another answer
        page.click("#spark-solve")
        expect(page.locator(".spark-gold")).to_have_count(0)
        expect(page.locator("#spark-answers .spark-final")).to_have_count(2, timeout=60_000)
        assert page.locator(".spark-gold").count() == 0


def test_another_held_out_problem_is_drawn(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        page.click("#spark-another")
        expect(page.locator("#spark-question textarea")).not_to_have_value("")
        expect(page.locator("#spark-heldout input")).not_to_have_value("")


def test_two_answers_are_judged_alone_and_in_both_orders(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        judge(page, PUZZLE, r"work 5*4=20+3=23+9=32\boxed{*++}", r"work 5+4=9*3=27+9=36\boxed{+*+}")
        expect(page.locator("#judge-verdicts .spark-final")).to_be_visible(timeout=60_000)
        titles = page.locator("#judge-verdicts .spark-verdict strong").all_inner_texts()
        assert [title[:8] for title in titles] == ["Alone, A", "Alone, B", "A before", "B before"]


def test_one_answer_is_judged_alone(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        judge(page, PUZZLE, r"\boxed{*++}")
        expect(page.locator("#judge-verdicts .spark-verdict")).to_have_count(1, timeout=60_000)


def test_hostile_text_is_shown_as_text(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        solve(page, EVIL)
        expect(page.locator("#spark-answers .spark-final")).to_have_count(2, timeout=60_000)
        judge(page, EVIL, EVIL, EVIL)
        expect(page.locator("#judge-verdicts .spark-final")).to_be_visible(timeout=60_000)


def test_too_long_or_no_text_is_refused_in_one_line(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown) as page:
        solve(page, "7" * 20_001)
        expect(page.locator("#spark-note")).to_have_text(TOO_LONG)
        solve(page, "")
        expect(page.locator("#spark-note")).to_have_text("there is no problem yet; type one")
        judge(page, PUZZLE, "")
        expect(page.locator("#judge-note")).to_have_text("there is no answer A yet; type one")


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page_and_all_can_be_read(
    browser: Browser, shown: Shown, width: int, scheme: str
) -> None:
    with opened(browser, shown, width, scheme) as page:
        solve(page, "7" * 900)
        expect(page.locator("#spark-answers .spark-final")).to_have_count(2, timeout=60_000)
        page.wait_for_timeout(500)  # what appears fades in
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        judge(page, "w" * 900, "w" * 900, "w" * 900)
        expect(page.locator("#judge-verdicts .spark-final")).to_be_visible(timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_picture_is_dropped_and_seen(browser: Browser, seeing: Shown) -> None:
    with opened(browser, seeing) as page:
        page.set_input_files("input[type=file] >> nth=0", ROOT / "docs" / "images" / "tiles.png")
        expect(page.locator(".image-frame img").first).to_be_visible(timeout=30_000)
        solve(page, "o+g+b+_=17")
        expect(page.locator("#spark-answers .spark-final")).to_be_visible(timeout=120_000)


def test_a_held_out_problem_comes_with_its_picture(browser: Browser, seeing: Shown) -> None:
    with opened(browser, seeing) as page:
        page.click("#spark-another")
        expect(page.locator(".image-frame img").first).to_be_visible(timeout=30_000)
        page.click("#spark-solve")
        expect(page.locator(".spark-gold")).to_be_visible(timeout=120_000)


def test_a_broken_picture_is_refused_and_the_page_goes_on(browser: Browser, seeing: Shown, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 500)
    context = browser.new_context()
    page = context.new_page()
    page.goto(seeing.url)
    page.set_input_files("input[type=file] >> nth=0", broken)
    page.wait_for_timeout(1000)
    solve(page, "o+g=5")
    expect(page.locator("#spark-note")).to_contain_text("the picture: image ")
    context.close()
    assert "Traceback" not in seeing.said()


def test_only_this_machine_is_answered(shown: Shown) -> None:
    assert httpx.get(shown.url, headers={"host": "evil.example"}).status_code == 400
    assert httpx.get(shown.url).status_code == 200


def test_no_file_of_the_machine_is_given_out(shown: Shown) -> None:
    for path in ("gradio_api/file=/etc/passwd", "file=/etc/passwd", "gradio_api/file=pyproject.toml",
                 "gradio_api/file=http://example.com/"):  # fmt: skip
        assert httpx.get(f"{shown.url}/{path}").status_code in {403, 404}


def test_a_request_that_holds_too_much_is_refused(shown: Shown) -> None:
    reply = httpx.post(f"{shown.url}/gradio_api/queue/join", content=b"[" + b"1," * 7_000_000, timeout=60)
    assert reply.status_code == 413


def test_control_c_ends_it_with_a_page_open(browser: Browser) -> None:
    with Shown("--model", "embedded") as one:
        context = browser.new_context()
        page = context.new_page()
        page.goto(one.url)
        page.wait_for_selector("#spark-question textarea")
        assert one.stop() == 0
        assert one.said().splitlines()[-1] == "stopped"
        context.close()


def test_a_taken_port_is_one_line(shown: Shown) -> None:
    port = shown.url.rpartition(":")[2]
    command = [sys.executable, "-m", "spark_rl", "demo", "--model", "embedded", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in ended.stderr


def test_the_space_shows_the_page() -> None:
    """``app.py`` as a Space runs it, on a free port."""
    app = ROOT / "examples" / "demo_space" / "app.py"
    with Shown(command=[str(app)], GRADIO_SERVER_NAME="127.0.0.1", GRADIO_SERVER_PORT="0") as one:
        assert "spark-rl" in httpx.get(one.url).text
