"""The command line as a person uses it: what it writes, what it says, and one line for every mistake."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from running import BASE, SMALL, complaints, json_lines, spark_rl_process, write_lines
from spark_rl.cli import main, parse
from spark_rl.commands import resolve
from spark_rl.config import Config, load_config

SCORES = (
    "policy_accuracy", "judge_accuracy", "judge_precision", "judge_recall", "judge_f1", "pairwise_accuracy",
    "reflection_fix", "reflection_break", "tts_accuracy",
)  # fmt: skip
PUZZLES = [("7*_-4=17", "3"), ("5-_+7=10", "2"), ("2+_=9", "7"), ("_*3=12", "4"), ("8-_=1", "7"), ("4*_=8", "2")]
FAST = ("model.threads=1", "inference.max_new_tokens=24")
ASK = ("--config", "tiny", "--model", BASE, *FAST)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a user's files."""
    folder = tmp_path_factory.mktemp("user")
    write_lines(folder / "puzzles.jsonl", *({"question": q, "answer": a} for q, a in PUZZLES))
    (folder / "empty.jsonl").touch()
    (folder / "bad.yaml").write_text("rollout: [unclosed\n")
    (folder / "broken.jsonl").write_text('{"question": "1+1"\n')
    (folder / "folder").mkdir()
    (folder / "a_file").write_text("x")
    return folder


@pytest.fixture(scope="module")
def run(place: Path, tiny_models: dict[str, Path]) -> Path:
    """Two steps of training on a random model, from a terminal."""
    done = spark_rl_process(
        "train", "--model", tiny_models["qwen3"], "--data", "puzzles.jsonl", "--heldout", "split:2", "--run-dir",
        "runs/a", "--json", "facts/result.json", "train.steps=2", "rollout.problems=3", "rollout.samples=2",
        "rollout.max_new_tokens=12", *FAST, cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # the one warning is ours and says what happened to the data
    assert done.stderr == "spark-rl: removed 2 of 6 training problems whose question is held out\n"
    assert "step 2/2" in done.stdout
    assert "Before and after training" in done.stdout
    assert "model   runs/a/model\nreport  runs/a/report.html\n" in done.stdout
    return place / "runs" / "a"


def test_a_run_directory_holds_what_it_should(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {
        "config.json", "metrics.jsonl", "rollouts.jsonl", "summary.json", "report.html", "checkpoints", "model",
    } <= names  # fmt: skip
    assert [record["step"] for record in json_lines(run / "metrics.jsonl")] == [1, 2]
    assert {"step", "task", "prompt", "response", "reward"} <= json_lines(run / "rollouts.jsonl")[0].keys()
    assert (run / "report.html").read_text().startswith("<!")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000002"]


def test_the_json_of_a_run_has_the_promised_keys(run: Path, place: Path) -> None:
    facts = json.loads((place / "facts" / "result.json").read_text())
    assert facts == json.loads((run / "summary.json").read_text())
    for when in ("before", "after"):
        assert set(SCORES) <= facts[when].keys()
        assert all(facts[when][name] is None or 0 <= facts[when][name] <= 1 for name in SCORES)
    assert facts["tokens"] == sum(record["tokens"] for record in json_lines(run / "metrics.jsonl"))
    assert facts["seconds"] > 0
    assert facts["config"] == json.loads((run / "config.json").read_text())
    assert facts["config"]["data"] == Config().data.model_dump(mode="json") | {
        "train": str(place / "puzzles.jsonl"),
        "heldout": "split:2",
    }


def test_the_final_model_loads_with_plain_transformers(run: Path) -> None:
    assert type(AutoModelForCausalLM.from_pretrained(run / "model")).__name__ == "Qwen3ForCausalLM"
    assert AutoTokenizer.from_pretrained(run / "model").eos_token_id is not None


def test_report_writes_the_page_again(run: Path, place: Path) -> None:
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    done = spark_rl_process("report", run, "--json", "report.json", cwd=place)
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert json.loads((place / "report.json").read_text()) == {"report": str(run / "report.html")}
    assert (run / "report.html").read_text() == before


def test_report_compares_runs_on_one_page(run: Path, place: Path) -> None:
    shutil.copytree(run, place / "runs" / "other", symlinks=True)
    done = spark_rl_process("report", run, "other", "--out", "both.html", cwd=place)
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    page = (place / "both.html").read_text()
    assert "<h1>2 runs</h1>" in page
    assert "None: the runs have the same settings." in page
    shutil.rmtree(place / "runs" / "other")


def test_a_run_is_resumed_without_repeating_its_settings(
    run: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    config = resolve(parse(["train", "--run-dir", "runs/a", "--resume"]))
    assert config == load_config(None, **json.loads((run / "config.json").read_text()))
    more = resolve(parse(["train", "--run-dir", str(run), "--resume", "train.steps=3"]))
    assert (more.train.steps, more.run_dir) == (3, str(run))
    moved = resolve(parse(["train", "--run-dir", str(run), "--resume", "--data", "elsewhere.jsonl"]))
    assert (moved.data.train, moved.data.heldout) == ("elsewhere.jsonl", config.data.heldout), "it is one run's exam"
    assert config.data.heldout is not None
    assert main(["train", "--run-dir", "runs/a", "--resume", *FAST]) == 0
    assert [record["step"] for record in json_lines(run / "metrics.jsonl")] == [1, 2]


# Mistakes

MISTAKES = {
    "train rollout.sampels=3": "did you mean rollout.samples?",
    "train --config nope": "no configuration file 'nope'",
    "train --config bad.yaml": "bad.yaml is not valid YAML",
    "train --data missing.jsonl": "there is no file missing.jsonl",
    "train --data puzles.jsonl": "did you mean puzzles.jsonl?",
    "train --data empty.jsonl": "empty.jsonl has no rows",
    "train --data broken.jsonl": "broken.jsonl, line 1: not valid JSON",
    "train --data folder": "folder is a directory but no data set",
    "train --data puzzles.jsonl data.kind=choice": "none of 6 rows is usable",
    "train --data puzzles.jsonl --heldout split:99": "must be from 1 to 5",
    "train --data puzzles.jsonl --heldout split:many": "must be from 1 to 5",
    "train --data puzzles.jsonl --heldout missing.jsonl": "there is no file missing.jsonl",
    "train --data puzzles.jsonl --heldout puzzles.jsonl": "all 6 training problems",
    "train --data puzzles.jsonl --model nowhere": "cannot load the model 'nowhere'",
    "train --data puzzles.jsonl --model folder": "cannot load the model 'folder'",
    "train --data puzzles.jsonl --run-dir runs/a": "already holds a run; continue it with --resume",
    "train --data puzzles.jsonl --run-dir runs/b --resume": "holds no run to resume",
    "train --data empty.jsonl --run-dir runs/a --resume": "was made with data.train=",
    "train --run-dir runs/a --resume --seed 5": "was made with seed=0, not 5",
    "train --resume seed=3": "runs/a was made with seed=0, not 3",
    "train --data puzzles.jsonl --run-dir a_file --model MODEL": "cannot write the run directory a_file",
    "train --json folder": "cannot write folder: it is a directory",
    "train --seed x": "invalid int value",
    "train --seed -1": "seed: input should be greater than or equal to 0",
    "train --bogus": "unknown argument '--bogus'",
    "train --rundir runs/a": "unknown argument '--rundir'; did you mean --run-dir?",
    "train --modle=x": "unknown argument '--modle'; did you mean --model?",
    "train --run-dir runs/latest": "leads to the latest run; continue it with --resume",
    "train bogus": "unknown argument 'bogus'; settings are given as KEY=VALUE",
    "solve": "give one question, or --file FILE",
    "solve 7*_=14 --file puzzles.jsonl": "give one question, or --file FILE",
    "solve --file empty.jsonl": "empty.jsonl has no rows",
    "solve --file puzzles.jsonl --out a.json": "cannot write a.json: what is written here is .jsonl",
    "solve --file missing.jsonl": "there is no file missing.jsonl",
    "solve a b": "unknown argument 'b'",
    "solve 7*_=14 --model nowhere": "cannot load the model 'nowhere'",
    "solve 7*_=14 --model MODEL --out folder inference.max_new_tokens=2": "cannot write folder",
    "judge --question 7*_=14": "give --question and --response",
    "judge --file missing.jsonl": "cannot read missing.jsonl: No such file",
    "judge --file empty.jsonl": "empty.jsonl is empty",
    "judge --file puzzles.jsonl --out puzzles.jsonl": "is the file that is read",
    "judge --question a --response b --out a.csv": "cannot write a.csv: what is written here is .jsonl",
    "judge --file broken.jsonl": "broken.jsonl line 1 is not JSON",
    "judge --file puzzles.jsonl": "puzzles.jsonl line 1 has no text in 'response'",
    "recycle --rollouts empty.jsonl": "empty.jsonl is empty",
    "recycle --out a.parquet": "cannot write a.parquet: what is written here is .jsonl",
    "recycle --rollouts missing.jsonl": "cannot read missing.jsonl",
    "recycle --rollouts puzzles.jsonl": "no list of texts in 'responses'",
    "recycle --rollouts odd.jsonl": "unknown kind of answer 'maths'",
    "ablate --arms spark,sprak": "unknown arm 'sprak'; choose from policy-only",
    "ablate --seeds 0,x": "is not a list of whole numbers",
    "ablate data.heldout=null": "nothing to compare; set data.heldout",
    "cost data.heldout=null": "nothing to compare; set data.heldout",
    "cost --steps 0": "'0' is not a whole number from 1",
    "cost --rm-lr 0": "0 would train nothing",
    "cost --out a.txt": "cannot write a.txt: what is written here is .md",
    "report folder": "is not a run directory",
    "report": "the following arguments are required: RUN",
    "report folder --out a.html": "--out is for comparisons",
    "report folder folder": "is named twice",
    "config --config nope": "no configuration file 'nope'",
    "config --markdown folder": "cannot write folder: it is a directory",
    "config --markdown a_file/b.md": "cannot write a_file/b.md: a_file is a file",
    "config --markdown a.md --config tiny": "leave one out",
    "config --json a.yaml": "cannot write a.yaml: what is written here is .json",
    "data missing.jsonl": "there is no file missing.jsonl",
    "data empty.jsonl": "empty.jsonl has no rows",
    "data folder": "folder is a directory but no data set",
    "data puzzles.jsonl@test": "only a hub data set has a split in its name; give puzzles.jsonl alone",
    "data puzzles.jsonl --model nowhere": "cannot load the model 'nowhere'",
    "data puzzles.jsonl data.images.root=nowhere": "data.images.root 'nowhere' is no folder",
    "eval --out a.csv": "rows are written as .jsonl",
    "eval --list --out a.jsonl": "those of --bench or --data",
    "eval --list --model embedded": "--list asks no model",
    "config rollout.smples=1": "did you mean rollout.samples?",
    "doctor train.steps=1": "unknown argument 'train.steps=1'",
    "nonsense": "unknown command 'nonsense'; one of train, solve",
    "trian": "unknown command 'trian'; did you mean train?",
    "solve 1+1 --served-model x": "--served-model names a model of a server",
    "report latset": "latset is not a run directory",
    "runs nowhere": "there is no folder nowhere",
}


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    line: str,
    place: Path,
    tiny_models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    odd = {"question": "1+1", "answer": "2", "kind": "maths", "responses": ["\\boxed{2}"]}
    write_lines(place / "odd.jsonl", odd)
    before = sorted(place.rglob("*"))
    arguments = [str(tiny_models["qwen2"]) if word == "MODEL" else word for word in shlex.split(line)]
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert len(complaints(printed.err).splitlines()) == 1
    assert complaints(printed.err).startswith("spark-rl: ")
    assert MISTAKES[line] in printed.err
    assert sorted(place.rglob("*")) == before


def test_a_mistake_in_a_process_of_its_own(place: Path) -> None:
    done = spark_rl_process("train", "--model", "nowhere", "--data", "puzzles.jsonl", "--run-dir", "runs/c", cwd=place)
    assert done.returncode == 2
    assert len(complaints(done.stderr).splitlines()) == 1
    assert done.stderr.startswith("spark-rl: cannot load the model 'nowhere'")
    assert not (place / "runs" / "c").exists()


def test_no_command_prints_the_help(place: Path) -> None:
    done = spark_rl_process(cwd=place)
    assert done.returncode == 2
    assert "COMMAND" in done.stdout
    assert done.stderr == ""


# What is a question and what is a setting


@pytest.mark.parametrize(
    ("arguments", "question", "overrides"),
    [
        (["7*_-4=17"], "7*_-4=17", []),
        (["7*_-4=17", "inference.rounds=4"], "7*_-4=17", ["inference.rounds=4"]),
        (["inference.rounds=4", "7*_-4=17"], "7*_-4=17", ["inference.rounds=4"]),
        (["seed=3", "7*_-4=17", "--inference.rounds=4"], "7*_-4=17", ["seed=3", "inference.rounds=4"]),
        (["0.5=x/2"], "0.5=x/2", []),
        (["x=3"], "x=3", []),
        (["-3+_=5"], "-3+_=5", []),
        (["What is 1.5 + 1.5 = ?"], "What is 1.5 + 1.5 = ?", []),
        (["inference.rounds=4", "--file", "a.jsonl"], None, ["inference.rounds=4"]),
    ],
)
def test_a_question_may_look_like_a_setting(arguments: list[str], question: str | None, overrides: list[str]) -> None:
    parsed = parse(["solve", *arguments])
    assert (parsed.question, parsed.overrides) == (question, overrides)


@pytest.mark.parametrize(
    "words", [["--seed", "7", "train.steps=3"], ["train.steps=3", "--seed=7"], ["--train.steps=3", "--seed", "7"]]
)
def test_settings_stand_before_or_after_options(words: list[str]) -> None:
    config = resolve(parse(["train", *words]))
    assert (config.seed, config.train.steps) == (7, 3)


def test_options_of_train_become_settings() -> None:
    given = ["--model", "some/model", "--data", "d.jsonl", "--heldout", "split:5", "--run-dir", "r", "--seed", "2"]
    config = resolve(parse(["train", *given]))
    assert (config.model.path, config.run_dir, config.seed) == ("some/model", "r", 2)
    assert (config.data.train, config.data.heldout, config.data.transfer) == ("d.jsonl", "split:5", None)
    several = resolve(parse(["train", "--data", "d.jsonl", "--data", "e.jsonl", *given[:2]]))
    assert several.data.train == ("d.jsonl", "e.jsonl")
    assert config.rollout == Config().rollout  # a model of one's own gets the defaults, not the tiny recipe


def test_train_alone_is_the_embedded_default() -> None:
    assert resolve(parse(["train"])) == load_config("tiny")
    assert resolve(parse(["train", "--model", "embedded"])) == load_config("tiny")


def test_a_setting_wins_over_an_option_and_an_option_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 1\nmodel: {path: m, threads: 3}\n")
    config = resolve(parse(["train", "--config", str(tmp_path / "c.yaml"), "--seed", "2", "--model", "n", "seed=3"]))
    assert (config.seed, config.model.path, config.model.threads) == (3, "n", 3)


# The other commands


def ask(place: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run a command in ``place`` and return what ``--json`` wrote."""
    monkeypatch.chdir(place)
    assert main([*arguments, "--json", "facts.json"]) == 0
    return json.loads((place / "facts.json").read_text())


def test_solve_a_question_from_a_terminal(place: Path) -> None:
    done = spark_rl_process("solve", "7*_-4=17", *ASK, "--json", "solved.json", cwd=place)
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    facts = json.loads((place / "solved.json").read_text())
    (row,) = facts["results"]
    assert row["question"] == "7*_-4=17"
    assert row["rounds"][-1]["answer"] == row["answer"]
    assert row["status"] is None
    assert "accuracy" not in facts
    assert done.stdout.splitlines()[-1].split() == ["final", row["answer"]]


def test_solve_a_file(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = ask(place, monkeypatch, "solve", "--file", "puzzles.jsonl", "--out", "traces.jsonl", *ASK)
    rows = json_lines(place / "traces.jsonl")
    assert rows == facts["results"]
    assert [row["question"] for row in rows] == [question for question, _ in PUZZLES]
    right = [row["answer"] == answer for row, (_, answer) in zip(rows, PUZZLES, strict=True)]
    assert [row["status"] == "correct" for row in rows] == right
    assert facts["accuracy"] == sum(right) / len(right)
    assert f"{sum(right)} of 6 right" in capsys.readouterr().out


def test_solve_reads_the_whole_file_whatever_training_was_limited_to(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ask(place, monkeypatch, "solve", "--file", "puzzles.jsonl", *ASK, "inference.rounds=0", "data.limit=2")
    assert facts["n"] == len(PUZZLES)


@pytest.mark.usefixtures("run")
def test_a_run_is_asked_with_its_own_settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask(place, monkeypatch, "solve", "2+_=9", "--model", "runs/a")
    assert facts["n"] == 1
    assert len(facts["results"][0]["rounds"]) == Config().inference.rounds + 1  # noise is never a Yes


def test_an_unfinished_run_is_asked_at_its_last_checkpoint(
    run: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = ask(place, monkeypatch, "solve", "2+_=9", "--model", "runs/a")
    (run / "model").rename(run / "aside")
    try:
        assert ask(place, monkeypatch, "solve", "2+_=9", "--model", "runs/a")["results"] == finished["results"]
        (run / "checkpoints").rename(run / "aside2")
        assert main(["solve", "2+_=9", "--model", "runs/a"]) == 2
        assert "has no trained model yet" in capsys.readouterr().err
    finally:
        (run / "aside2").rename(run / "checkpoints")
        (run / "aside").rename(run / "model")


def test_judge_one_response(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask(place, monkeypatch, "judge", "--question", "2+_=9", "--response", r"\boxed{7}", *ASK)
    (row,) = facts["results"]
    assert row["verdict"] in {"Yes", "No", None}
    assert row["response"] == r"\boxed{7}"
    assert isinstance(row["judgement"], str)


def test_judge_a_pair(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ["--response", r"\boxed{7}", "--other", r"\boxed{3}"]
    facts = ask(place, monkeypatch, "judge", "--question", "2+_=9", *pair, *ASK)
    (row,) = facts["results"]
    assert row["verdict"] in {"A", "B", None}


def test_judge_a_file_of_both_keeps_its_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = {"question": "2+_=9", "response": "\u2028\\boxed{7}", "note": "kept"}
    pair = {"question": "8-_=1", "response": "\\boxed{7}", "response_b": "\\boxed{2}"}
    (place / "responses.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in (pair, single, pair)) + "\n\n", encoding="utf-8"
    )
    facts = ask(place, monkeypatch, "judge", "--file", "responses.jsonl", "--out", "verdicts.jsonl", *ASK)
    rows = [json.loads(line) for line in (place / "verdicts.jsonl").read_text("utf-8").split("\n") if line]
    assert rows == facts["results"]
    assert [("response_b" in row, row.get("note")) for row in rows] == [(True, None), (False, "kept"), (True, None)]
    assert rows[0] == rows[2]
    assert {"judgement", "verdict"} <= rows[1].keys()


@pytest.mark.parametrize("command", ["solve", "judge"])
def test_text_that_no_tokenizer_takes_is_mended(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"question": "1+\ud8001", "response": "\udcff \\boxed{2}", "answer": "2"}
    write_lines(place / "odd_text.jsonl", odd)
    given = [odd["question"]] if command == "solve" else ["--question", odd["question"], "--response", odd["response"]]
    for source in (["--file", "odd_text.jsonl"], given):
        facts = ask(place, monkeypatch, command, *source, *ASK, "inference.max_new_tokens=4")
        assert facts["results"][0]["question"] == "1+\ufffd1"


def test_recycle_given_responses_needs_no_model(place: Path) -> None:
    write_lines(
        place / "rollouts.jsonl",
        {"question": "2+_=9", "answer": "7", "responses": ["\\boxed{7}", "so \\boxed{8}", "\\boxed{7}"]},
        {"id": "mine", "question": "8-_=1", "answer": "7", "responses": ["\\boxed{2}", "no idea"]},
    )
    done = spark_rl_process(
        "recycle", "--rollouts", "rollouts.jsonl", "--out", "recycled.jsonl", "--json", "recycled.json", "--show", "9",
        "recycle.pointwise_share=0", cwd=place,
    )  # fmt: skip
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    rows = json_lines(place / "recycled.jsonl")
    assert json.loads((place / "recycled.json").read_text()) == {
        "groups": 2, "pointwise": 1, "pairwise": 1, "reflection": 2, "left_out": 0, "unlabelled": 0,
    }  # fmt: skip
    found = {(row["task"], row["parent"], row["kind"]) for row in rows}
    assert found == {
        ("pairwise", "rollouts-1", "verdict"), ("reflection", "rollouts-1", "math"), ("pointwise", "mine", "verdict"),
        ("reflection", "mine", "math"),
    }  # fmt: skip
    assert {row["answer"] for row in rows if row["task"] == "reflection"} == {"7"}
    assert {row["answer"] for row in rows if row["parent"] == "mine"} <= {"No", "A", "B", "7"}
    assert done.stdout.count("label ") == 4


def test_recycle_knows_several_gold_answers_and_options(place: Path) -> None:
    write_lines(
        place / "rollouts.jsonl",
        {"question": "half?", "answer": ["1/2", "0.50 m"], "responses": ["\\boxed{\\frac{2}{4}}", "\\boxed{2}"]},
        {"question": "which?", "answer": "B", "choices": ["7", "8"], "responses": ["\\boxed{8}", "\\boxed{A}"]},
    )
    done = spark_rl_process("recycle", "--rollouts", "rollouts.jsonl", "--out", "recycled.jsonl",
                            "recycle.pointwise_share=0", cwd=place)  # fmt: skip
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    reflections = [row for row in json_lines(place / "recycled.jsonl") if row["task"] == "reflection"]
    assert {(row["answer"], tuple(row["alternatives"]), tuple(row["choices"])) for row in reflections} == {
        ("1/2", ("0.50 m",), ()), ("B", (), ("7", "8")),
    }  # fmt: skip
    write_lines(place / "odd_golds.jsonl", {"question": "half?", "answer": ["1/2", {}], "responses": ["x"]})
    done = spark_rl_process("recycle", "--rollouts", "odd_golds.jsonl", cwd=place)
    assert done.returncode == 2
    assert (
        "nothing in odd_golds.jsonl can be recycled: odd_golds.jsonl line 1 left out: the answer is a dict"
        in done.stderr
    )


def test_recycle_makes_a_data_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "2+_=9", "responses": ["\\boxed{7}", "\\boxed{8}"], "rewards": [1, 0], "answer": "7"}
    write_lines(place / "part-1.jsonl", row, {"prompt": "no responses"}, row)
    write_lines(place / "part-2.jsonl", row)
    facts = ask(place, monkeypatch, "recycle", "part-1.jsonl", "part-2.jsonl", "--out", "sets/own", "--show", "0",
                "recycle.pointwise_share=1")  # fmt: skip
    assert facts == {"groups": 3, "pointwise": 3, "pairwise": 0, "reflection": 3, "left_out": 1, "unlabelled": 0}
    printed = capsys.readouterr().out
    assert "part-1.jsonl line 2 left out: no list of texts in 'responses'" in printed
    assert "left out 1 row: no list of texts" in printed
    rows = pq.read_table(place / "sets" / "own" / "data" / "train-00000-of-00001.parquet").to_pylist()
    assert {row["parent"] for row in rows} == {"part-1-1", "part-1-3", "part-2-1"}
    card = (place / "sets" / "own" / "README.md").read_text()
    assert "(part-1.jsonl, part-2.jsonl)" in card
    assert "\nspark-rl recycle part-1.jsonl part-2.jsonl --out sets/own --show 0 recycle.pointwise_share=1" in card
    assert [path.name for path in (place / "sets").iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["part-1.jsonl", "--out", "full"], "full is there already; remove it or choose another --out"),
        (["part-1.jsonl", "--model", "embedded"], "give either files of responses, or --model and --data"),
        (["part-1.jsonl", "--push-to-hub", "me/x"], "name its folder with --out"),
        (["part-1.jsonl", "--private"], "--private is about --push-to-hub"),
        (["part-1.jsonl", "recycle.judge_cap=3"], "recycle.judge_cap bounds a step of training"),
        (["part-1.csv"], "part-1.csv is neither JSON lines nor Parquet"),
        (["judged.jsonl", "--out", "new"], "1 group became no problems, so there is no data set to write"),
        (["fake.parquet", "--out", "new"], "fake.parquet is not a readable Parquet file"),
    ],
    ids=["there", "model", "push", "private", "cap", "csv", "nothing", "parquet"],
)
def test_what_recycle_can_not_do_is_one_line(place: Path, given: list[str], said: str) -> None:
    row = {"prompt": "2+_=9", "responses": ["\\boxed{7}"], "rewards": [1]}
    write_lines(place / "part-1.jsonl", row)
    write_lines(place / "judged.jsonl", row | {"rewards": [0.5]})
    write_lines(place / "part-1.csv", row)
    write_lines(place / "fake.parquet", row)
    (place / "full").mkdir(exist_ok=True)
    (place / "full" / "mine").touch()
    done = spark_rl_process("recycle", *given, cwd=place)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert len(complaints(done.stderr).splitlines()) == 1
    assert not (place / "new").exists()
    assert not list(place.glob(".*.partial"))


def test_a_data_set_of_a_run_is_made_of_its_rollouts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = place / "a-run"
    run.mkdir()
    (run / "config.json").write_text('{"rollout": {}, "seed": 5}')
    record = {"step": 1, "task": "policy", "problem": "p", "prompt": "2+_=9", "response": "\\boxed{8}", "label": "7",
              "reward": 0.0, "status": "wrong", "extracted": "8"}  # fmt: skip
    write_lines(run / "rollouts.jsonl", record, record | {"task": "pointwise", "problem": "p/pointwise-cot-0"})
    facts = ask(place, monkeypatch, "recycle", "a-run", "--out", "of-a-run", "--show", "0")
    assert facts["groups"] == facts["pointwise"] == facts["reflection"] == 1
    assert "Seed 5;" in (place / "of-a-run" / "README.md").read_text()


def test_sampled_groups_are_a_data_set_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ["recycle", "--data", "puzzles.jsonl", *ASK, "rollout.problems=6", "rollout.max_new_tokens=30"]
    facts = ask(place, monkeypatch, *sample, "--show", "0", "--out", "sampled")
    rows = pq.read_table(place / "sampled" / "data").to_pylist()
    assert len(rows) == facts["pointwise"] + facts["pairwise"] + facts["reflection"] > 0


def test_recycle_shows_as_many_as_asked_in_turn(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = ["recycle", "--data", "puzzles.jsonl", *ASK, "rollout.problems=6", "rollout.max_new_tokens=30"]
    facts = ask(place, monkeypatch, *sample, "--show", "2", "--seed", "4")
    assert facts["groups"] == 6
    printed = capsys.readouterr().out
    assert printed.count("label ") == 2
    assert ask(place, monkeypatch, *sample, "--seed", "4", "--show", "0") == facts
    assert "label " not in capsys.readouterr().out
    assert ask(place, monkeypatch, *sample, "rollout.max_prompt_tokens=1")["groups"] == 0
    assert "left out 6 problems, longer than rollout.max_prompt_tokens (1)" in capsys.readouterr().out


def test_config_prints_yaml_that_can_be_read_again(place: Path) -> None:
    given = ["optimiser.lr=2e-4", "chat.system=" + "word " * 60, "data.train=" + "folder/" * 40]
    done = spark_rl_process("config", "--config", "tiny", *given, cwd=place)
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert load_config(None, **yaml.safe_load(done.stdout)) == load_config("tiny", given)


def test_config_lists_every_setting(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = ask(place, monkeypatch, "config")
    assert facts["rollout.samples"] == 8
    assert facts["optimiser.lr"] == 5e-7
    assert "rollout.samples" in capsys.readouterr().out


def test_the_small_settings_of_these_tests_are_real() -> None:
    assert load_config("tiny", SMALL).rollout.problems == 6
