"""``spark-rl eval`` on benchmarks as a person uses it: hand-made data roots, tiny models, servers, files of rows."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from answering import Json, answering

from running import BASE, complaints, json_lines, spark_rl_process, write_lines
from spark_rl.cli import main
from vision import draw_image, make_vlm

FAST = ("model.threads=1", "inference.max_new_tokens=6")
SUMS = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a part of some benchmarks, written in their schemas."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("llm", "general/mmvet", "general/mmbench", "reward", "vlm/mathvision/images"):
        (folder / name).mkdir(parents=True)
    write_lines(
        folder / "llm" / "gsm8k_test.jsonl",
        *({"question": f"What is {n}+{n}?", "answer": f"{n}+{n}\n#### {2 * n}"} for n in range(SUMS)),
    )
    write_lines(
        folder / "llm" / "math500.jsonl",
        *(
            {"problem": f"Name {n}.", "answer": f"\\frac{{{n}}}{{7}}", "subject": "Algebra" if n % 2 else "Geometry",
             "level": n, "unique_id": f"test/{n}.json", "solution": ""}
            for n in range(1, 6)
        ),
    )  # fmt: skip
    for number in range(2):
        draw_image(number, 56, 40).save(folder / "general" / "mmvet" / f"v1_{number}.png")
        draw_image(number, 56, 40).save(folder / "vlm" / "mathvision" / "images" / f"{number}.jpg")
    write_lines(
        folder / "general" / "mmvet" / "test.jsonl",
        *(
            {"question_id": f"v1_{n}", "image": f"v1_{n}.png", "question": "What is x?", "answer": "4<OR>four",
             "capability": "ocr,math"}
            for n in range(2)
        ),
    )  # fmt: skip
    picture = base64.b64encode((folder / "general" / "mmvet" / "v1_0.png").read_bytes()).decode()
    write_lines(
        folder / "general" / "mmbench" / "dev.jsonl",
        *(
            {"index": index, "question": f"Which {index}?", "hint": "nan", "A": "left", "B": "right", "C": "nan",
             "D": "nan", "answer": "A", "category": "c", "L2-category": "l",
             "image": f"data:image/png;base64,{picture}"}
            for index in range(3)
        ),
    )  # fmt: skip
    write_lines(
        folder / "vlm" / "mathvision" / "test.jsonl",
        {"id": "1", "question": "How many?\n<image1>", "options": [], "answer": "3", "level": 1, "subject": "counting",
         "image": "images/0.jpg"},
        {"id": "2", "question": "Which?\n<image1>", "options": list("ABCDE"), "answer": "B", "level": 2,
         "subject": "algebra", "image": "images/gone.jpg"},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_vlm("qwen2_5_vl", tmp_path_factory.mktemp("vlm")))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Served:
    """A server of one model that knows sums, and grades everything 0.5."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    dies_after: int | None = None
    refuses: str | None = None
    """Text of the request that is refused."""

    def reply(self, body: dict[str, Any]) -> str | None:
        self.asked.append(body)
        text = json.dumps(body["messages"][-1]["content"])
        if (self.dies_after is not None and len(self.asked) > self.dies_after) or (self.refuses or "\0") in text:
            return None
        if "Correctness" in text:
            return "0.5"
        sums = re.findall(r"(\d+)\+(\d+)", text)
        return f"so \\boxed{{{sum(map(int, sums[-1]))}}}" if sums else "no idea"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    one = Served()
    monkeypatch.setenv("no_proxy", "*")

    class Handler(Json, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": "sums-1b"}]})

        def do_POST(self) -> None:
            body = self.body()
            text = one.reply(body)
            if text is None:
                self.send_error(400, "out of order")
                return
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self.answer({"choices": [choice] * body.get("n", 1), "usage": {"completion_tokens": 7 * body.get("n", 1)}})

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that gave up is none of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    one.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    with answering(server):
        yield one


def evaluate(*arguments: str | Path) -> Any:
    """Run ``spark-rl eval`` here and return what ``--json`` wrote."""
    assert main(["eval", *map(str, arguments), "--json", "facts.json"]) == 0
    return json.loads(Path("facts.json").read_text())


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in json_lines(path)]


# Asking a model


def test_benchmarks_from_a_terminal(root: Path, tmp_path: Path) -> None:
    done = spark_rl_process(
        "eval", "--bench", "gsm8k,MATH-500", "--data-root", root, "--limit", "4", "--out", "out/base", "--json",
        "scores.json", *FAST, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert json.loads((tmp_path / "out" / "base" / "results.json").read_text()) == scores
    assert list(scores) == ["gsm8k", "math500"]
    for name, of in (("gsm8k", 1319), ("math500", 500)):
        assert list(scores[name]) == ["reference", "rule", "about"]
        for protocol in ("reference", "rule"):
            number = scores[name][protocol]
            assert (number["n"], number["of"], number["tts"]) == (4, of, 0)
            assert 0 <= number["low"] <= number["score"] <= number["high"] <= 1
    assert set(scores["math500"]["rule"]["breakdown"]) >= {"subject/Algebra", "subject/Geometry", "level/1"}
    rows = json_lines(tmp_path / "out" / "base" / "rows.jsonl")
    assert [row["source"] for row in rows] == ["gsm8k"] * 4 + ["math500"] * 4
    assert (rows[1]["prompt"], rows[1]["label"]) == ("solve What is 1+1?", "2"), "the embedded base's own prompt"
    assert rows[5]["meta"]["subject"] == "Geometry"
    progress = [line.split(" | ")[:2] for line in done.stdout.splitlines() if line.endswith(" left")]
    assert progress == [["gsm8k", "4/8"], ["math500", "8/8"]]
    assert done.stdout.splitlines()[-2:] == ["wrote   out/base/rows.jsonl", "wrote   out/base/results.json"]


def test_a_model_without_a_recipe_gets_the_papers_prompt(root: Path, place: Path, tiny_models: dict[str, Path]) -> None:
    evaluate("--model", tiny_models["qwen2"], "--bench", "gsm8k", "--data-root", root, "--limit", "1", "--out",
             "rows.jsonl", *FAST)  # fmt: skip
    (row,) = json_lines(place / "rows.jsonl")
    assert row["prompt"] == (
        "What is 0+0?\nPlease first conduct reasoning, and then answer the question. Repeat the final answer using a "
        "'\\boxed{}'."
    )


def test_samples_and_protocols(root: Path, place: Path) -> None:
    facts = evaluate("--bench", "gsm8k", "--data-root", root, "--limit", "3", "--samples", "4", "--protocol", "rule",
                     "--out", "rows.jsonl", *FAST)  # fmt: skip
    assert list(facts["gsm8k"]) == ["rule", "about"]
    assert facts["gsm8k"]["rule"].keys() >= {"samples", "avg@4", "pass@2", "pass@4", "maj@4"}
    rows = json_lines(place / "rows.jsonl")
    assert [len(row["samples"]) for row in rows] == [3, 3, 3]
    assert len({row["response"] for row in rows} | {s["response"] for row in rows for s in row["samples"]}) > 3
    assert list(rows[0]["samples"][0]["grades"]) == ["rule"]


def test_every_benchmark_with_data_of_a_group_is_asked(
    root: Path, place: Path, vlm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = evaluate("--model", vlm, "--bench", "math-vlm,general", "--data-root", root, "--limit", "1", *FAST)
    assert list(facts) == ["mathvision", "mmbench", "mmvet"]
    printed = capsys.readouterr().out
    assert "left out pope: there is no vlm/pope" in printed
    assert facts["mmbench"]["rule"]["n"] == 2, "both orders of the first question"
    assert facts["mmbench"]["rule"]["units"] == 1
    assert list(facts["mmvet"]) == ["mmvet_rule", "about"], "nobody graded"
    assert facts["mathvision"]["about"]["images"] == 1
    assert place.exists()


def test_images_that_are_not_there_are_told_before_a_model_loads(
    root: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["eval", "--model", "embedded-vl", "--data-root", str(root), "--bench"]
    assert main([*asked, "mathvision"]) == 2
    assert "mathvision: 1 of 2 images are not there, the first is" in capsys.readouterr().err
    assert main([*asked, "math-vlm"]) == 2
    assert "left out mathvision: 1 of 2 images are not there" in capsys.readouterr().out
    assert not list(place.iterdir())


def test_of_a_group_only_what_the_model_can_be_shown_is_asked(
    root: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = evaluate("--model", "embedded", "--bench", "all", "--data-root", root, "--limit", "1", *FAST)
    assert list(facts) == ["gsm8k", "math500"]
    printed = capsys.readouterr().out
    assert "left out mmvet: problem v1_0 has 1 image(s), for which this model" in printed
    assert printed.index("left out mmvet") < printed.index("gsm8k | 1/2"), "before anything is asked"
    assert main(["eval", "--bench", "general", "--data-root", str(root), *FAST]) == 2
    assert "nothing left that this model can be shown" in capsys.readouterr().err
    assert [path.name for path in place.iterdir()] == ["facts.json"], "of the first command"


def test_images_are_as_large_as_the_configuration_allows(root: Path, place: Path, vlm: str) -> None:
    asked = ("--model", vlm, "--bench", "mmvet", "--data-root", root, "--limit", "1", *FAST)
    assert main(["eval", *map(str, asked), "data.images.max_megapixels=0.001"]) == 2
    for name in ("general", "general/mmvet"):
        (place / name).mkdir()
    draw_image(0, 8100, 8000).save(place / "general" / "mmvet" / "huge.png")
    row = {"question_id": "v1_0", "image": "huge.png", "question": "What is x?", "answer": "4", "capability": "ocr"}
    write_lines(place / "general" / "mmvet" / "test.jsonl", row)
    larger = (*asked[:4], "--data-root", place, *FAST, "data.images.max_megapixels=70", "chat.max_pixels=4000")
    assert evaluate(*larger)["mmvet"]["about"]["largest"] == [8100, 8000]


def test_the_model_judges_only_when_told(root: Path, place: Path) -> None:
    asked = ("--bench", "gsm8k", "--data-root", root, "--limit", "2", "--protocol", "rule", "--out")
    assert "judge" not in evaluate(*asked, "a.jsonl", *FAST)["gsm8k"]
    judged = evaluate(*asked, "b.jsonl", "--judge", *FAST)["gsm8k"]["judge"]
    assert judged.keys() >= {"recall", "precision", "f1", "accuracy", "balanced_accuracy", "unparsable_rate"}
    assert judged["verdict_rate"]["n"] == 2
    scaled = evaluate(*asked, "c.jsonl", "--tts", "2", *FAST)["gsm8k"]
    assert list(scaled) == ["rule", "rule+tts", "judge", "about"]
    assert (scaled["rule+tts"]["tts"], scaled["rule"]["tts"]) == (2, 0)
    a, b, c = (json_lines(place / f"{name}.jsonl") for name in "abc")
    assert [r["response"] for r in a] == [r["response"] for r in b] == [r["response"] for r in c]
    assert [r["judgement"] for r in a] == [None, None]
    assert [r["judgement"] for r in b] == [r["judgement"] for r in c]


# A server


def test_a_server_is_asked_once_about_each_row_whatever_happens(root: Path, place: Path, served: Served) -> None:
    given = ("--model", served.url, "--bench", "gsm8k", "--data-root", root, "--out", "killed.jsonl")
    served.dies_after = 35
    assert main(["eval", *map(str, given)]) == 2
    first = len(json_lines(place / "killed.jsonl"))
    assert first == 32, "the batch that was done"
    served.dies_after, served.asked = None, []
    facts = evaluate(*given, "--resume")
    asked = {re.findall(r"(\d+)\+", json.dumps(body["messages"]))[0] for body in served.asked}
    assert asked == {str(n) for n in range(first, SUMS)}
    served.asked = []
    assert evaluate(*given, "--resume") == facts
    assert served.asked == []
    evaluate(*given[:-1], "whole.jsonl")
    assert timeless(place / "killed.jsonl") == timeless(place / "whole.jsonl")
    assert facts["gsm8k"]["rule"]["score"] == facts["gsm8k"]["reference"]["score"] == 1.0
    assert facts["gsm8k"]["about"]["tokens"] == 7 * SUMS
    assert {body["model"] for body in served.asked} == {"sums-1b"}
    assert {body["temperature"] for body in served.asked} == {0}


def test_a_request_that_is_refused_for_itself_is_a_row_and_named(
    root: Path, place: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.refuses = "What is 3+3?"
    given = ("--model", served.url, "--bench", "gsm8k", "--data-root", root, "--limit", "6", "--out", "rows.jsonl")
    facts = evaluate(*given)["gsm8k"]
    assert "1 of gsm8k refused by the server, scored 0: the first, " in capsys.readouterr().out
    rows = json_lines(place / "rows.jsonl")
    assert [row["status"] for row in rows] == ["refused" if n == 3 else "correct" for n in range(6)]
    assert "out of order" in rows[3]["error"]
    assert (facts["about"]["refused"], facts["rule"]["n"], facts["rule"]["score"]) == (1, 6, 5 / 6)
    served.asked = []
    assert evaluate(*given, "--resume")["gsm8k"] == facts
    assert served.asked == [], "the refusal stands"
    write_lines(place / "rows.jsonl", *(row for row in rows if row["status"] != "refused"))
    served.refuses = None
    assert evaluate(*given, "--resume")["gsm8k"]["rule"]["score"] == 1.0, "without its row it is asked again"
    assert len(served.asked) == 1


def test_a_served_model_is_named(root: Path, place: Path, served: Served) -> None:
    given = ("--model", served.url, "--bench", "gsm8k", "--data-root", root, "--limit", "1", "--out", "rows.jsonl")
    evaluate(*given, "--served-model", "other", "--temperature", "0.5")
    assert (served.asked[0]["model"], served.asked[0]["temperature"]) == ("other", 0.5)
    assert json_lines(place / "rows.jsonl")[0]["prompt_tokens"] is None
    assert main(["eval", *map(str, given), "--resume"]) == 2, "the rows are another model's"


def test_a_judge_grades_and_its_name_stands_in_the_score(root: Path, place: Path, vlm: str, served: Served) -> None:
    assert place.exists()
    given = ("--model", vlm, "--bench", "mmvet", "--data-root", root, *FAST)
    facts = evaluate(*given, "--grader", served.url, "--out", "rows.jsonl")["mmvet"]
    assert list(facts) == ["judged-by-sums-1b", "mmvet_rule", "about"]
    assert facts["judged-by-sums-1b"]["score"] == 0.5
    assert len(served.asked) == 2
    assert evaluate("--rescore", "rows.jsonl")["mmvet"] == facts
    assert len(served.asked) == 2, "replies are read again, nobody is asked"
    assert "judged-by-self" in evaluate(*given, "--grader", "self")["mmvet"]


# Without a model


def test_rescoring_needs_nothing_but_the_rows(root: Path, place: Path, served: Served) -> None:
    facts = evaluate("--model", served.url, "--bench", "gsm8k,math500", "--data-root", root, "--limit", "5", "--judge",
                     "--tts", "1", "--out", "rows.parquet")  # fmt: skip
    assert evaluate("--rescore", "rows.jsonl") == facts
    assert evaluate("--rescore", "rows.parquet") == facts
    rows = json_lines(place / "rows.jsonl")
    for row in rows:
        row["grades"] = {"rule": {"score": 0.25, "extracted": "junk", "status": "wrong"}}
        row["status"] = "wrong"
    write_lines(place / "tampered.jsonl", *rows)
    assert evaluate("--rescore", "tampered.jsonl") == facts
    part = evaluate("--rescore", "rows.jsonl", "--bench", "GSM-8K", "--limit", "2", "--protocol", "reference")
    assert list(part) == ["gsm8k"]
    assert list(part["gsm8k"]) == ["reference", "reference+tts", "judge", "about"]
    assert part["gsm8k"]["reference"]["n"] == 2
    evaluate("--rescore", "tampered.jsonl", "--out", "again.jsonl")
    assert json_lines(place / "again.jsonl") == json_lines(place / "rows.jsonl")


def test_responses_that_anybody_made(root: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images are not needed, missing ids are no answers, and ids may be numbers."""
    write_lines(place / "said.jsonl", {"id": 1, "response": "there are \\boxed{3}"}, {"id": "2", "response": None})
    given = ("--bench", "mathvision", "--data-root", root, "--responses", "said.jsonl")
    facts = evaluate(*given, "--out", "rows.jsonl")["mathvision"]
    for protocol in ("reference", "rule", "official"):
        assert (facts[protocol]["score"], facts[protocol]["n"]) == (0.5, 2)
    assert facts["about"]["missing"] == 1
    assert "1 id of 2 without a response, counted as no answer: 2" in capsys.readouterr().out
    assert evaluate("--rescore", "rows.jsonl")["mathvision"] == facts
    assert evaluate(*given, "--limit", "1")["mathvision"]["rule"]["score"] == 1.0


def test_reward_benchmarks_tell_whether_places_decide(place: Path) -> None:
    (place / "root" / "reward").mkdir(parents=True)
    write_lines(
        place / "root" / "reward" / "reward_bench_2.jsonl",
        *(
            {"id": name, "prompt": "Add 2 and 2.", "chosen": ["4"], "rejected": ["5", "6", "7"], "num_correct": 1,
             "total_completions": 4, "subset": "Math"}
            for name in "abcd"
        ),
    )  # fmt: skip
    write_lines(place / "said.jsonl", *({"id": name, "response": "the first: [[A]]"} for name in "abcd"))
    facts = evaluate("--bench", "rewardbench2", "--data-root", "root", "--responses", "said.jsonl")["rewardbench2"]
    assert facts["official"]["breakdown"]["subset/math"] == facts["positions"]["accuracy"]["score"]
    assert facts["positions"]["verdict/A"]["score"] == 1.0
    assert facts["positions"]["label/A"]["score"] < 1.0


def test_responses_to_problems_of_a_file(place: Path) -> None:
    write_lines(place / "mine.jsonl", {"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"})
    write_lines(place / "said.jsonl", {"id": "mine-1", "response": "\\boxed{2}"}, {"id": "mine-2", "response": "4"})
    facts = evaluate("--data", "mine.jsonl", "--responses", "said.jsonl")
    assert facts["mine.jsonl"]["rule"]["score"] == 0.5


def test_every_accepted_answer_counts_and_stands_in_the_rows(place: Path) -> None:
    """Rows hold all golds: a score from rows, of either format, is the score beside the data."""
    write_lines(
        place / "mine.jsonl", {"question": "x^2=4?", "answer": ["2", "-2"]}, {"question": "1+1?", "answer": "2"}
    )
    write_lines(place / "said.jsonl", {"id": "mine-1", "response": "\\boxed{-2}"}, {"id": "mine-2", "response": "4"})
    facts = evaluate("--data", "mine.jsonl", "--responses", "said.jsonl", "--out", "rows.parquet")
    assert facts["mine.jsonl"]["rule"]["score"] == 0.5
    rows = json_lines(place / "rows.jsonl")
    assert [row["alternatives"] for row in rows] == [["-2"], []]
    assert evaluate("--rescore", "rows.jsonl") == facts
    assert evaluate("--rescore", "rows.parquet") == facts
    for row in rows:  # of a version that knew one gold a row
        del row["alternatives"]
    write_lines(place / "old.jsonl", *rows)
    assert evaluate("--rescore", "old.jsonl")["mine.jsonl"]["rule"]["score"] == 0.0


def test_tables_of_result_folders(root: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(place / "said.jsonl", {"id": "1", "response": "\\boxed{3}"}, {"id": "2", "response": "\\boxed{A}"})
    for name in ("mine", "yours"):
        evaluate("--bench", "mathvision", "--data-root", root, "--responses", "said.jsonl", "--out", f"out/{name}")
    capsys.readouterr()
    facts = evaluate("--table", "out/mine", "B=out/yours", "--published")
    assert {sheet["protocol"] for sheet in facts["sheets"]} >= {"reference", "rule"}
    shown = capsys.readouterr().out
    assert "SPARK-VL-7B" in shown
    assert "50.0" in shown
    for form, mark in (("markdown", "| mine | here |"), ("latex", "\\begin{tabular}"), ("csv", "mine,here")):
        evaluate("--table", "out/mine", "--format", form, "--protocol", "rule", "--out", f"{form}.txt")
        assert mark in (place / f"{form}.txt").read_text()
    evaluate("--table", "out/mine", "b=out/yours", "--base", "mine", "--paper-table", "1", "--format", "markdown")
    assert "Δ b − mine" in capsys.readouterr().out


# Mistakes


MISTAKES = {
    "--bench gsm9k --data-root ROOT": "there is no benchmark 'gsm9k'; did you mean gsm8k",
    "--bench gsm8k": "--bench needs --data-root",
    "--bench gsm8k --data-root nowhere": "--data-root nowhere is no folder",
    "--bench aime24 --data-root ROOT": "aime24: there is no llm/aime24.jsonl",
    "--bench reward --data-root ROOT": "there is no data of reward below",
    "--bench gsm8k --data-root ROOT --protocol offical": "gsm8k has no protocol offical; it has reference, rule",
    "--bench gsm8k --data-root ROOT --samples 2 --tts 1": "give one of the two",
    "--bench gsm8k --data-root ROOT --samples 0": "'0' is not a whole number from 1",
    "--bench gsm8k --data-root ROOT --temperature -1": "'-1' is not a number from 0",
    "--bench gsm8k --data-root ROOT --temperature inf": "'inf' is not a number from 0",
    "--bench gsm8k --data-root ROOT --served-model a": "--served-model names a model of a server",
    "--bench gsm8k --data-root ROOT --grader me": "--grader me is neither 'self' nor the address of a server",
    "--bench gsm8k --data-root ROOT --model http://127.0.0.1:9/v1 --served-model a": "127.0.0.1:9",
    "--bench mmvet --data-root ROOT --protocol judged --model VLM": "a score by judged only with --grader",
    "--bench gsm8k --data-root ROOT --engine vllm": "needs vLLM",
    "--published": "go with --table",
    "--resume": "--resume needs --out",
    "--resume --out a --responses said.jsonl": "which --responses doesn't",
    "--bench , --data-root ROOT": "--bench names no benchmark",
    "--bench gsm8k,mmbench --data-root ROOT --out a.jsonl": "mmbench: problem 0 has 1 image(s), for which this model",
    "--rescore a.jsonl --responses b.jsonl": "two different things",
    "--rescore nowhere.jsonl": "cannot read nowhere.jsonl",
    "--rescore said.jsonl": "said.jsonl row 1 is no row of an evaluation ('settings' is missing",
    "--rescore said.jsonl --bench gsm": "row 1 is no row of an evaluation",
    "--rescore a.jsonl --model BASE": "--rescore asks no model",
    "--responses said.jsonl": "--responses needs --bench",
    "--responses said.jsonl --bench math-llm --data-root ROOT": "scored for one benchmark, not 2",
    "--responses said.jsonl --bench gsm8k --data-root ROOT": "said.jsonl line 2: there is no item 'x'; ids look",
    "--responses twice.jsonl --bench gsm8k --data-root ROOT": "twice.jsonl line 2: a second response to 1",
    "--responses odd.jsonl --bench gsm8k --data-root ROOT": "odd.jsonl line 1 needs 'id' and 'response', both text",
    "--responses none.jsonl --bench gsm8k --data-root ROOT": "none.jsonl has no response to any of 40 items",
    "--table nowhere.json": "cannot read nowhere.json",
    "--table nowhere.json --paper-table one": "--paper-table takes numbers",
    "--table said.jsonl": "said.jsonl holds no results",
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line(
    line: str, root: Path, place: Path, vlm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SPARK_RL_DATA_ROOT", raising=False)
    write_lines(place / "said.jsonl", {"id": "1", "response": "a"}, {"id": "x", "response": "b"})
    write_lines(place / "twice.jsonl", {"id": "1", "response": "a"}, {"id": 1, "response": "b"})
    write_lines(place / "odd.jsonl", {"id": "1", "response": ["a"]})
    write_lines(place / "none.jsonl", {"id": "1", "response": None})
    words = [{"ROOT": str(root), "VLM": vlm, "BASE": BASE}.get(word, word) for word in shlex.split(line)]
    before = sorted(place.rglob("*"))
    try:
        code: object = main(["eval", *words, *FAST])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert len(complaints(printed.err).splitlines()) == 1
    assert MISTAKES[line] in printed.err
    assert sorted(place.rglob("*")) == before
