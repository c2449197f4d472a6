from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spark_rl.config import Config
from spark_rl.data.images import open_image
from spark_rl.report import MetricsLog, write_report
from spark_rl.report.thumbnails import MOST, thumbnails
from vision import draw_image

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)> \" ' & \x00\x1b[2J"
EVIL_NAME = '"><b onclick=alert(1)>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


def block(page: str) -> list[dict[str, Any]]:
    """What the browser of rollouts shows."""
    families: list[dict[str, Any]] = json.loads(page.split('id="rollouts">')[1].split("</script>", maxsplit=1)[0])[
        "families"
    ]
    return families


class Page(HTMLParser):
    """Reads a page, and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def record(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step, "seconds": 2.5, "tokens": 1000, "tokens_per_second": 400.0, "reward/policy": 0.1 + 0.01 * step,
        "reward/pointwise": 0.5, "status/correct": 0.4, "status/wrong": 0.6, "label/yes": 0.4, "verdict/yes": 0.7,
        "entropy": 0.5, "kl": 0.001, "length/mean": 40.0, "clipped": 0.1, "flat": 0.5, "pool": 64, "time/sample": 1.5,
        "time/update": 0.5, "recycled/pairwise": 4, **more,
    }  # fmt: skip


def make_run(
    folder: Path,
    records: list[dict[str, Any]],
    rollouts: list[dict[str, Any]] | None = None,
    summary: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config or Config().model_dump(mode="json")))
    for name, rows in (("metrics.jsonl", records), ("rollouts.jsonl", rollouts or [])):
        with MetricsLog(folder / name) as log:
            for row in rows:
                log.append(row)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def report(folder: Path) -> tuple[str, Page]:
    path = write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


SUMMARY = {
    "before": {
        "policy_accuracy": 0.25, "policy_accuracy_low": 0.19, "policy_accuracy_high": 0.31, "tts_accuracy": 0.2,
        "judge_accuracy": 0.5, "n": 200,
    },
    "after": {"policy_accuracy": 0.4, "policy_accuracy_low": 0.333, "policy_accuracy_high": 0.467, "tts_accuracy": 0.46,
              "judge_accuracy": 0.7, "n": 200},
    "seconds": 1540.0, "tokens": 2_345_678, "config": {}, "versions": {"spark-rl": "0.1.0", "torch": "2.13.0"},
}  # fmt: skip


def test_a_whole_run(tmp_path: Path) -> None:
    text, page = report(make_run(tmp_path / "2025-seed0", [record(s) for s in range(1, 31)], summary=SUMMARY))
    for fact in (
        "2025-seed0",
        "25 min 40 s",
        "2.35M",
        "25.0 ± 6.0",
        "40.0 ± 6.7",
        "+15.0",
        "0.1.0",
        Config().data.train,
    ):
        assert fact in page.text, fact
    assert "Transfer problems" not in page.text
    assert "Unfinished" not in page.text
    assert "Time per phase" in page.text
    assert len(text) < 300_000


def test_one_file_without_requests_and_with_no_script_but_ours(tmp_path: Path) -> None:
    rollouts = [{"step": 1, "task": "policy", "problem": "p"}]
    text, page = report(make_run(tmp_path / "run", [record(1), record(2)], rollouts, SUMMARY))
    assert not re.search(r"https?://", text)
    [(_, block), (_, ours)] = [one for one in page.tags if one[0] == "script"]
    assert (block, ours) == ({"type": "application/json", "id": "rollouts"}, {})
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch|import", script)
    without, bare = report(make_run(tmp_path / "bare", [record(1)]))
    assert bare.count("script") == 0
    assert "script-src" not in without
    assert page.count("iframe") == 0
    assert "url(" not in text
    assert "@import" not in text
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in {"src", "href"}]
    assert all(address is not None and address.startswith(("#", "data:,")) for address in addresses)
    assert "default-src 'none'" in text


def test_links_of_the_page_lead_somewhere(tmp_path: Path) -> None:
    _, page = report(make_run(tmp_path / "run", [record(1, odd=1.0)], [{"step": 1, "task": "policy"}], SUMMARY))
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert targets == {f"#{name}" for name in ids} - {"#together", "#browser", "#rollouts"}
    assert len(ids) == len(set(ids))


def test_every_chart_has_a_title_an_axis_label_and_a_data_table(tmp_path: Path) -> None:
    text, page = report(make_run(tmp_path / "run", [record(s, odd=1.0) for s in (1, 2)], summary=SUMMARY))
    figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) == page.count("figure") >= 12
    for figure in figures:
        assert re.search(r"<figcaption>[^<]+</figcaption>", figure)
        assert re.search(r'<svg [^>]*viewBox="[^"]+"[^>]* role="img"><title>[^<]+</title><desc>[^<]+</desc>', figure)
        assert ">training step<" in figure or ">share of trials (%)<" in figure or "Phases of time" in figure
        assert re.search(r"<details><summary>Data</summary>.*<caption>[^<]+</caption>.*<th scope=\"row\">", figure)


def test_light_dark_and_phone(tmp_path: Path) -> None:
    text, page = report(make_run(tmp_path / "run", [record(1)]))
    assert "@media (prefers-color-scheme: dark)" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    light, dark = (set(re.findall(r"(--[\w-]+):", block)) for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL))
    assert used == light == dark, "every colour is defined in both schemes and used"


def test_untrusted_text_is_escaped_everywhere(tmp_path: Path) -> None:
    config = Config().model_dump(mode="json")
    config["model"]["path"] = config["data"]["train"] = config["chat"]["system"] = config[EVIL] = EVIL
    rollout = {
        "step": 1,
        **dict.fromkeys(("task", "problem", "prompt", "response", "label", "status", "extracted", "parent"), EVIL),
        "others": [dict.fromkeys(("response", "status", "extracted", "reward", "tokens"), EVIL), EVIL],
    }
    summary = {**SUMMARY, "versions": {EVIL: EVIL}}
    folder = make_run(tmp_path / "<b>run", [record(1, **{EVIL: 1.0, f"time/{EVIL}": 1.0})], [rollout], summary, config)
    text, page = report(folder)
    assert page.count("script") == 2
    assert page.count("img") == page.count("b-run") == 0
    assert text.count("<script") == 2
    assert "onerror=alert" in page.text, "it is shown, as text"
    [family] = block(text)
    assert family["records"][0]["responses"][1]["text"] == EVIL.replace("\x00", "␀").replace("\x1b", "␛")
    raw = text.split('id="rollouts">')[1].split("</script>")[0]
    assert not re.search("[<>&\x00\x1b]", raw)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "\x00" not in text
    assert "\x1b" not in text
    assert "<b>run" in page.text


def test_a_lone_surrogate_does_not_cost_the_report(tmp_path: Path) -> None:
    rollouts = [{"step": 1, "task": "policy", "response": "a\ud800b"}]
    text, _ = report(make_run(tmp_path / "run", [record(1)], rollouts))
    assert block(text)[0]["records"][0]["responses"][0]["text"] == "a?b"


def test_a_very_long_response_is_cut_and_says_so(tmp_path: Path) -> None:
    rollouts = [{"step": 1, "task": "policy", "response": "x" * 10_000}]
    text, _ = report(make_run(tmp_path / "run", [], rollouts))
    assert "6,000 more characters" in block(text)[0]["records"][0]["responses"][0]["text"]
    assert "x" * 4001 not in text


def test_a_run_without_steps(tmp_path: Path) -> None:
    _, page = report(make_run(tmp_path / "run", []))
    assert "No step is recorded yet." in page.text
    assert page.count("figure") == 0


def test_a_run_of_one_step(tmp_path: Path) -> None:
    _, page = report(make_run(tmp_path / "run", [record(1)]))
    assert page.count("circle") >= 10


def test_values_that_are_not_finite_are_marked(tmp_path: Path) -> None:
    nan = float("nan")
    text, page = report(make_run(tmp_path / "run", [record(1), record(2, kl=nan), record(3, **{"reward/policy": nan})]))
    assert text.count('class="cross"') == 2
    assert page.text.count("marks a step without a finite value") == 2
    assert "nan" not in re.sub(r"<style>.*?</style>|<code>.*?</code>", "", text, flags=re.DOTALL).lower()


def test_an_unfinished_run_says_so_and_shows_what_it_has(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [record(1), record(2)])
    _, page = report(folder)
    assert "Unfinished" in page.text
    assert "The run has not been evaluated yet." in page.text
    assert "5.0 s" in page.text, "the duration is the sum of the steps"
    (folder / "before.json").write_text(json.dumps({"heldout": SUMMARY["before"]}))
    _, page = report(folder)
    assert "25.0 ± 6.0" in page.text


def test_a_run_without_evaluation(tmp_path: Path) -> None:
    _, page = report(make_run(tmp_path / "run", [record(1)], summary={**SUMMARY, "before": None, "after": None}))
    assert "The run was not evaluated on held-out problems." in page.text


def test_the_transfer_family_has_its_own_table(tmp_path: Path) -> None:
    transfer = {"before": {"policy_accuracy": 0.1, "n": 50}, "after": {"policy_accuracy": 0.3, "n": 50}}
    summary = {**SUMMARY, "transfer": transfer}
    _, page = report(make_run(tmp_path / "run", [record(1)], summary=summary))
    assert "Transfer problems (n = 50)" in page.text
    assert "+20.0" in page.text


def test_metrics_without_a_chart_of_their_own_are_still_drawn(tmp_path: Path) -> None:
    rows = [record(step, **{"curriculum/level": step, "time/save": 0.1, "note": "text"}) for step in (1, 2)]
    text, page = report(make_run(tmp_path / "run", rows))
    assert "curriculum/level" in page.text
    assert ">save " in text, "a further phase joins the stack"
    assert "other <b>0.4" in text, "2.5 s less 1.5, 0.5 and 0.1"
    assert "note" not in page.text.split()


@pytest.mark.parametrize(
    ("key", "usual", "other", "title"),
    [
        ("skipped", 0, 2, "Skipped problems"),
        ("skipped/reflection", 0, 1, "Skipped problems"),
        ("dropped", 0, 7, "Dropped from the pool"),
        ("ratio", 1.0000001, 0.98, "Importance ratio"),
        ("ratio_clipped", 0.0, 0.001, "Clipped tokens"),
    ],
)
def test_a_quiet_metric_appears_when_it_is_not_what_it_should_be(
    tmp_path: Path, key: str, usual: float, other: float, title: str
) -> None:
    same = [record(step, **{key: usual}) for step in (1, 2)]
    assert title not in report(make_run(tmp_path / "a", same))[1].text
    assert title in report(make_run(tmp_path / "b", [*same, record(3, **{key: other})]))[1].text
    always = [record(step, **{key: other}) for step in (1, 2)]
    assert title in report(make_run(tmp_path / "c", always))[1].text, "a constant that says something"


def test_a_repeated_step_counts_once(tmp_path: Path) -> None:
    rows = [record(1, odd=1.0), record(2, odd=2.0), record(2, odd=8.0)]
    text, _ = report(make_run(tmp_path / "run", rows))
    assert "odd: 1 at step 1, 8 at step 2" in text


def test_settings_that_differ_from_the_defaults_come_first(tmp_path: Path) -> None:
    config = Config().model_dump(mode="json")
    config["rollout"]["samples"] = 5
    config["future"] = {"setting": [1, 2]}
    text, page = report(make_run(tmp_path / "run", [], config=config))
    changed, same = text.split("settings at their defaults", maxsplit=1)
    assert "<code>rollout.samples</code></th><td><code>5</code>" in changed
    assert "<code>future.setting</code></th><td><code>[1, 2]</code>" in changed
    assert f"<code>optimiser.betas</code></th><td><code>{list(Config().optimiser.betas)}</code>" in same
    assert "``" not in same, "literals of docstrings are set as code"
    assert page.text.count("rollout.samples") == 1


def test_thousands_of_steps_make_a_small_page(tmp_path: Path) -> None:
    text, page = report(make_run(tmp_path / "run", [record(step) for step in range(1, 3001)]))
    assert len(text) < 1_000_000
    assert "one step in 60, all are in metrics.jsonl" in page.text


def test_writing_again_replaces_the_report_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [record(1)])
    first, _ = report(folder)
    second, _ = report(folder)
    assert first == second
    assert sorted(item.name for item in folder.iterdir()) == [
        "config.json", "metrics.jsonl", "report.html", "rollouts.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "is not a run directory .it has no config.json."),
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "[1]", "config.json must hold a JSON object, not a list"),
        ("summary.json", "\xff", "summary.json is not valid JSON"),
        ("summary.json", '{"before": {"policy_accuracy": 25}}', "policy_accuracy is 25, but"),
    ],
)
def test_what_is_not_a_run_is_a_one_line_error(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    folder = make_run(tmp_path / "run", [record(1)])
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_a_directory_that_does_not_exist_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run directory"):
        write_report(tmp_path / "nowhere")


def picture(seed: int = 0, size: tuple[int, int] = (90, 60), form: str = "PNG") -> str:
    file = io.BytesIO()
    draw_image(seed, *size).save(file, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def images_of(page: str) -> list[str]:
    return [image for one in block(page) for record in one["records"] for image in record["images"]]


def test_images_stand_beside_the_problem(tmp_path: Path) -> None:
    (thumbnail, other) = thumbnails([draw_image(0, 90, 60), draw_image(1, 300, 300)])
    rollout = {"step": 1, "task": "policy", "problem": "tiles-1", "prompt": "How many?", "images": [thumbnail, other]}
    text, page = report(make_run(tmp_path / "run", [record(1, images=2)], [rollout]))
    shown = images_of(text)
    assert [open_image(one).size for one in shown] == [(90, 60), (160, 160)]
    assert open_image(shown[0]).tobytes() == open_image(thumbnail).tobytes()
    assert "img-src data:" in text
    assert "Images" in page.text


@pytest.mark.parametrize(
    "images",
    [
        EVIL,
        [EVIL, 7, None, {"a": 1}],
        ["/etc/passwd", "https://example.org/a.png", "javascript:alert(1)"],
        ['data:image/png;base64,"><script>alert(1)</script>'],
        ["data:image/svg+xml;base64,PHN2Zz48L3N2Zz4="],
        ["data:image/png;base64,PHN2Zz48c2NyaXB0PmFsZXJ0KDEpPC9zY3JpcHQ+PC9zdmc+"],
        [picture(form="JPEG")],
        ["data:image/png;base64," + "A" * 100_000],
    ],
)
def test_what_is_no_thumbnail_is_not_shown(tmp_path: Path, images: object) -> None:
    rollout = {"step": 1, "task": "policy", "problem": "p", "prompt": "q", "response": "r", "images": images}
    text, _ = report(make_run(tmp_path / "run", [record(1)], [rollout]))
    assert images_of(text) == []
    assert "alert(1)" not in text


def test_a_recorded_picture_is_encoded_again(tmp_path: Path) -> None:
    """Bytes behind a PNG's end are still a PNG to every reader: they do not reach the page."""
    hidden = base64.b64decode(picture().partition(",")[2]) + b"<script>alert(1)</script>"
    text = f"data:image/png;base64,{base64.b64encode(hidden).decode()}"
    rollout = {"step": 1, "task": "policy", "problem": EVIL_NAME, "images": [text] * 9}
    page_text, page = report(make_run(tmp_path / "run", [record(1)], [rollout]))
    shown = images_of(page_text)
    assert len(shown) == MOST
    assert all(base64.b64decode(one.partition(",")[2]).endswith(b"IEND\xaeB`\x82") for one in shown)
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_many_images_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    noise = Image.effect_noise((600, 400), 90).convert("RGB")
    small = thumbnails([noise] * 4)
    tasks = ("policy", "pointwise", "pairwise", "reflection")
    rollouts = [{"step": 1, "task": task, "problem": f"p{n}", "images": small} for task in tasks for n in range(40)]
    text, _ = report(make_run(tmp_path / "run", [record(1)], rollouts))
    assert len(images_of(text)) >= 16
    assert len(text) < 1_000_000


def test_the_sentence_says_what_training_changed_and_what_a_constant_verdict_would_earn(tmp_path: Path) -> None:
    after = {
        **SUMMARY["after"],
        "judge_constant_accuracy": 0.6,
        "judge_accuracy_low": 0.65,
        "judge_accuracy_high": 0.75,
    }
    folder = make_run(tmp_path / "run", [record(1), record(2)], summary={**SUMMARY, "after": after})
    text, _ = report(folder)
    said = re.sub("<[^>]+>", "", re.findall(r'<p class="headline">(.*?)</p>', text)[0])
    assert said == (
        "Training took the policy from 25.0% to 40.0% of 200 held-out problems right, and the judge of its own answers "
        "from 50.0% to 70.0%, more than a constant verdict, which would be right 60.0% of the time. Judging and "
        "reflecting at test time changed its answers by −5.0 points before, and by +6.0 now."
    )
    assert text.count("Policy and judge learn together") == 3, (
        "a title, and a chart for wide and one for narrow screens"
    )


def test_overlapping_intervals_and_unfinished_runs_are_said_in_the_sentence(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [record(step) for step in range(1, 8)])
    (folder / "before.json").write_text(json.dumps({"heldout": SUMMARY["before"]}))
    with MetricsLog(folder / "evaluations.jsonl") as log:
        log.append({"step": 5, "policy_accuracy": 0.27, "policy_accuracy_low": 0.21, "policy_accuracy_high": 0.33})
    text, _ = report(folder)
    said = re.findall(r'<p class="headline">(.*?)</p>', text)[0]
    assert "(their intervals overlap)" in said
    assert "7 steps are done, and this was measured after step 5" in said


def test_the_update_on_recycled_problems_is_a_second_line(tmp_path: Path) -> None:
    rows = [record(step, loss=-0.1 * step, **{"loss/recycled": 0.2 * step, "odd/recycled": step}) for step in (1, 2, 3)]
    text, _ = report(make_run(tmp_path / "run", rows))
    figure = next(one for one in text.split("<figure>") if "<figcaption>Loss<" in one)
    assert figure.count('<path class="line') == 4, "two lines and their samples in the legend"
    assert "on recycled problems" in figure
    assert "<figcaption>loss/recycled<" not in text
    assert "<figcaption>odd/recycled<" in text, "what has no first line is drawn alone"


def test_what_never_changes_is_a_few_words_instead_of_a_chart(tmp_path: Path) -> None:
    text, _ = report(make_run(tmp_path / "run", [record(step, lr=1e-4) for step in (1, 2, 3)]))
    assert "<figcaption>Learning rate<" not in text
    assert "<li>Learning rate: <b>1.0e-4 per update</b></li>" in text
    changed, _ = report(make_run(tmp_path / "b", [record(step, lr=1e-4 * step) for step in (1, 2, 3)]))
    assert "<figcaption>Learning rate<" in changed


def test_the_command_that_repeats_the_run_stands_on_the_page(tmp_path: Path) -> None:
    config = Config().model_dump(mode="json")
    config["rollout"]["samples"] = 5
    _, page = report(make_run(tmp_path / "run", [record(1)], config=config))
    assert "The same run again: " in page.text
    assert "rollout.samples=5" in page.text
