r"""Row layouts on small hand-written rows in the documented schemas."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.config import ANSWER_FORMAT, ColumnsConfig
from spark_rl.data.layouts import DataError, Layout, RowError, check_columns, detect_layout, read_row, strip_suffix
from spark_rl.problem import Problem

AUTO = ColumnsConfig()
EVALUATION_SUFFIX = ANSWER_FORMAT.format(question="")
TRAINING_SUFFIX = EVALUATION_SUFFIX.replace("'\\boxed{}'.", "'\\boxed{}.'")


def read(
    row: dict[str, Any], layout: Layout | None = None, columns: ColumnsConfig = AUTO, kind: Any = "auto"
) -> Problem:
    return read_row(row, layout or detect_layout([row], columns), columns, kind, "test")


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
        ({"problem": "set", "final_answer": ["1", 2]}, "set", "1, 2"),
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
    assert (problem.question, problem.answer, problem.images) == ("What is x?", "$3$", ("/data/a.png",))


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
        (3, "D"),
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
    problem = read({"question": "1+1?", "choices": OPTIONS, "answer": gold, "subject": "x"})
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
        ({"choices": OPTIONS, "answer": 4}, r"answer 4 is not an index 0\.\.3"),
        ({"choices": OPTIONS, "answer": -1}, "answer -1 is not an index"),
        ({"choices": OPTIONS, "answer": True}, "answer 'True' is neither a letter nor"),
        ({"choices": OPTIONS, "answer": "E"}, "neither a letter nor one of the 4 options"),
        ({"choices": OPTIONS, "answer": "²"}, "neither a letter nor one of the 4 options"),
        ({"choices": OPTIONS, "answer": None}, "empty answer"),
        ({"choices": "A. 3; B. 2", "answer": "A"}, "the options are not a list"),
        ({"choices": ["x"] * 27, "answer": 0}, "27 options are more than there are letters"),
        ({"choices": [{"a": 1}], "answer": 0}, "the option is a dict"),
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


def test_leading_image_places_go_only_where_there_are_images() -> None:
    assert read({"question": "<image>\n<image>q <image>", "image": ["a", "b"], "answer": "2"}).question == "q <image>"
    assert read({"question": "<image>q", "answer": "2"}).question == "<image>q"


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
            "for the answer (answer, gold, label, target, final_answer, gt_answer, solution); there are: question, no; "
            "name it with data.columns.answer",
        ),
        (
            AUTO,
            "message",
            "for the question (message); there are: question, no; name it with data.columns.question",
        ),
    ],
)
def test_missing_columns_are_one_clear_line(columns: ColumnsConfig, layout: Layout, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_columns([{"question": "q"}, {"no": True}], layout, columns, "FILE")
    assert str(caught.value) == f"FILE: no column {message}"


KEYS = st.sampled_from(
    ["question", "prompt", "message", "answer", "solution", "choices", "image", "role", "content", "type", "text",
     "user", "reward_model", "extra_info", "ground_truth", "gt_answer"]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | KEYS
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=6), max_leaves=20)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8) | VALUES)
def test_no_row_can_crash_a_layout(row: Any) -> None:
    for layout in ("columns", "message", "gsm8k", "simplerl"):
        try:
            problem = read_row(row, layout, AUTO, "auto", "test")
        except RowError:
            continue
        assert problem.question.strip()
        assert problem.answer.strip()
        problem.question.encode()
        problem.answer.encode()


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 30_000, "{" * 300_000, "}" * 300_000, " " * 300_000 + "x", "\\" * 300_001]
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    started = time.process_time()
    for row in ({"problem": text, "solution": text}, {"problem": "q", "answer": text}):
        try:
            read(row, "columns")
        except RowError:
            continue
    assert time.process_time() - started < 2
