r"""The sets that people train on today, each known by its columns: a small row of the published shape, read whole.

Columns as published on the hub (https://huggingface.co/datasets/...): BytedTsinghua-SIA/DAPO-Math-17k,
open-r1/DAPO-Math-17k-Processed, agentica-org/DeepScaleR-Preview-Dataset, open-r1/OpenR1-Math-220k,
Skywork/Skywork-OR1-RL-Data, AI-MO/NuminaMath-CoT, AI-MO/NuminaMath-1.5, SynthLabsAI/Big-Math-RL-Verified,
EleutherAI/hendrycks_math, openai/gsm8k, TIGER-Lab/ViRL39K, FanqingM/MM-Eureka-Dataset, FanqingM/MMK12,
hiyouga/geometry3k, ChilleD/SVAMP, EleutherAI/asdiv, allenai/ai2_arc, cais/mmlu, GBaker/MedQA-USMLE-4-options,
deepmind/aqua_rat, allenai/math_qa, Hothan/OlympiadBench. The texts are made up.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spark_rl.chat import policy_prompt
from spark_rl.config import ChatConfig, ColumnsConfig, DataConfig
from spark_rl.data import load_problems
from spark_rl.errors import DataError

DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its "
    'own line after "Answer:".'
)
MM_EUREKA = (
    "You should first thinks about the reasoning process in the mind and then provides the user with the answer. Your "
    "answer must be in latex format and wrapped in $...$.The reasoning process and answer are enclosed within <think> "
    "</think> and <answer> </answer> tags, respectively.\nQuestion:\n{}"
)
GEO3K = (
    "{} You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{{}}."
)


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(file, "PNG")
    return file.getvalue()


ROWS: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    (
        "DAPO-Math-17k",
        {"data_source": "math_dapo", "prompt": [{"content": DAPO.format("What is 17+17?"), "role": "user"}],
         "ability": "MATH", "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
         "extra_info": {"index": "9a9b6eb4"}},
        "What is 17+17?", ("34",),
    ),
    (
        "DAPO-Math-17k-Processed",
        {"prompt": "What is 17+17?", "solution": "34", "data_source": "math_dapo",
         "source_prompt": [{"content": DAPO.format("What is 17+17?"), "role": "user"}], "ability": "MATH",
         "reward_model": {"ground_truth": "34", "style": "rule"}, "extra_info": {"index": "9a9b6eb4"}},
        "What is 17+17?", ("34",),
    ),
    (
        "DeepScaleR",
        {"problem": "What is half of 3?", "answer": "\\frac{3}{2}", "solution": "It is half."},
        "What is half of 3?", ("\\frac{3}{2}",),
    ),
    (
        "OpenR1-Math-220k",
        {"problem": "Find $x$.", "solution": "So $x=5$.", "answer": "5", "problem_type": "Algebra",
         "question_type": "math-word-problem", "source": "olympiads", "uuid": "u", "is_reasoning_complete": [True],
         "generations": ["<think>\n</think> \\boxed{5}"], "correctness_math_verify": [True], "correctness_llama": None,
         "finish_reasons": None, "correctness_count": 1,
         "messages": [{"role": "user", "content": "Find $x$."}, {"role": "assistant", "content": "\\boxed{5}"}],
         "problem_is_valid": "Yes", "solution_is_valid": "Yes"},
        "Find $x$.", ("5",),
    ),
    (
        "Skywork-OR1",
        {"data_source": "train-math-numinamath1.5", "prompt": [{"content": "Find $y$.", "role": "user"}],
         "ability": "math", "reward_model": {"ground_truth": '["\\\\frac{1}{2}"]', "style": "rule"},
         "extra_info": {"index": 3, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 4}}},
        "Find $y$.", ("\\frac{1}{2}",),
    ),
    (
        "NuminaMath-CoT",
        {"source": "cn_k12", "problem": "Find $z$.", "solution": "Then $z=\\boxed{-2}$.",
         "messages": [{"content": "Find $z$.", "role": "user"}, {"content": "$\\boxed{-2}$", "role": "assistant"}]},
        "Find $z$.", ("-2",),
    ),
    (
        "NuminaMath-1.5",
        {"problem": "Find $m+n$.", "solution": "So.", "answer": "7", "problem_type": "Number Theory",
         "question_type": "math-word-problem", "problem_is_valid": "Yes", "solution_is_valid": "Yes",
         "source": "olympiads", "synthetic": False},
        "Find $m+n$.", ("7",),
    ),
    (
        "Big-Math",
        {"problem": "Find $k$.", "answer": "12", "source": "orca_math", "domain": ["Algebra"],
         "llama8b_solve_rate": 0.4},
        "Find $k$.", ("12",),
    ),
    (
        "MATH",
        {"problem": "Find $n$.", "level": "Level 3", "type": "Algebra", "solution": "Hence $n=\\boxed{\\sqrt{2}}$."},
        "Find $n$.", ("\\sqrt{2}",),
    ),
    (
        "GSM8K",
        {"question": "How many clips?", "answer": "She sold 48/2 = <<48/2=24>>24.\n#### 1,072"},
        "How many clips?", ("1072",),
    ),
    (
        "SVAMP",
        {"ID": "chal-1", "Body": "There are 87 oranges in 3 groups.", "Question": "How big is each group of oranges?",
         "Equation": "( 87.0 / 3.0 )", "Answer": "29.0", "Type": "Common-Division",
         "question_concat": "There are 87 oranges in 3 groups. How big is each group of oranges?"},
        "There are 87 oranges in 3 groups.\nHow big is each group of oranges?", ("29.0",),
    ),
    (
        "ASDiv",
        {"body": "Seven red apples and two green apples are in the basket.",
         "question": "How many apples are in the basket?", "solution_type": "Addition", "answer": "9 (apples)",
         "formula": "7+2=9"},
        "Seven red apples and two green apples are in the basket.\nHow many apples are in the basket?", ("9",),
    ),
    (
        "ARC",
        {"id": "M_1", "question": "Which is alive?", "answerKey": "2",
         "choices": {"text": ["rock", "moss"], "label": ["1", "2"]}},
        "Which is alive?\n(A) rock\n(B) moss", ("B",),
    ),
    (
        "ARC's own files",
        {"id": "M_1", "answerKey": "B",
         "question": {"stem": "Which is alive?", "choices": [{"text": "rock", "label": "A"},
                                                             {"text": "moss", "label": "B"}]}},
        "Which is alive?\n(A) rock\n(B) moss", ("B",),
    ),
    (
        "AQuA-RAT",
        {"question": "How much?", "options": ["A)21", "B)21.5", "C)22"], "rationale": "r", "correct": "C"},
        "How much?\n(A) 21\n(B) 21.5\n(C) 22", ("C",),
    ),
    (
        "MathQA",
        {"Problem": "How much?", "Rationale": "r", "options": "a ) 38 , b ) 27.5 , c ) none of these", "correct": "b"},
        "How much?\n(A) 38\n(B) 27.5\n(C) none of these", ("B",),
    ),
    (
        "options in numbered columns",
        {"question": "Who?", "option1": "Ann", "option2": "Bob", "answer": "2"},
        "Who?\n(A) Ann\n(B) Bob", ("B",),
    ),
    (
        "COPA",
        {"premise": "It is wet.", "choice1": "Rain.", "choice2": "Sun.", "question": "cause", "label": 0, "idx": 0},
        "It is wet.\ncause\n(A) Rain.\n(B) Sun.", ("A",),
    ),
    (
        "OlympiadBench",
        {"question": "Find all $n$.", "solution": ["So."], "final_answer": ["2,3"], "context": None,
         "image_1": None, "modality": "Text-only", "is_multiple_answer": True, "unit": None},
        "Find all $n$.", ("2,3",),
    ),
    (
        "MMLU",
        {"question": "2+2?", "subject": "algebra", "choices": ["3", "1", "4", "0"], "answer": 2},
        "2+2?\n(A) 3\n(B) 1\n(C) 4\n(D) 0", ("C",),
    ),
    (
        "MedQA",
        {"question": "Which drug?", "answer": "Ampicillin", "options": {"A": "Ampicillin", "B": "Doxycycline"},
         "meta_info": "step1", "answer_idx": "A"},
        "Which drug?\n(A) Ampicillin\n(B) Doxycycline", ("A",),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "question", "golds"), ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_sets_of_text(
    tmp_path: Path, name: str, row: dict[str, Any], question: str, golds: tuple[str, ...], suffix: str
) -> None:
    path = tmp_path / f"{name}.{suffix}"
    if suffix == "jsonl":
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    (problem,) = load_problems(str(path), DataConfig())
    assert (problem.question, problem.golds) == (question, golds)
    assert policy_prompt(problem, ChatConfig()).count("boxed") == 1


def chat(text: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


SIGHTED: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    (
        "ViRL39K",
        {"question": "<image>Find $x$.", "answer": "\\boxed{\\frac{1}{2}}", "PassRate_32BTrained": 0.5,
         "PassRate_7BBase": -1.0, "category": "c", "source": "s", "qid": "q-1", "image": ["images/a.png"]},
        "Find $x$.", ("\\frac{1}{2}",),
    ),
    (
        "MM-Eureka",
        {"id": "0", "message": json.dumps(chat("How many cats?", {"type": "image", "image": "file://{}/a.png"})),
         "answer": "$2$"},
        "How many cats?", ("$2$",),
    ),
    (
        "MM-Eureka, asking",
        {"id": "0", "message": json.dumps(
            chat(MM_EUREKA.format("How many cats?"), {"type": "image", "image": "file://{}/a.png"})), "answer": "$2$"},
        "How many cats?", ("$2$",),
    ),
    (
        "MM-Eureka for InternVL",
        {"id": "0", "conversations": [{"role": "system", "content": "Think."},
                                      {"role": "user", "content": "<image>\nHow many cats?"}],
         "answer": "2", "image_urls": ["file://{}/a.png"]},
        "How many cats?", ("2",),
    ),
    (
        "LLaVA's turns",
        {"id": "0", "image": "a.png", "answer": "2",
         "conversations": [{"from": "human", "value": "<image>\nHow many cats?"}, {"from": "gpt", "value": "2"}]},
        "How many cats?", ("2",),
    ),
    (
        "MMK12",
        {"id": "1", "question": "What is seen?\nA. a cat\nB. a dog", "answer": "B", "subject": "biology",
         "image": {"bytes": base64.b64encode(png()).decode(), "path": None}},
        "What is seen?\nA. a cat\nB. a dog", ("B",),
    ),
    (
        "Geometry3K",
        {"images": ["images/a.png"], "problem": "<image>Find $x$.", "answer": "2 \\sqrt { 221 }"},
        "Find $x$.", ("2 \\sqrt { 221 }",),
    ),
    (
        "Geometry3K for verl",
        {"data_source": "hiyouga/geometry3k", "images": [{"image": "images/a.png"}], "ability": "math",
         "prompt": [{"role": "user", "content": GEO3K.format("<image>Find $x$.")}],
         "reward_model": {"style": "rule", "ground_truth": "48"}, "extra_info": {"split": "train", "index": 0}},
        "Find $x$.", ("48",),
    ),
    (
        "an OpenAI chat",
        {"prompt": chat("How many cats?", {"type": "image_url", "image_url": {"url": "a.png"}}), "answer": 2},
        "How many cats?", ("2",),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "question", "golds"), [row[1:] for row in SIGHTED], ids=[row[0] for row in SIGHTED])
def test_sets_with_images(tmp_path: Path, row: dict[str, Any], question: str, golds: tuple[str, ...]) -> None:
    (tmp_path / "images").mkdir()
    for place in ("a.png", "images/a.png"):
        (tmp_path / place).write_bytes(png())
    text = json.dumps(row).replace("file://{}", f"file://{tmp_path}")
    (tmp_path / "set.jsonl").write_text(text + "\n", encoding="utf-8")
    (problem,) = load_problems(str(tmp_path / "set.jsonl"), DataConfig())
    assert (problem.question, problem.golds, len(problem.images)) == (question, golds, 1)
    assert policy_prompt(problem, ChatConfig()).count("boxed") == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answer": "proof"}, "the answer is 'proof', which stands for none"),
        ({"answer": "notfound"}, "the answer is 'notfound', which stands for none"),
        ({"question_type": "proof"}, "question_type is 'proof', which has no answer to compare"),
        ({"problem_is_valid": "Incomplete"}, "problem_is_valid is 'Incomplete'"),
        ({"solution_is_valid": "Problem not solved"}, "solution_is_valid is 'Problem not solved'"),
    ],
)
def test_rows_that_call_themselves_broken_are_counted_by_reason(
    tmp_path: Path, change: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = next(row for name, row, *_ in ROWS if name == "NuminaMath-1.5")
    rows = [row, row | change, row | {"problem": ""}, row | change]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert len(load_problems(str(path), DataConfig())) == 1
    assert caplog.messages == [f"skipped 3 of 4 rows of {path}: 2 like row 2, {why}; 1 like row 3, no question"]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def numbered(*golds: Any, options: tuple[str, ...] = ("w", "x", "y", "z")) -> list[dict[str, Any]]:
    return [{"question": f"{at}?", "choices": list(options), "answer": gold} for at, gold in enumerate(golds)]


@pytest.mark.parametrize(
    ("golds", "letters", "first"), [((0, 3, 1), "ADB", 0), ((1, 4, 2), "ADB", 1), (("1", "4", "2"), "ADB", 1)]
)
def test_where_positions_are_counted_from_is_told_by_the_file_and_said(
    tmp_path: Path, golds: tuple[Any, ...], letters: str, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    spec = write(tmp_path / "set.jsonl", numbered(*golds))
    assert "".join(problem.answer for problem in load_problems(spec, DataConfig())) == letters
    assert caplog.messages == [
        f"3 of 3 rows of {spec} give the right option as a number, read as its position counted from {first}: first is "
        f"row 1, {str(golds[0])!r}"
    ]


def test_a_number_that_could_be_a_text_or_a_position_is_read_only_where_the_file_tells(tmp_path: Path) -> None:
    unclear = numbered(1, options=("2", "3", "1"))
    with pytest.raises(DataError, match="answer 1 is the text of option C and the position of option B; give letters"):
        load_problems(write(tmp_path / "one.jsonl", unclear), DataConfig())
    told = [*numbered(0), *unclear]
    assert [p.answer for p in load_problems(write(tmp_path / "two.jsonl", told), DataConfig())] == ["A", "B"]
    text = numbered("1", options=("2", "3", "1"))
    assert load_problems(write(tmp_path / "three.jsonl", text), DataConfig())[0].answer == "C"
    agreed = numbered(1, options=("0", "1", "2"))
    assert load_problems(write(tmp_path / "four.jsonl", agreed), DataConfig())[0].answer == "B"


def test_a_table_with_options_and_pictures_in_its_cells(tmp_path: Path) -> None:
    """VLMEvalKit's files: tabs, a picture in base64 that is longer than the usual limit of a cell, options apart."""
    noisy = Image.effect_noise((400, 400), 90)
    file = io.BytesIO()
    noisy.save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    assert len(picture) > 131_072
    path = tmp_path / "set.tsv"
    path.write_text(
        f'index\tquestion\tA\tB\tC\tanswer\timage\n1\t"Which ""one""?\nSay."\tcat\tdog\t\tB\t{picture}\n',
        encoding="utf-8",
    )
    (problem,) = load_problems(str(path), DataConfig(columns=ColumnsConfig(id="index")))
    assert (problem.id, problem.question) == ("1", 'Which "one"?\nSay.\n(A) cat\n(B) dog')
    assert (problem.answer, problem.choices, problem.images) == ("B", ("cat", "dog"), (file.getvalue(),))
