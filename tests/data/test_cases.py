r"""The inputs of ``shared/cases/data.jsonl`` and others of their kinds, from a row of a file to what is accepted."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spark_rl.chat import policy_prompt
from spark_rl.config import ChatConfig, load_config
from spark_rl.data import load_problems
from spark_rl.data.images import open_image
from spark_rl.data.literal import MAX_DEPTH, read_literal
from spark_rl.errors import DataError
from spark_rl.problem import Problem
from spark_rl.verify import verify

CASES = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data")).parent / "cases"


def loaded(folder: Path, row: dict[str, Any], settings: dict[str, Any] | None = None) -> Problem:
    """The row as the only one of a file beside the picture ``a.png``."""
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    config = load_config(None, [f"{key}={value}" for key, value in (settings or {}).items()])
    (problem,) = load_problems(str(path), config.data)
    return problem


def accepts(problem: Problem, answer: str) -> bool:
    statuses = {verify(f"so \\boxed{{{answer}}}", gold, problem.kind, problem.choices).status for gold in problem.golds}
    return "correct" in statuses


def asked_formats(problem: Problem) -> int:
    """How many answer formats the policy's turn asks for: boxes, ``Answer:`` lines, tags, hashes."""
    prompt = policy_prompt(problem, ChatConfig())
    return sum(prompt.count(mark) for mark in ("boxed{", "Answer:", "<answer>", "####", "JSON"))


def check(folder: Path, case: dict[str, Any]) -> None:
    want = case["want"]
    if "refused_or_counted" in want:
        with pytest.raises(DataError, match="none of 1 rows is usable"):
            loaded(folder, case["row"], case["settings"])
        return
    problem = loaded(folder, case["row"], case["settings"])
    for key in ("kind", "answer"):
        assert getattr(problem, key) == want.get(key, getattr(problem, key))
    assert list(problem.choices) == want.get("choices", list(problem.choices))
    if "answer_text" in want:
        assert problem.choices["ABCDEFGHIJ".index(problem.answer)] == want["answer_text"]
    assert all(text in problem.question for text in want.get("question_contains", ()))
    assert all(accepts(problem, answer) for answer in want.get("accepts", ()))
    assert not any(accepts(problem, answer) for answer in want.get("refuses", ()))
    assert len(problem.images) == want.get("images", len(problem.images))
    if "prompt_asks_for_one_format" in want:
        assert asked_formats(problem) == 1
        assert "9 * 9" in problem.question


@pytest.mark.shared
def test_every_case_of_the_shared_file(tmp_path: Path) -> None:
    path = CASES / "data.jsonl"
    if not path.is_file():
        pytest.skip(f"no shared cases at {path}")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(cases) >= 13
    for case in cases:
        check(tmp_path, case)


def mammals(options: Any, gold: Any, **more: Any) -> dict[str, Any]:
    return {"question": "Which is a mammal?", "choices": options, "answer": gold, **more}


ANIMALS = ["whale", "trout", "gecko"]


@pytest.mark.parametrize(
    ("options", "gold", "shown", "answer"),
    [
        # labels decide, whatever they are and in whatever order
        ({"text": ANIMALS, "label": ["A", "B", "C"]}, "A", ANIMALS, "A"),
        ({"text": ANIMALS, "label": ["C", "B", "A"]}, "C", ["gecko", "trout", "whale"], "C"),
        ({"text": ANIMALS, "label": ["3", "1", "2"]}, "3", ["trout", "gecko", "whale"], "C"),
        ({"text": ANIMALS, "label": [2, 1, 3]}, 2, ["trout", "whale", "gecko"], "B"),
        ({"text": ANIMALS, "label": ["1", "2", "3"]}, 1, ANIMALS, "A"),
        ({"text": ["2", "3", "1"], "label": ["1", "2", "3"]}, "1", ["2", "3", "1"], "A"),
        ({"text": ANIMALS, "label": ["F", "G", "H"]}, "H", ANIMALS, "C"),
        ({"text": ANIMALS, "label": ["H", "F", "G"]}, "H", ANIMALS, "A"),
        ({"text": ANIMALS, "label": ["a", "b", "c"]}, "B", ANIMALS, "B"),
        ({"text": ANIMALS, "label": ["(A)", "(B)", "(C)"]}, "(C)", ANIMALS, "C"),
        ({"text": ANIMALS, "label": ["A", "B", "C"]}, "gecko", ANIMALS, "C"),
        ({"text": ANIMALS}, "trout", ANIMALS, "B"),
        # mappings
        ({"A": "whale", "B": "trout"}, "B", ["whale", "trout"], "B"),
        ({"option_a": "whale", "option_b": "trout"}, "option_b", ["whale", "trout"], "B"),
        (["10 cm", "20 cm"], "20", ["10 cm", "20 cm"], "B"),
        ({"B": "trout", "A": "whale"}, "B", ["whale", "trout"], "B"),
        ({"1": "whale", "2": "trout"}, "2", ["whale", "trout"], "B"),
        ({"A": "whale", "B": "trout", "C": None}, "trout", ["whale", "trout"], "B"),
        ([{"label": "B", "text": "trout"}, {"label": "A", "text": "whale"}], "A", ["whale", "trout"], "A"),
        ([{"key": "A", "content": "whale"}, {"key": "B", "content": "trout"}], "B", ["whale", "trout"], "B"),
        ([{"id": 1, "text": "whale"}, {"id": 2, "text": "trout"}], 2, ["whale", "trout"], "B"),
        ([{"text": "whale"}, {"text": "trout"}], "whale", ["whale", "trout"], "A"),
        # letters of their own
        (["A. whale", "B. trout"], "B", ["whale", "trout"], "B"),
        (["(A) whale", "(B) trout"], "(A) whale", ["whale", "trout"], "A"),
        (["A) whale", "B) trout"], "trout", ["whale", "trout"], "B"),
        # written as text
        ('["whale", "trout"]', "B", ["whale", "trout"], "B"),
        ("['whale', 'trout']", "whale", ["whale", "trout"], "A"),
        ("['cat\\'s', \"dog's\"]", "dog's", ["cat's", "dog's"], "B"),
        ("['\\frac12', '\\\\pi']", "A", ["\\frac12", "\\pi"], "A"),
        ('["\\beta", "\\\\pi"]', "A", ["\\beta", "\\pi"], "A"),
        ("{'A': 'whale', 'B': 'trout'}", "A", ["whale", "trout"], "A"),
        ("{'text': ['whale', 'trout'], 'label': ['2', '1']}", "2", ["trout", "whale"], "B"),
        ("A. whale\nB. trout", "B", ["whale", "trout"], "B"),
        ("(A) whale (B) trout (C) gecko", "C", ANIMALS, "C"),
        ("a ) whale , b ) trout , c ) gecko", "b", ANIMALS, "B"),
        ("A) whale B) trout C) gecko", "B", ANIMALS, "B"),
        # what the gold may look like
        (ANIMALS, "\\boxed{B}", ANIMALS, "B"),
        (ANIMALS, ["C"], ANIMALS, "C"),
        (ANIMALS, '["C"]', ANIMALS, "C"),
        (ANIMALS, "\\textbf{(B)}\\ trout", ANIMALS, "B"),
        (ANIMALS, "B: trout", ANIMALS, "B"),
        (ANIMALS, "A, C", ANIMALS, "A, C"),
        (["1/2", "3/4"], "0.75", ["1/2", "3/4"], "B"),
        (["unknown", "proof"], "proof", ["unknown", "proof"], "B"),
        (["trout", "whale", "whale"], "whale", ["trout", "whale", "whale"], "B"),
    ],
)
def test_options_in_every_shape(tmp_path: Path, options: Any, gold: Any, shown: list[str], answer: str) -> None:
    problem = loaded(tmp_path, mammals(options, gold))
    assert (problem.kind, list(problem.choices), problem.answer) == ("choice", shown, answer)
    lines = [f"({letter}) {text}" for letter, text in zip("ABC", shown, strict=False)]
    assert problem.question.split("\n") == ["Which is a mammal?", *lines]


@pytest.mark.parametrize(
    "columns",
    [
        {"A": "whale", "B": "trout", "C": None},
        {"option_a": "whale", "option_b": "trout"},
        {"optionA": "whale", "optionB": "trout", "optionC": ""},
        {"Option A": "whale", "Option B": "trout"},
        {"choice_b": "trout", "choice_a": "whale"},
        {"opa": "whale", "opb": "trout"},
    ],
)
def test_options_in_columns_of_their_own(tmp_path: Path, columns: dict[str, Any]) -> None:
    problem = loaded(tmp_path, {"question": "Which is a mammal?", **columns, "answer": "B"})
    assert (problem.choices, problem.answer) == (("whale", "trout"), "B")
    numbered = loaded(tmp_path, {"question": "Which?", "option1": "whale", "option2": "trout", "answer": "2"})
    assert (numbered.choices, numbered.answer) == (("whale", "trout"), "B")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (mammals({}, "A"), "the options are an empty mapping"),
        (mammals({"first": "whale", "second": "trout"}, "A"), "a mapping of first, second, which are no labels"),
        (mammals({"text": ANIMALS, "label": ["A", "B"]}, "A"), "3 texts and not as many labels"),
        (mammals({"text": ANIMALS, "label": ["A", "A", "B"]}, "A"), "two options have the same label: A, A, B"),
        (mammals({"text": ANIMALS, "label": ["A", "B", "last"]}, "A"), "the label 'last', neither a letter nor"),
        (mammals([{"what": "whale"}, {"what": "trout"}], "A"), "a mapping of what, none of which is its text"),
        (mammals([["whale"], ["trout"]], "A"), "the option is a list"),
        (mammals("whale or trout", "A"), "the options are not a list but the text 'whale or trout'"),
        (mammals("__import__('os').system('id')", "A"), "the options are not a list but the text"),
        (mammals(7, "A"), "the options are of type int"),
        ({"question": "q", "A": "whale", "B": "trout", "D": "gecko", "answer": "A"}, "columns A, B, D leave one out"),
    ],
)
def test_options_of_no_known_shape_stop_with_their_row(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match="row 1: ") as caught:
        loaded(tmp_path, row)
    assert why in str(caught.value)
    assert "data.columns.choices" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "gold", "why"),
    [
        ({"text": ANIMALS, "label": ["A", "B", "C"]}, "D", "none of the labels A, B, C nor one of the 3 options"),
        ({"text": ANIMALS, "label": ["F", "G", "H"]}, "A", "none of the labels F, G, H"),
        ({"A": "whale", "B": "trout"}, 1, "none of the labels A, B"),
        (["3", "2", "4"], 2, "is the text of option B and the position of option C; give letters"),
        (ANIMALS, ["A", "C"], "2 right options in a list may mean any of them or all"),
        (ANIMALS, "A. trout", "neither a letter nor one of"),
        (ANIMALS, "notfound", "empty answer"),
    ],
)
def test_golds_that_are_no_option_are_counted_with_their_reason(
    tmp_path: Path, options: Any, gold: Any, why: str
) -> None:
    with pytest.raises(DataError, match="none of 1 rows is usable as columns: first is row 1") as caught:
        loaded(tmp_path, mammals(options, gold))
    assert why in str(caught.value)


PRINTED = "Find the area. $\\textbf{(A)}\\ 2 \\qquad \\textbf{(B)}\\ 3 \\qquad \\textbf{(C)}\\ \\frac{7}{2}$"


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        # several golds
        ({"answer": ["1/2", "50\\%"]}, ["0.5", "50\\%"], ["2"]),
        ({"answer": "['1/2', '2/3']"}, ["1/2", "2/3"], ["3/2"]),
        ({"answer": '["34"]'}, ["34"], ["35"]),
        ({"answer": '["\\\\frac{1}{2}", "2"]'}, ["0.5", "2"], ["1"]),
        ({"answer": '"34"'}, ["34"], ["35"]),
        ({"answer": ["7"]}, ["7"], ["8"]),
        ({"answer": ["\\boxed{7}", "7", ""]}, ["7"], ["8"]),
        ({"reward_model": {"ground_truth": ["7", "8"]}}, ["7", "8"], ["7, 8"]),
        ({"message": json.dumps([{"role": "user", "content": "q"}]), "answer": ["7", "8"]}, ["7", "8"], ["9"]),
        # one gold that is a list
        ({"answer": "1, 2"}, ["1, 2"], ["1", "2"]),
        ({"answer": "[1, 2]"}, ["[1, 2]"], ["1", "2"]),
        ({"answer": "\\{1, 2\\}"}, ["\\{1, 2\\}"], ["1"]),
        # numbers
        ({"answer": 8.0}, ["8"], ["9"]),
        ({"answer": "8.0"}, ["8"], ["9"]),
        ({"answer": -0.5}, ["-1/2"], ["1/2"]),
        # units in brackets
        ({"answer": "9 (apples)"}, ["9", "9 apples"], ["8"]),
        ({"answer": "3/4 (cups of flour)"}, ["3/4", "0.75"], ["3"]),
        ({"answer": "1,200 (dollars)"}, ["1200"], ["1"]),
        ({"answer": "2.5 (hr)"}, ["2.5"], ["2"]),
        ({"answer": "12(eggs)"}, ["12"], ["13"]),
        # and what only looks like one
        ({"answer": "2 (x)"}, ["2x"], ["2"]),
        ({"answer": "2 (x+1)"}, ["2x+2"], ["2"]),
        # printed options
        ({"answer": "\\textbf{(B)}\\ 3"}, ["3", "B", "(B)"], ["4", "A"]),
        ({"answer": "$\\textbf{(C)}\\ \\frac{7}{2}$"}, ["3.5", "C"], ["7"]),
        ({"answer": "\\mathrm{(D) \\ }12"}, ["12", "D"], ["1"]),
        ({"answer": "\\text{(B)} -3"}, ["-3", "B"], ["3"]),
        ({"answer": "\\mathbf{(E)}\\hspace{.05in} 12"}, ["12", "E"], ["1"]),
        ({"answer": "$\\boxed{\\textbf{(B)}\\ 3}$"}, ["3", "B"], ["2"]),
        ({"answer": "$\\boxed{7}$"}, ["7"], ["8"]),
        ({"answer": "(B) 3"}, ["3", "B"], ["2"]),
        ({"answer": "B. 3"}, ["3", "B"], ["2"]),
        ({"answer": "B) $3$"}, ["3", "B"], ["2"]),
        # options in the question
        ({"question": PRINTED, "answer": "\\textbf{(B)}\\ 3"}, ["B", "3"], ["A", "2"]),
        ({"question": PRINTED, "answer": "C"}, ["C", "3.5"], ["7", "B"]),
        ({"question": PRINTED, "answer": "3"}, ["B", "3"], ["A", "C"]),
        ({"question": PRINTED, "answer": 3.5}, ["C", "3.5"], ["A"]),
        ({"question": "Which is even?\nA. 3\nB. 4\nAnswer with the letter.", "answer": "4"}, ["B", "4"], ["A"]),
        ({"question": "Which is even? (A) 3 (B) 4 (C) 5", "answer": "\\text{(B)}"}, ["B", "4"], ["A"]),
    ],
)
def test_golds_as_sets_write_them(tmp_path: Path, row: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    problem = loaded(tmp_path, {"question": "How much is it?", **row})
    assert [answer for answer in right if not accepts(problem, answer)] == []
    assert [answer for answer in wrong if accepts(problem, answer)] == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        *(
            ({"answer": gold}, f"the answer is {gold!r}, which stands for none")
            for gold in ("proof", "Proof.", "notfound", "Not found", "N/A", "n/a", "None", "null", "see solution",
                         "no answer", "No answer given", "N.A.",
                         "-", "?", "[]")
        ),
        ({"answer": ["proof"]}, "stands for none"),
        ({"answer": "\\boxed{proof}"}, "stands for none"),
        ({"answer": ""}, "empty answer"),
        ({"answer": []}, "empty answer"),
        ({"answer": [None, ""]}, "empty answer"),
        ({"answer": '[""]'}, "empty answer"),
        ({"answer": [["1"], ["2"]]}, "a list of lists"),
        ({"answer": {"value": "1"}}, "the answer is a dict"),
        ({"reward_model": {"ground_truth": '{"inputs": ["1"], "outputs": ["2"]}'}}, "a mapping written as text"),
        ({"question": "Which picture? Answer with the option letter.", "answer": "4"}, "asks for a letter"),
        ({"question": "Which is it (A, B, C or D)?", "answer": 4}, "asks for a letter"),
        ({"question": "Pick the letter of the correct figure.", "answer": 12}, "asks for a letter"),
        ({"question": PRINTED, "answer": "17"}, "none of the labels A, B, C nor one of the 3 options"),
    ],
)  # fmt: skip
def test_golds_that_are_none_are_counted_with_an_example(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=r"none of 1 rows is usable as \w+: first is row 1") as caught:
        loaded(tmp_path, {"question": "How much is it?", **row})
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "gold",
    ["none", "Na", "x", "0", "undefined", "\\text{no solution}", "No solution", "above", "none of the above", "-1",
     "E. coli", "i", "unknown"],
)  # fmt: skip
def test_golds_that_only_look_like_none_stay(tmp_path: Path, gold: str) -> None:
    assert loaded(tmp_path, {"question": "How much is it?", "answer": gold}).golds == (gold,)


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"Body": "Two hens.", "Question": "How many?"}, "Two hens.\nHow many?"),
        ({"body": "Two hens.", "question": "How many?"}, "Two hens.\nHow many?"),
        ({"context": "Two hens.", "question": "How many?"}, "Two hens.\nHow many?"),
        ({"passage": "Two hens.", "question": "How many?"}, "Two hens.\nHow many?"),
        ({"instruction": "Count.", "input": "1, 2"}, "Count.\n1, 2"),
        ({"instruction": "Count to two.", "input": ""}, "Count to two."),
        ({"context": "Two hens.", "question": "Two hens. How many?"}, "Two hens. How many?"),
        ({"context": "", "question": "How many?"}, "How many?"),
        ({"context": None, "question": "How many?"}, "How many?"),
    ],
)
def test_text_in_two_columns_is_read_whole(tmp_path: Path, row: dict[str, Any], question: str) -> None:
    assert loaded(tmp_path, {**row, "answer": "2"}).question == question
    named = {"data.columns.question": "ask", "data.columns.context": "story"}
    assert loaded(tmp_path, {"story": "A hen.", "ask": "How many?", "answer": 1}, named).question == "A hen.\nHow many?"


def test_a_context_that_is_no_text_is_counted_and_a_story_without_a_question_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the context is a dict"):
        loaded(tmp_path, {"context": {"title": "x"}, "question": "How many?", "answer": "2"})
    with pytest.raises(DataError, match="no question"):
        loaded(tmp_path, {"Body": "Two hens.", "Question": "", "Answer": "2"})


FOREIGN = [
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its "
    'own line after "Answer:".',
    "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "{} Let's think step by step and output the final answer within \\boxed{{}}.",
    '{} Let\'s think step by step and output the final answer after "####".',
    "{}\n\nPut your final answer in \\boxed{{answer}}.",
    "Please put your answer in $\\boxed{{}}$.\n{}",
    "{} You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{{}}.",
    "You should first thinks about the reasoning process in the mind and then provides the user with the answer. Your "
    "answer must be in latex format and wrapped in $...$.The reasoning process and answer are enclosed within <think> "
    "</think> and <answer> </answer> tags, respectively.\nQuestion:\n{}",
    "{}\nReturn the final answer as JSON.",
    "{}\nEnd your response with 'The answer is X'.",
    "{}\n请逐步推理，并把最终答案放在 \\boxed{{}} 中。",
    "{}\nEscribe la respuesta final en \\boxed{{}}.",
    "{}\nWrite your final answer inside <answer></answer>.",
    "{}\nYour final answer should be in the form **Answer:** X.",
    '{}\nPlease end your response with "Final Answer: <answer>".',
    "{}\nPlease provide your answer in the format: Answer: [your answer]",
    "{}\nShow your work in <think> </think> tags. And return the final answer in <answer> </answer> tags, for example "
    "<answer> (1 + 2) / 3 </answer>.",
    "Think step by step. Then give the final answer after 'Answer:'.\n\n{}",
    "{}\nGive your final answer as \\boxed{{...}}.",
    "{}\nBox your final answer.",
    "{}\nThe final line of your reply should be the answer alone.",
    "Question: {}\nLet's think step by step. Put the answer in \\boxed{{}}.\nAnswer:",
    "{}\nPresent the answer in LaTex format: \\boxed{{Your answer}}",
    "{}\nAnswer:",
    "Here is a question. Give the answer in double brackets, such as [[5]].\n{}",
]


@pytest.mark.parametrize("template", FOREIGN)
def test_a_question_that_brings_its_own_format_is_asked_for_one(
    tmp_path: Path, template: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = "What is 9 * 9? Give it as a fraction of the form $\\frac{m}{n}$."
    problem = loaded(tmp_path, {"question": template.format(asked), "answer": "81"})
    assert problem.question == asked
    assert asked_formats(problem) == 1
    assert len(caplog.messages) == 1
    assert "1 of 1 rows of" in caplog.messages[0]
    assert "ask for an answer format of their own, which is taken off" in caplog.messages[0]


@pytest.mark.parametrize(
    "question",
    [
        "Find $m+n$ if the probability is of the form $m/n$. Express your answer as a common fraction.",
        "What number should replace \\boxed{} in $3 + \\boxed{} = 5$?",
        "Write the answer to the nearest integer.",
        "Round your final answer to two decimal places and include units.",
        "The solution of $x^2=4$ should be put into set notation.",
        "Solve it step by step. How many steps are there?",
        "Anna wrote 'The answer is 5' on the board. What is twice that?",
        "What does the tag <answer> mean in HTML?",
        "Answer: 5 or 6, which is even?",
        "Malcolm works where they pack 40 apples in a box. How many boxes are there as a result of 80 apples?",
        "A chemist must put the solution in a box. How heavy is it?",
        "They work out the result and write it on the last line of the page. What is it?",
        "Does Bob give the solution $\\boxed{4}$ to $x=2+2$? Write Yes or No.",
    ],
)
def test_what_a_question_asks_of_its_answer_stays(
    tmp_path: Path, question: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert loaded(tmp_path, {"question": question, "answer": "81"}).question == question
    assert not caplog.messages


def encoded() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "lime").save(file, "PNG")
    return file.getvalue()


TEXT = base64.b64encode(encoded()).decode()


@pytest.mark.parametrize(
    "image",
    [
        *(
            {key: "a.png"}
            for key in ("url", "file_name", "filename", "image", "path", "file", "src", "uri", "file_path")
        ),
        {"image_url": {"url": "a.png"}},
        {"type": "image", "image": "a.png"},
        {"path": "a.png", "bytes": None},
        {"url": "file://a.png"},
        [{"url": "a.png"}],
        "{'url': 'a.png'}",
        "['a.png']",
        '[{"path": "a.png"}]',
        {"base64": TEXT},
        {"bytes": TEXT, "path": "nowhere.png"},
        {"bytes": list(encoded())},
        {"url": f"data:image/png;base64,{TEXT}"},
        {"base64": f"data:image/png;base64,{TEXT}"},
        TEXT,
        "\n".join(TEXT[at : at + 60] for at in range(0, len(TEXT), 60)),
        f"data:image/png;base64,{TEXT}",
    ],
)
def test_an_image_is_read_whatever_holds_it(tmp_path: Path, image: Any) -> None:
    problem = loaded(tmp_path, {"question": "What is it?", "answer": "a square", "image": image})
    (kept,) = problem.images
    lime = TEXT in json.dumps(image).replace("\\n", "") or "137" in json.dumps(image)
    assert open_image(kept).getpixel((1, 1)) == ((0, 255, 0) if lime else (255, 0, 0))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ({"link": "a.png"}, "a mapping of link, none of which is known"),
        ({}, "a mapping of nothing"),
        ([{"url": "a.png"}, {"caption": "x"}], "a mapping of caption"),
        ({"base64": "!!!"}, "base64 that is not valid"),
        ({"base64": TEXT[:80]}, "damaged"),
        (TEXT[:65], "not valid base64"),
        ({"bytes": [1, 2, 999]}, "bytes that are a list of something else"),
        ({"url": "https://example.org/a.png"}, "https://example.org/a.png: addresses are not fetched; download it"),
        ({"image_url": {"url": "http://x/a.png"}}, "addresses are not fetched"),
        ("ftp://x/a.png", "addresses are not fetched"),
        ({"path": "gone.png"}, "there is no such file"),
        (7, "neither a path nor bytes"),
        (True, "neither a path nor bytes"),
        ({"url": ["a.png", 7]}, "neither a path nor bytes"),
    ],
)
def test_an_image_that_cannot_be_read_stops_with_its_row(tmp_path: Path, image: Any, why: str) -> None:
    row = {"question": "What is it?", "answer": "a square", "image": image}
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1: image ") as caught:
        loaded(tmp_path, row)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="none of 1 rows is usable with its images") as caught:
        loaded(tmp_path, row, {"data.images.broken": "skip"})
    assert why in str(caught.value)


def test_an_empty_column_of_images_does_not_hide_a_full_one(tmp_path: Path) -> None:
    row = {"question": "What is it?", "answer": "x", "images": [], "image": "a.png"}
    assert len(loaded(tmp_path, row).images) == 1
    numbered = {"question": "<image> or <image>?", "answer": "x", "image_2": "a.png", "image_1": {"path": "a.png"}}
    assert len(loaded(tmp_path, numbered).images) == 2
    assert loaded(tmp_path, {"question": "1+1?", "answer": "2", "image": {"bytes": None, "path": None}}).images == ()


WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=6).filter(lambda word: "\\" not in word)
LITERALS = st.recursive(
    WORDS | st.integers(-999, 999) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(LITERALS, max_size=3) | st.dictionaries(WORDS, LITERALS, max_size=3))
def test_what_python_and_json_write_is_read_back(value: Any) -> None:
    deep = str(value).count("[") + str(value).count("{") > MAX_DEPTH
    assert read_literal(json.dumps(value)) == value
    assert read_literal(repr(value)) == value or deep


@given(st.text("[]{}(),:'\"\\ abN1.-", max_size=30) | st.text(max_size=30))
def test_no_text_crashes_the_reader_of_literals(text: str) -> None:
    assert isinstance(read_literal(text), list | dict | None)


@pytest.mark.parametrize("text", ["[" * 200_000, "['" + "a" * 200_000, "[" + "1," * 100_000, "{'a':" * 50_000])
def test_long_literals_take_linear_time(text: str) -> None:
    started = time.process_time()
    read_literal(text)
    assert time.process_time() - started < 2
