"""The command line with images, as a person uses it, on a tiny random model that sees."""

from __future__ import annotations

import base64
import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from running import BASE, ENVIRONMENT, command, complaints, json_lines, spark_rl_process, write_lines
from spark_rl.chat import MARKER
from spark_rl.cli import main, parse
from spark_rl.commands import resolve
from spark_rl.commands.models import RECIPES
from spark_rl.config import load_config
from spark_rl.model.places import EMBEDDED
from vision import draw_image, make_vlm

FAST = ("model.threads=1", "inference.max_new_tokens=6", "inference.rounds=1")
SIZES = ((84, 56), (30, 61), (120, 90))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with pictures, problems about them, and responses to those."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "sets" / "images").mkdir(parents=True)
    for number, size in enumerate(SIZES):
        draw_image(number, *size).save(folder / "sets" / "images" / f"{number}.png")
    (folder / "torn.png").write_bytes((folder / "sets" / "images" / "0.png").read_bytes()[:60])
    (folder / "text.png").write_text("not a picture")
    data = base64.b64encode((folder / "sets" / "images" / "1.png").read_bytes()).decode()
    write_lines(
        folder / "sets" / "seen.jsonl",
        {"question": "How many?", "answer": "3", "images": "images/0.png"},
        {"question": f"Is {MARKER} more than {MARKER}?", "answer": "5", "images": ["images/1.png", "2.png"]},
        {"question": "What is 1+1?", "answer": "2"},
    )
    write_lines(
        folder / "sets" / "responses.jsonl",
        {"question": "How many?", "response": "\\boxed{3}", "image": "images/0.png"},
        {"question": "Which?", "response": "\\boxed{1}", "response_b": "\\boxed{2}", "images": ["1.png", "2.png"]},
        {"question": "What is 1+1?", "response": "\\boxed{2}", "images": None},
        {"question": "How many?", "response": "\\boxed{3}", "image": f"data:image/png;base64,{data}"},
    )
    write_lines(
        folder / "sets" / "rollouts.jsonl",
        {"question": "How many?", "answer": "3", "responses": ["\\boxed{3}", "so \\boxed{4}"], "image": "images/0.png"},
        {"question": f"Is {MARKER} or {MARKER} larger?", "answer": "5", "responses": ["\\boxed{4}", "\\boxed{6}"],
         "images": ["1.png", f"data:image/png;base64,{data}"]},
    )  # fmt: skip
    write_lines(folder / "sets" / "gone.jsonl", {"question": "a?", "response": "b", "image": "nowhere.png"})
    write_lines(folder / "sets" / "lost.jsonl", {}, {})
    (folder / "sets" / "lost.jsonl").write_text(
        "\n" + json.dumps({"question": "a?", "answer": "b", "responses": ["b"], "images": ["0.png", 7]}) + "\n"
    )
    return folder


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_vlm("qwen2_5_vl", tmp_path_factory.mktemp("vlm")))


def ask(place: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run a command in ``place`` and return what ``--json`` wrote."""
    monkeypatch.chdir(place)
    assert main([*arguments, "--json", "facts.json"]) == 0
    return json.loads((place / "facts.json").read_text())


# One question


def test_solve_a_question_about_an_image_from_a_terminal(place: Path, vlm: str) -> None:
    done = spark_rl_process(
        "solve", "How many?", "--image", "sets/images/0.png", "--image", "sets/images/1.png", "--model", vlm, *FAST,
        "--json", "solved.json", cwd=place,
    )  # fmt: skip
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    (row,) = json.loads((place / "solved.json").read_text())["results"]
    assert (row["question"], row["images"]) == ("How many?", 2)
    assert len(row["rounds"]) == 2  # noise is never a Yes
    assert done.stdout.splitlines()[0] == "How many?  [2 images]"


def test_what_is_seen_changes_what_is_said(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = set()
    for options in ([], ["--image", "sets/images/0.png"], ["--image", "sets/images/2.png"]):
        facts = ask(place, monkeypatch, "solve", "How many?", *options, "--model", vlm, *FAST)
        said.add(facts["results"][0]["rounds"][0]["response"])
    assert len(said) == 3


def test_an_image_may_be_a_data_string(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "data:image/png;base64," + base64.b64encode((place / "sets" / "images" / "0.png").read_bytes()).decode()
    both = [
        ask(place, monkeypatch, "solve", f"What is {MARKER}?", "--image", image, "--model", vlm, *FAST)["results"]
        for image in (text, "sets/images/0.png")
    ]
    assert both[0] == both[1]


def test_judge_a_response_to_a_question_about_an_image(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["judge", "--question", "How many?", "--response", "\\boxed{3}", "--model", vlm, *FAST]
    blind, seen = (
        ask(place, monkeypatch, *given, *more)["results"][0] for more in ([], ["--image", "sets/images/0.png"])
    )
    assert seen["images"] == ["sets/images/0.png"]
    assert "images" not in blind
    assert seen["judgement"] != blind["judgement"]


# Files


def test_judge_a_file_whose_lines_name_images(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths start at the file, whatever the folder one stands in; what was given is written back as it was."""
    facts = ask(
        place, monkeypatch, "judge", "--file", "sets/responses.jsonl", "--out", "v.jsonl", "--model", vlm, *FAST
    )
    rows, given = json_lines(place / "v.jsonl"), json_lines(place / "sets" / "responses.jsonl")
    assert rows == facts["results"]
    for row, before in zip(rows, given, strict=True):
        assert {
            name: value for name, value in row.items() if name not in {"judgement", "verdict", "probability"}
        } == before
        assert isinstance(row["judgement"], str)
    alone = [
        ask(place, monkeypatch, "judge", "--question", "How many?", "--response", "\\boxed{3}", "--model", vlm, *FAST,
            "--image", f"sets/images/{number}.png")["results"][0]["judgement"]
        for number in (0, 1)
    ]  # fmt: skip
    assert [rows[0]["judgement"], rows[3]["judgement"]] == alone


def test_recycled_problems_keep_the_images_of_their_rollouts(place: Path) -> None:
    done = spark_rl_process(
        "recycle", "--rollouts", "sets/rollouts.jsonl", "--out", "recycled.jsonl", "--show", "9", cwd=place
    )
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    rows = json_lines(place / "recycled.jsonl")
    assert {row["task"] for row in rows} >= {"reflection"}
    one = str(place / "sets" / "images" / "0.png")
    for row in rows:
        if row["parent"] == "rollouts-1":
            assert row["images"] == [one]
        else:
            assert row["images"][0] == str(place / "sets" / "images" / "1.png")
            assert row["images"][1].startswith("data:image/png;base64,")
    assert done.stdout.count("1 image ") == sum(row["parent"] == "rollouts-1" for row in rows)
    assert done.stdout.count("2 images ") == sum(row["parent"] == "rollouts-2" for row in rows) > 0


# Mistakes


MISTAKES = {
    "solve a --image nowhere.png": "--image: image PLACE/nowhere.png: there is no such file",
    "solve a --image torn.png": "--image: image PLACE/torn.png: ",
    "solve a --image text.png": "--image: image PLACE/text.png: not an image of a known format",
    "solve a --image sets": "--image: image PLACE/sets: ",
    "solve a --image https://example.org/a.png": "addresses are not fetched",
    "solve a --image data:image/png;base64,AAAA": "--image: image the data: string: ",
    "solve '<image> and <image>' --image sets/images/0.png": "2 <image> markers in the question for 1 images",
    "solve a --image sets/images/0.png --model BASE": "problem question has 1 image(s), for which this model",
    "solve --file sets/seen.jsonl --image sets/images/0.png": "--image goes with one question",
    "judge --file sets/responses.jsonl --image sets/images/0.png": "--image goes with --question",
    "judge --question a --response b --image torn.png": "--image: image PLACE/torn.png: ",
    "judge --file sets/gone.jsonl": "sets/gone.jsonl line 1: image PLACE/sets/nowhere.png: there is no such file",
    "recycle --rollouts sets/lost.jsonl": "sets/lost.jsonl line 2 left out: image a int",
    "train --model embedded_vl": "there is no embedded base 'embedded_vl'; there are two: embedded (reads) and",
    "solve a --model embeddedvl": "there is no embedded base 'embeddedvl'",
    "eval --model VLM": "give --bench, names of benchmarks, or --data, the problems to ask",
    "eval --model VLM --data nowhere.jsonl": "there is no file nowhere.jsonl",
    "eval --model VLM --data sets/seen.jsonl --data sets/seen.jsonl": "--data sets/seen.jsonl is given twice",
    "eval --model VLM --data sets/seen.jsonl --limit 0": "'0' is not a whole number from 1",
    "eval --model VLM --data sets/seen.jsonl --tts -1": "'-1' is not a whole number from 0",
    "eval --model VLM --data sets/seen.jsonl --tts many": "'many' is not a whole number from 0",
    "eval --model VLM --data sets/seen.jsonl --resume": "--resume needs --out",
    "eval --model VLM --data sets/seen.jsonl --out sets/seen.jsonl/a": "rows.jsonl: sets/seen.jsonl is a file",
    "eval --model VLM --data sets/seen.jsonl --out sets/seen.jsonl": "holds results already; continue",
    "eval --model VLM --data sets/seen.jsonl --out sets/seen.jsonl --resume": "line 1 is no row of an evaluation",
    "eval --model BASE --data sets/seen.jsonl --out new.jsonl": "problem seen-1 has 1 image(s), for which this model",
    "eval --model nowhere --data sets/seen.jsonl --out new.jsonl": "cannot load the model 'nowhere'",
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    line: str, place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    try:
        code: object = main([{"VLM": vlm, "BASE": BASE}.get(word, word) for word in shlex.split(line)])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert len(complaints(printed.err).splitlines()) == 1
    assert MISTAKES[line].replace("PLACE", str(place)) in printed.err
    assert sorted(place.rglob("*")) == before


# Embedded bases


def test_every_embedded_base_has_a_recipe_of_its_own() -> None:
    assert RECIPES.keys() == EMBEDDED.keys()
    for base, recipe in RECIPES.items():
        expected = load_config(recipe)
        assert expected.model.path == base
        assert resolve(parse(["train", "--model", base])) == expected
        assert resolve(parse(["train", "--config", recipe])) == expected
    own = resolve(parse(["train", "--model", "embedded-vl", "--config", "tiny"]))
    assert own.model.path == "embedded-vl"
    assert own.data == load_config("tiny").data


def test_an_image_without_a_model_goes_to_the_base_that_sees(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask(place, monkeypatch, "solve", "r+_=5", "--image", "sets/images/0.png", *FAST)
    assert facts["results"][0]["images"] == 1
    facts = ask(place, monkeypatch, "judge", "--file", "sets/responses.jsonl", *FAST)
    assert facts["n"] == 4


def test_what_the_base_that_sees_recycles_keeps_its_image(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask(place, monkeypatch, "recycle", "--model", "embedded-vl", "--out", "own.jsonl", "--show", "0", *FAST)
    rows = json_lines(place / "own.jsonl")
    assert len(rows) == facts["pointwise"] + facts["pairwise"] + facts["reflection"] > 10
    assert {len(row["images"]) for row in rows} == {1}
    of_parent: dict[str, set[str]] = {}
    for row in rows:
        of_parent.setdefault(row["parent"], set()).update(row["images"])
    assert {len(images) for images in of_parent.values()} == {1}, "every problem of a group shows the same picture"


def test_recycled_samples_in_the_report_show_their_image(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(place, monkeypatch, "train", "--model", "embedded-vl", "--run-dir", "runs/vl", *FAST, "train.steps=2",
        "rollout.problems=8", "rollout.samples=4", "recycle.ready=4", "data.heldout=null", "data.transfer=null",
        "train.sample_rollouts=3")  # fmt: skip
    records = json_lines(place / "runs" / "vl" / "rollouts.jsonl")
    assert {record["task"] for record in records} > {"policy"}
    assert {len(record["images"]) for record in records} == {1}
    page = (place / "runs" / "vl" / "report.html").read_text()
    shown = page.count('"data:image/png;base64,')
    assert sum(record["task"] == "policy" for record in records) <= shown <= len(records)


# Evaluation


@pytest.fixture(scope="module")
def evaluation(place: Path, vlm: str) -> subprocess.CompletedProcess[str]:
    """Two sets, one with images, from a terminal."""
    write_lines(place / "sums.jsonl", *({"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(40)))
    done = spark_rl_process(
        "eval", "--model", vlm, "--data", "sets/seen.jsonl", "--data", "sums.jsonl", "--limit", "36", "--tts", "1",
        "--out", "out/rows.jsonl", "--json", "scores.json", *FAST, cwd=place,
    )  # fmt: skip
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    return done


def test_eval_writes_rows_scores_and_tables(evaluation: subprocess.CompletedProcess[str], place: Path) -> None:
    rows, scores = json_lines(place / "out" / "rows.jsonl"), json.loads((place / "scores.json").read_text())
    assert list(scores) == ["sets/seen.jsonl", "sums.jsonl"]
    assert [row["source"] for row in rows] == ["sets/seen.jsonl"] * 3 + ["sums.jsonl"] * 36
    assert [row["image_sizes"] for row in rows[:3]] == [[[84, 56]], [[30, 61], [120, 90]], []]
    assert [row["images"] for row in rows[:3]] == [1, 2, 0]
    assert rows[1]["prompt_tokens"] > rows[2]["prompt_tokens"]
    assert all(row["final"]["answers"] == 2 for row in rows)
    seen = scores["sets/seen.jsonl"]
    assert seen["rule"]["n"] == seen["rule+tts"]["n"] == 3
    assert (seen["about"]["smallest"], seen["about"]["largest"]) == ([30, 61], [120, 90])
    assert scores["sums.jsonl"]["about"]["images"] == 0
    lines = evaluation.stdout.splitlines()
    progress = [line for line in lines if line.endswith(" left")]
    assert [re.split(r" \| ", line)[:2] for line in progress] == [
        ["sets/seen.jsonl", "3/39"], ["sums.jsonl", "35/39"], ["sums.jsonl", "39/39"],
    ]  # fmt: skip
    assert "30×61" in evaluation.stdout
    assert "rule+tts" in evaluation.stdout
    assert lines[-1] == "wrote   out/rows.jsonl"


@pytest.mark.usefixtures("evaluation")
def test_eval_is_greedy_whatever_the_batch(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask(place, monkeypatch, "eval", "--model", vlm, "--data", "sets/seen.jsonl", "--limit", "2", *FAST,
                "--out", "two.jsonl")  # fmt: skip
    two = json_lines(place / "two.jsonl")
    assert "rule+tts" not in facts["sets/seen.jsonl"], "without --tts nothing is scaled, whatever inference.rounds is"
    assert [row["response"] for row in two] == [row["response"] for row in json_lines(place / "out" / "rows.jsonl")[:2]]


def test_a_killed_evaluation_continues(
    evaluation: subprocess.CompletedProcess[str], place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as soon as its first rows are written, then continued: the file of a run that was not killed."""
    given = ["eval", "--model", vlm, "--data", "sets/seen.jsonl", "--data", "sums.jsonl", "--limit", "36", "--tts", "1",
             "--out", "killed.jsonl", *FAST]  # fmt: skip
    path = place / "killed.jsonl"
    with subprocess.Popen(command(*given), cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not (path.exists() and path.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    left = len(path.read_bytes().splitlines())
    assert 0 < left < 39, "the kill came too late"
    facts = ask(place, monkeypatch, *given, "--resume")
    whole, continued = (
        [{name: value for name, value in row.items() if name != "seconds"} for row in json_lines(file)]
        for file in (place / "out" / "rows.jsonl", path)
    )
    assert continued == whole
    again = ask(place, monkeypatch, *given, "--resume")
    assert again == facts
    assert evaluation.returncode == 0


@pytest.mark.usefixtures("evaluation")
def test_eval_does_not_mix_settings(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(place)
    given = ["eval", "--model", vlm, "--data", "sums.jsonl", "--out", "out/rows.jsonl", "--resume", *FAST]
    assert main([*given, "--tts", "2"]) == 2
    assert "was made with another model or other settings" in capsys.readouterr().err


def test_eval_alone_asks_the_embedded_base_its_heldout_puzzles(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask(place, monkeypatch, "eval", "--limit", "5", "model.threads=1")
    assert list(facts) == [load_config("tiny").data.heldout]
    assert facts["procedural:missing"]["rule"]["n"] == 5
    assert facts["procedural:missing"]["about"]["statuses"]["no_answer"] == 0


# Training


def test_a_run_on_images_shows_them_in_its_report(place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(place, monkeypatch, "train", "--model", vlm, "--data", "sets/seen.jsonl", "--run-dir", "runs/a", *FAST,
        "train.steps=1", "rollout.problems=3", "rollout.samples=2", "rollout.max_new_tokens=5")  # fmt: skip
    records = json_lines(place / "runs" / "a" / "rollouts.jsonl")
    assert {len(record.get("images", ())) for record in records if record["task"] == "policy"} == {0, 1, 2}
    (metrics,) = json_lines(place / "runs" / "a" / "metrics.jsonl")
    assert metrics["images"] == 3
    page = (place / "runs" / "a" / "report.html").read_text()
    shown = re.findall(r'"data:image/png;base64,[A-Za-z0-9+/=]+"', page)
    asked = [record for record in records if record["task"] == "policy"]
    assert len(shown) == sum(len(record.get("images", ())) for record in asked), "once a problem"
    facts = ask(place, monkeypatch, "solve", "How many?", "--image", "sets/images/0.png", "--model", "runs/a")
    assert facts["results"][0]["images"] == 1
