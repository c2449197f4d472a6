r"""Row layouts on small hand-written rows in the documented schemas."""

from __future__ import annotations

import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.config import ANSWER_FORMAT, ColumnsConfig, DataConfig
from spark_rl.data.layouts import Layout, check_columns, detect_layout, number_rule, strip_suffix
from spark_rl.data.published import PUBLISHED
from spark_rl.data.rows import read_row
from spark_rl.data.values import RowError, within_ranges
from spark_rl.errors import DataError
from spark_rl.problem import Problem

AUTO = ColumnsConfig()
EVALUATION_SUFFIX = ANSWER_FORMAT.format(question="")
TRAINING_SUFFIX = EVALUATION_SUFFIX.replace("'\\boxed{}'.", "'\\boxed{}.'")


def read(
    row: dict[str, Any], layout: Layout | None = None, columns: ColumnsConfig = AUTO, kind: Any = "auto"
) -> Problem:
    layout = layout or detect_layout([row], columns)
    numbers = number_rule([row] if isinstance(row, dict) else [], layout, columns)
    return read_row(row, layout, columns, kind, "test", numbers)


def chat(text: str, *images: str, **extra: Any) -> str:
    parts = [{"type": "image", "image": image, "max_pixels": 1048576} for image in images]
    return json.dumps([{"role": "user", "content": [*parts, {"type": "text", "text": text}], **extra}])


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"question": "1+1?", "answer": "2"}, "1+1?", "2"),
        ({"problem": " 1+1? ", "answer": 2}, "1+1?", "2"),
        ({"Problem": "1+1?", "Answer": 2, "Solution": "long"}, "1+1?", "2"),
        ({"query": "1+1?", "label": "2"}, "1+1?", "2"),
        ({"input": "1+1?", "target": "2"}, "1+1?", "2"),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1?"}], "gold": "2"},
            "1+1?",
            "2",
        ),
        ({"problem": "1+1?", "solution": "It is \\boxed{2}, so 3 is wrong.", "answer": "2"}, "1+1?", "2"),
        ({"problem": "1+1?", "solution": "First \\boxed{1}. Then \\boxed{\\frac{4}{2}}."}, "1+1?", "\\frac{4}{2}"),
        ({"problem": "1+1?", "answer": "\\boxed{2}"}, "1+1?", "2"),
        ({"problem": "1+1?", "answer": "\\boxed{1} or \\boxed{2}"}, "1+1?", "\\boxed{1} or \\boxed{2}"),
        ({"problem": "1+1?", "answer": "$2$"}, "1+1?", "$2$"),
        ({"problem": "AMC", "answer": 27.0}, "AMC", "27"),
        ({"problem": "AMC", "answer": -1.0}, "AMC", "-1"),
        ({"problem": "half", "answer": 0.5}, "half", "0.5"),
        ({"problem": "huge", "answer": 1e300}, "huge", "1e+300"),
        ({"problem": "AIME", "answer": "025"}, "AIME", "025"),
        ({"problem": "zero", "answer": 0}, "zero", "0"),
        ({"problem": "set", "final_answer": "1, 2"}, "set", "1, 2"),
        ({"problem": "emoji \ud83d\ude00 lone \ud83d", "answer": "2"}, "emoji \U0001f600 lone \ufffd", "2"),
    ],
)
def test_plain_columns(row: dict[str, Any], question: str, answer: str) -> None:
    problem = read(row)
    assert (problem.question, problem.answer, problem.kind, problem.source) == (question, answer, "math", "test")


def test_named_columns_win_and_are_taken_literally() -> None:
    row = {"question": "no", "frage": "1+1?", "answer": "no", "solution": "two"}
    problem = read(row, columns=ColumnsConfig(question="frage", answer="solution"))
    assert (problem.question, problem.answer) == ("1+1?", "two")


@pytest.mark.parametrize("suffix", [EVALUATION_SUFFIX, TRAINING_SUFFIX], ids=["evaluation", "training"])
@pytest.mark.parametrize("layout", ["columns", "message", "gsm8k", "simplerl"])
def test_both_suffix_variants_are_stripped_in_every_layout(layout: Layout, suffix: str) -> None:
    rows: dict[Layout, dict[str, Any]] = {
        "columns": {"question": "1+1?" + suffix, "answer": "2"},
        "message": {"message": chat("1+1?" + suffix), "answer": "2"},
        "gsm8k": {"question": "1+1?" + suffix + "\n", "answer": "so\n#### 2"},
        "simplerl": {"extra_info": {"question": "1+1?" + suffix}, "reward_model": {"ground_truth": "2"}},
    }
    problem = read(rows[layout])
    assert detect_layout([rows[layout]], AUTO) == layout
    assert (problem.question, problem.answer) == ("1+1?", "2")


def test_the_suffix_inside_a_question_stays() -> None:
    text = "Quote: " + EVALUATION_SUFFIX.strip() + " Why?"
    assert strip_suffix(text) == text


@settings(deadline=None)
@given(st.text(alphabet="ab \n{}'\\", max_size=40))
def test_stripping_the_suffix_gives_the_question_back(question: str) -> None:
    assert strip_suffix(question + EVALUATION_SUFFIX) == question.strip()
    assert strip_suffix(question + TRAINING_SUFFIX) == question.strip()


def test_message_rows_keep_their_image_and_dollars() -> None:
    row = {"message": chat("What is x?" + TRAINING_SUFFIX, "file:///data/a.png"), "answer": "$3$", "datasource": "d"}
    problem = read(row)
    assert (problem.question, problem.answer, problem.images) == ("What is x?", "$3$", ("file:///data/a.png",))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("not json", "message is not valid JSON"),
        ("[" * 100_000, "message is not valid JSON"),
        ('{"role": "user"}', "message is not a list of turns"),
        ("[]", "the chat has 0 user turns"),
        ('[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]', "the chat has 2 user turns"),
        ('[{"role": "user", "content": [{"type": "video"}]}]', "a part of type 'video'"),
        ('[{"role": "user", "content": ["text"]}]', "a part of type None"),
        ('[{"role": "user", "content": null}]', "no question"),
        (None, "message is not a list of turns"),
    ],
)
def test_broken_messages_say_why(message: Any, why: str) -> None:
    with pytest.raises(RowError, match=why):
        read({"message": message, "answer": "2"}, "message")


def test_what_the_assistant_said_in_a_message_never_reaches_the_question() -> None:
    turns = [*json.loads(chat("1+1?")), {"role": "assistant", "content": "It is two."}]
    assert "two" not in repr(read({"message": json.dumps(turns), "answer": "2"}))


@pytest.mark.parametrize(
    ("worked", "gold"),
    [
        ("48/2 = 24\n#### 72", "72"),
        ("a\n#### 1,234,567", "1234567"),
        ("#### 3\nno, wait\n#### -4.5 ", "-4.5"),
    ],
)
def test_gsm8k_golds(worked: str, gold: str) -> None:
    assert read({"question": "q", "answer": worked}, "gsm8k").answer == gold


@pytest.mark.parametrize(
    ("worked", "why"),
    [
        ("just 72", "no #### in the answer"),
        ("####", "empty answer"),
        ("", "empty answer"),
        ("#### a\nb", "empty answer"),
    ],
)
def test_gsm8k_rows_without_a_gold(worked: str, why: str) -> None:
    with pytest.raises(RowError, match=why):
        read({"question": "q", "answer": worked}, "gsm8k")


QWEN_PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n1+1?\n"
    "Please reason step by step, and put your final answer within \\boxed{{}}.<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        (
            {"prompt": [{"role": "user", "content": "no"}], "question": "no", "gt_answer": "4",
             "extra_info": {"question": "1+1?", "answer": "3"}, "reward_model": {"ground_truth": "2"}},
            "1+1?", "2",
        ),
        ({"question": "1+1?", "gt_answer": "2", "answer": "long", "prompt": "no"}, "1+1?", "2"),
        ({"prompt": QWEN_PROMPT, "extra_info": {"answer": "2"}, "reward_model": {}}, "1+1?", "2"),
        ({"prompt": [{"role": "user", "content": QWEN_PROMPT}], "reward_model": {"ground_truth": "2"}}, "1+1?", "2"),
        ({"prompt": QWEN_PROMPT.replace("{{}}", "{}"), "gt_answer": 2, "extra_info": None}, "1+1?", "2"),
        ({"prompt": "Question:\n1+1?\nAnswer:\nLet's think step by step.\n", "gt_answer": "2"}, "1+1?", "2"),
        ({"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": ["2"]}}, "1+1?", "2"),
    ],
)  # fmt: skip
def test_simplerl_fields_in_their_order(row: dict[str, Any], question: str, answer: str) -> None:
    problem = read(row)
    assert (problem.question, problem.answer) == (question, answer)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            {"question": "q", "reward_model": {"ground_truth": ""}, "extra_info": {"answer": "a whole solution"}},
            "empty answer",
        ),
        ({"question": "q", "reward_model": {"ground_truth": None}}, "empty answer"),
        ({"question": " ", "prompt": "", "reward_model": {"ground_truth": "2"}}, "no question"),
        ({"question": "q", "reward_model": {"ground_truth": {"x": 1}}}, "the answer is a dict"),
        ({"question": "q", "gt_answer": "2", "reward_model": "rule"}, "not an object"),
    ],
)
def test_simplerl_rows_without_question_or_gold(row: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=why):
        read(row, "simplerl")


OPTIONS = ["3", "2", "two", "B"]


@pytest.mark.parametrize(
    ("gold", "letter"),
    [
        (1, "B"),
        (0, "A"),
        ("C", "C"),
        ("c", "C"),
        ("(C)", "C"),
        ("C.", "C"),
        ("two", "C"),
        ("2", "B"),
        ("0", "A"),
    ],
)
def test_option_golds_become_letters(gold: Any, letter: str) -> None:
    problem = read({"question": "1+1?", "choices": OPTIONS, "answer": gold})
    assert problem.question == "1+1?\n(A) 3\n(B) 2\n(C) two\n(D) B"
    assert (problem.answer, problem.kind, problem.choices) == (letter, "choice", tuple(OPTIONS))


def test_options_under_other_names_and_shapes() -> None:
    row = {"problem": "q", "options": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "y"}
    assert read(row).answer == "B"
    assert (
        read({"q": "q?", "o": ["x", "y"], "a": 1}, columns=ColumnsConfig(question="q", choices="o", answer="a")).answer
        == "B"
    )
    empty = read({"question": "q", "options": [], "answer": "10"})
    assert (empty.kind, empty.answer, empty.choices) == ("math", "10", ())


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"choices": OPTIONS, "answer": 5}, r"answer '5' is not an index 0\.\.3"),
        ({"choices": OPTIONS, "answer": -1}, "answer '-1' is not an index"),
        ({"choices": OPTIONS, "answer": True}, "answer 'True' is neither a letter nor"),
        ({"choices": OPTIONS, "answer": "E"}, "neither a letter nor one of the 4 options"),
        ({"choices": OPTIONS, "answer": "²"}, "neither a letter nor one of the 4 options"),
        ({"choices": OPTIONS, "answer": None}, "empty answer"),
        ({"choices": "3 or 2", "answer": "A"}, "the options are not a list but the text '3 or 2'"),
        ({"choices": ["x"] * 27, "answer": 0}, "27 options are more than there are letters"),
        ({"choices": [{"a": 1}], "answer": 0}, "an option is a mapping of a, none of which is its text"),
    ],
)
def test_unusable_options_say_why(row: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=why):
        read({"question": "q", **row}, "columns")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "", "answer": "2"}, "no question"),
        ({"question": None, "answer": "2"}, "no question"),
        ({"question": EVALUATION_SUFFIX, "answer": "2"}, "no question"),
        ({"question": "q", "answer": " "}, "empty answer"),
        ({"question": "q", "answer": None}, "empty answer"),
        ({"question": "q", "answer": float("nan")}, "empty answer"),
        ({"question": "q", "answer": "\\boxed{}"}, "empty answer"),
        ({"question": "q", "answer": {"a": 1}}, "the answer is a dict, not text or a number"),
        ({"question": "q", "answer": [["1"]]}, "the answer is a list"),
        ({"problem": "q", "solution": "long, without a result"}, "no box in the solution"),
        (["q", "a"], "not an object"),
    ],
)
def test_unusable_rows_say_why(row: Any, why: str) -> None:
    with pytest.raises(RowError, match=why):
        read(row, "columns")


def test_the_kind_can_be_set() -> None:
    assert read({"question": "q", "answer": "2"}, kind="exact").kind == "exact"
    assert read({"question": "q", "answer": "B", "choices": ["x", "y"]}, kind="exact").kind == "exact"


@pytest.mark.parametrize(
    ("image", "images"),
    [
        ("images/1.jpg", ("images/1.jpg",)),
        (["a.png", "b.png"], ("a.png", "b.png")),
        ({"bytes": b"png", "path": "a.png"}, (b"png",)),
        ({"bytes": None, "path": "a.png"}, ("a.png",)),
        ("", ()),
        (None, ()),
        ([], ()),
    ],
)
def test_images_in_columns(image: Any, images: tuple[Any, ...]) -> None:
    assert read({"question": "q", "image": image, "answer": "2"}).images == images


@pytest.mark.parametrize(
    ("question", "images", "kept"),
    [
        ("<image>q", ["a"], "q"),
        ("<image>\n<image>q", ["a", "b"], "q"),
        ("q", ["a", "b"], "q"),
        ("left <image> or right <image>?", ["a", "b"], "left <image> or right <image>?"),
        ("<image> and <image>?", ["a", "b"], "<image> and <image>?"),
        ("q <image>", ["a"], "q <image>"),
        ("Is <image1> a cube?", ["a"], "Is <image1> a cube?"),
    ],
)
def test_markers_stand_for_images_unless_they_all_come_first(question: str, images: list[str], kept: str) -> None:
    problem = read({"question": question, "image": images, "answer": "2"})
    assert (problem.question, problem.images) == (kept, tuple(images))


@pytest.mark.parametrize(
    ("question", "images", "why"),
    [
        ("<image>q", [], "1 <image> markers in the question for 0 images"),
        ("<image>q", None, "1 <image> markers in the question for 0 images"),
        ("<image>q", ["a", "b"], "1 <image> markers in the question for 2 images"),
        ("<image>q <image>", ["a"], "2 <image> markers in the question for 1 images"),
        ("<image>", ["a"], "no question"),
    ],
)
def test_markers_must_be_as_many_as_images(question: str, images: list[str] | None, why: str) -> None:
    with pytest.raises(RowError, match=why):
        read({"question": question, "image": images, "answer": "2"})


PIECES = st.lists(st.sampled_from(["<image>", "a", "b c", "\n", " "]), max_size=8)


@given(PIECES, st.integers(0, 4))
def test_the_rule_of_markers(pieces: list[str], images: int) -> None:
    """Against its plainest wording: none or one for each image; only those in front of all text are taken off."""
    question = "".join(pieces)
    row = {"question": question, "image": ["x"] * images, "answer": "2"}
    words = [piece for piece in pieces if piece.strip()]
    markers = words.count("<image>")
    if markers not in {0, images} or markers == len(words):
        with pytest.raises(RowError):
            read(row)
        return
    leading = words[:markers] == ["<image>"] * markers
    kept = read(row).question
    assert kept.count("<image>") == (0 if leading else markers)
    assert kept.replace("<image>", "").split() == question.replace("<image>", "").split() or not leading
    assert kept in question


def parts(*pieces: Any) -> list[dict[str, Any]]:
    """A user turn: texts as strings, images as tuples of what the part holds."""
    content = [
        {"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image", **dict(piece)}
        for piece in pieces
    ]
    return [{"role": "user", "content": content}]


A, B, EMPTY = {"image": "a.png"}, {"image": "b.png", "max_pixels": 7}, {}


@pytest.mark.parametrize(
    ("chat", "column", "question", "images"),
    [
        (parts(A, "q"), None, "q", ("a.png",)),
        (parts(A, B, "q"), None, "q", ("a.png", "b.png")),
        (parts("first", A, "then", B, "?"), None, "first\n<image>\nthen\n<image>\n?", ("a.png", "b.png")),
        (parts(A, "or", B), None, "<image>\nor\n<image>", ("a.png", "b.png")),
        (parts("q", A), None, "q\n<image>", ("a.png",)),
        (parts(A, B, "is <image> in <image>?"), None, "is <image> in <image>?", ("a.png", "b.png")),
        (parts(A, "<image>", "q"), None, "q", ("a.png",)),
        (parts(EMPTY, "q"), ["c.png"], "q", ("c.png",)),
        (parts("see", EMPTY, "and", EMPTY), ["c.png", "d.png"], "see\n<image>\nand\n<image>", ("c.png", "d.png")),
        (parts("q"), "c.png", "q", ("c.png",)),
        (parts(A, "q"), "a.png", "q", ("a.png",)),
        (parts({"image": {"bytes": b"x", "path": None}}, "q"), None, "q", (b"x",)),
    ],
)
def test_the_order_of_parts_is_kept(chat: Any, column: Any, question: str, images: tuple[Any, ...]) -> None:
    for row in ({"prompt": chat, "image": column, "answer": "2"}, {"message": chat, "image": column, "answer": "2"}):
        problem = read(row)
        assert (problem.question, problem.images) == (question, images)


def test_a_place_without_an_image_is_an_error() -> None:
    with pytest.raises(RowError, match="1 <image> markers in the question for 0 images"):
        read({"prompt": parts(EMPTY, "q"), "answer": "2"})


def test_pictures_of_the_hub_win_over_paths_that_lead_nowhere() -> None:
    row = {"question": "q", "image": "images/1.jpg", "decoded_image": {"bytes": b"x", "path": None}, "answer": "2"}
    assert read(row).images == (b"x",)
    assert read(row | {"decoded_image": None}).images == ("images/1.jpg",)
    assert read(row, columns=ColumnsConfig(images="image")).images == ("images/1.jpg",)


def test_rows_of_virl39k() -> None:
    row = {
        "question": "<image>Find $x$.", "answer": "\\boxed{\\frac{1}{2}}", "image": ["images/1-0.jpg"], "qid": "1",
        "category": "c", "source": "s", "PassRate_32BTrained": 0.5, "PassRate_7BBase": -1.0,
    }  # fmt: skip
    problem = read(row, columns=ColumnsConfig(id="qid"))
    assert (problem.question, problem.answer) == ("Find $x$.", "\\frac{1}{2}")
    assert problem.images == ("images/1-0.jpg",)
    assert read(row | {"question": "1+1?", "image": []}).images == ()


@pytest.mark.parametrize("answer", ["\\boxed{\\frac{1}{2}", "\\boxed{1}}", "\\boxed{", "\\boxed{\\{1, 2\\}"])
def test_boxes_with_unbalanced_braces_are_no_answers(answer: str) -> None:
    with pytest.raises(RowError, match="unbalanced braces in the box of the answer"):
        read({"question": "q", "answer": answer})
    assert read({"question": "q", "answer": "\\boxed{\\{1, 2\\}}"}).answer == "\\{1, 2\\}"


def test_options_that_are_only_the_letters_of_the_picture_are_not_listed() -> None:
    row = {"question": "Which? <image1>", "options": list("ABCDE"), "answer": "C", "image": "images/1.jpg", "level": 2}
    problem = read(row)
    assert (problem.question, problem.answer, problem.kind) == ("Which? <image1>", "C", "choice")
    assert problem.choices == tuple("ABCDE")


PUBLISHED_ROWS: list[tuple[str, dict[str, Any], str, str, str, Any]] = [
    (
        "mathvista",
        {"question": "How much?", "image": "images/2.jpg", "choices": None, "unit": "g", "precision": None,
         "answer": "1000", "question_type": "free_form", "answer_type": "integer", "pid": "2"},
        "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
        "at the end.\nQuestion: How much? (Unit: g)", "1000", "math", "images/2.jpg",
    ),
    (
        "mathvista",
        {"question": "Which?", "image": "images/3.jpg", "choices": ["B", "A"], "unit": None, "precision": None,
         "answer": "A", "question_type": "multi_choice", "answer_type": "text", "pid": "3"},
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: Which?\nChoices:\n(A) B\n(B) A", "B", "choice", "images/3.jpg",
    ),
    (
        "mathvista",
        {"question": "How far?", "decoded_image": b"x", "image": "images/1.jpg", "choices": None, "unit": None,
         "precision": 2.0, "answer": "1.20", "question_type": "free_form", "answer_type": "float"},
        "Hint: Please answer the question requiring a floating-point number with two decimal places and provide the "
        "final value, e.g., 1.23, 1.34, 1.45, at the end.\nQuestion: How far?", "1.20", "math", b"x",
    ),
    (
        "mathvista",
        {"question": "no", "query": "as it is", "image": "i", "choices": [], "unit": None, "precision": None,
         "answer": "[1, 2]", "question_type": "free_form", "answer_type": "list"},
        "as it is", "[1, 2]", "math", "i",
    ),
    (
        "mathverse",
        {"sample_index": "1", "problem_version": "Text Only", "question": "q\nChoices:\nA:40", "image": "",
         "answer": "A", "question_type": "multi-choice", "query_cot": "no"},
        "q\nChoices:\nA:40", "A", "choice", None,
    ),
    (
        "mathverse",
        {"problem_version": "Vision Only", "question": "", "image": "images/1.png", "answer": "118\u63b3T",
         "question_type": "free-form", "query_cot": "According to the question shown in the image"},
        "According to the question shown in the image", "118°T", "math", "images/1.png",
    ),
    (
        "mathverse",
        {"problem_version": "Text Only", "question": "q", "image": "", "answer": "090^\\circ T",
         "question_type": "multi-choice"},
        "q", "090^\\circ T", "math", None,
    ),
    (
        "wemath",
        {"ID": "2steps_17", "question": "q", "option": "A. 1; B. 2 ;C. 3", "answer": "B", "key": "2steps_1",
         "image_path": "2steps/image/17-1.png", "knowledge concept": "c", "question number": 17},
        "q\nA. 1; B. 2 ;C. 3", "B", "choice", "2steps/image/17-1.png",
    ),
    (
        "dynamath",
        {"question": "Equal? Choices: (A) Yes (B) No", "answer": "B", "image": "image/image4.png",
         "answer_type": "multiple choice", "subject": "statistics", "level": "high school"},
        "Equal? Choices: (A) Yes (B) No", "B", "choice", "image/image4.png",
    ),
    (
        "dynamath",
        {"id": "4", "question": "Which edge?", "ground_truth": "AG", "image": "image/image5.png", "decoded_image": b"x",
         "answer_type": "text", "subject": "graph theory", "knowledge_level": "undergraduate"},
        "Which edge?", "AG", "math", b"x",
    ),
    (
        "logicvista",
        {"imagename": "v1_2.png", "question": "Which two?", "answer": "B, D", "reasoning": "r", "skill": ["inductive"]},
        "Which two?", "B, D", "choice", "v1_2.png",
    ),
    (
        "logicvista",
        {"imagename": "v1_20.png", "question": "How many?", "answer": "3", "skill": ["numerical"]},
        "How many?", "3", "math", "v1_20.png",
    ),
    (
        "pope",
        {"question_id": 1, "image": "COCO_1.jpg", "text": "Is there a cat in the image?", "label": "no"},
        "Is there a cat in the image?", "No", "verdict", "COCO_1.jpg",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "row", "question", "answer", "kind", "image"), PUBLISHED_ROWS)
def test_published_sets(layout: Layout, row: dict[str, Any], question: str, answer: str, kind: str, image: Any) -> None:
    assert detect_layout([row], AUTO) == layout
    problem = read(row)
    assert (problem.question, problem.answer, problem.kind) == (question, answer, kind)
    assert problem.images == (() if image is None else (image,))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answer": "C"}, "answer 'C' is none of the 2 options"),
        ({"answer": None}, "answer '' is none of"),
        ({"choices": "A or B"}, "the options are not a list of at most 26"),
        ({"choices": ["x"] * 27}, "not a list of at most 26"),
        ({"question": ""}, "no question"),
    ],
)
def test_unusable_rows_of_published_sets_say_why(change: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=why):
        read(PUBLISHED_ROWS[1][1] | change, "mathvista")
    with pytest.raises(RowError, match="empty answer"):
        read(PUBLISHED_ROWS[-2][1] | {"answer": ""}, "logicvista")


def test_named_columns_are_taken_literally_in_a_published_set_too() -> None:
    row = PUBLISHED_ROWS[-1][1]
    columns = ColumnsConfig(question="text", answer="label")
    assert detect_layout([row], columns) == "columns"
    assert read(row, columns=columns, kind="exact").answer == "no"


@pytest.mark.parametrize(
    ("row", "ranges", "within"),
    [
        ({"p": 0.5}, {"p": (0.0, 1.0)}, True),
        ({"p": 1.0}, {"p": (0.0, 1.0)}, True),
        ({"p": 1.0}, {"p": (None, 0.99)}, False),
        ({"p": 0}, {"p": (0.01, None)}, False),
        ({"p": 5}, {"p": (None, None)}, True),
        ({"p": 5}, {}, True),
        ({"p": 0.5, "q": 2}, {"p": (0.0, 1.0), "q": (3.0, None)}, False),
        ({"p": None}, {"p": (None, None)}, False),
        ({"p": float("nan")}, {"p": (None, None)}, False),
        ({"p": "0.5"}, {"p": (None, None)}, False),
        ({}, {"p": (None, None)}, False),
    ],
)
def test_ranges(row: dict[str, Any], ranges: dict[str, Any], within: bool) -> None:
    assert within_ranges(row, ranges) == within


@pytest.mark.parametrize(
    ("rows", "columns", "layout"),
    [
        ([{"question": "q", "answer": "2"}], AUTO, "columns"),
        ([{"question": "q", "answer": ""}, {"question": "q", "answer": "x\n#### 2"}], AUTO, "gsm8k"),
        ([{"question": "q", "answer": "A heading\n#### Steps\nfirst"}], AUTO, "columns"),
        ([{"message": "[]", "answer": "2"}], AUTO, "message"),
        ([{"message": "hi", "text": "q", "answer": "2"}], ColumnsConfig(question="text"), "columns"),
        ([{"message": "[]", "gold": "2"}], ColumnsConfig(answer="gold"), "message"),
        ([{"q": "q", "gt_answer": "2"}], ColumnsConfig(question="q"), "columns"),
        ([{"q": "q", "a": "x #### 2"}], ColumnsConfig(question="q", answer="a"), "gsm8k"),
    ],
)
def test_layouts_are_detected(rows: list[dict[str, Any]], columns: ColumnsConfig, layout: Layout) -> None:
    assert detect_layout(rows, columns) == layout


@pytest.mark.parametrize(
    ("columns", "layout", "message"),
    [
        (ColumnsConfig(question="qestion"), "columns", "'qestion'; there are: question, no; did you mean 'question'?"),
        (ColumnsConfig(id="zzz"), "columns", "'zzz'; there are: question, no"),
        (
            AUTO,
            "columns",
            "for the answer (answer, gold, label, target, final_answer, gt_answer, answerkey, answer_key, "
            "correct_answer, correct, correct_option, gold_answer, reference_answer, expected_answer, ground_truth, "
            "answers, final_ans, solution); there are: question, no; name it with data.columns.answer",
        ),
        (
            AUTO,
            "message",
            "for the question (message, conversations, messages); there are: question, no; name it with "
            "data.columns.question",
        ),
    ],
)
def test_missing_columns_are_one_clear_line(columns: ColumnsConfig, layout: Layout, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_columns([{"question": "q"}, {"no": True}], layout, columns, "FILE")
    assert str(caught.value) == f"FILE: no column {message}"


KEYS = st.sampled_from(
    ["question", "prompt", "message", "answer", "solution", "choices", "image", "role", "content", "type", "text",
     "user", "reward_model", "extra_info", "ground_truth", "gt_answer", "text", "label", "option", "imagename",
     "question_type", "answer_type", "precision", "unit", "query", "query_cot", "bytes", "path", "decoded_image",
     "conversations", "from", "value", "base64", "url", "Body", "A", "B", "options", "answerKey", "stem", "A. x\nB. y",
     "['x', 'y']", "Put the answer in \\boxed{}.", "\\textbf{(B)}\\ 3", "option1", "option2"]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | KEYS
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=6), max_leaves=20)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8) | VALUES)
def test_no_row_can_crash_a_layout(row: Any) -> None:
    for layout in get_args(Layout):
        try:
            problem = read_row(row, layout, AUTO, "auto", "test")
        except RowError:
            continue
        assert problem.question.strip()
        assert problem.answer.strip()
        problem.question.encode()
        problem.answer.encode()


def test_the_configuration_knows_every_layout() -> None:
    allowed = get_args(DataConfig.model_fields["layout"].annotation)
    assert set(allowed) == {"auto", *get_args(Layout)}
    assert set(PUBLISHED) < set(allowed)


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 30_000, "{" * 300_000, "}" * 300_000, " " * 300_000 + "x", "\\" * 300_001]
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    started = time.process_time()
    marked = {"problem": "<image>" * 30_000 + " <image>" * 30_000 + text, "image": "a", "answer": "2"}
    for row in ({"problem": text, "solution": text}, {"problem": "q", "answer": text}, marked):
        try:
            read(row, "columns")
        except RowError:
            continue
    assert time.process_time() - started < 2
