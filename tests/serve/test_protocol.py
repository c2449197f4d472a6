"""What requests may hold: each mistake is one line that names its place, and quotes nothing that steers a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from spark_rl.serve.errors import ApiError
from spark_rl.serve.protocol import ChatRequest, JudgeRequest, first_mistake

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "1+1?"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def told(kind: type[ChatRequest | JudgeRequest], body: Any) -> str:
    """What a client is told of a body."""
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in found.value.errors()]
    error = first_mistake(errors)
    assert error.status == 400
    assert error.body()["error"]["type"] == "invalid_request_error"
    return error.message


def content(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "messages: Field required"),
        ([], "the body is no JSON object"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role: Input should be 'system'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (ASKED | {"n": 0}, "n: Input should be greater than or equal to 1"),
        (ASKED | {"n": 10**9}, "n: Input should be less than or equal to 128"),
        (ASKED | {"temperature": -1}, "temperature: Input should be greater than or equal to 0"),
        (ASKED | {"temperature": float("nan")}, "temperature: Input should be a finite number"),
        (ASKED | {"seed": 2**64}, "seed: Input should be less than"),
        (ASKED | {"stop": ["x"] * 17}, "stop has 17 strings, more than 16"),
        (ASKED | {"stop": ""}, "stop: String should have at least 1 character"),
        (ASKED | {"top_logprobs": 2}, "top_logprobs needs logprobs=true"),
        (ASKED | {"spark": {"rouds": 1}}, "spark.rouds: Extra inputs are not permitted"),
        (ASKED | {"spark": {"select": "luck"}}, "spark.select: Input should be 'majority'"),
        (content({"type": "image_url", "image_url": {"url": "http://a/b.png"}}), "images are data: addresses"),
        (content({"type": "image_url", "image_url": {"url": "/etc/passwd"}}), "images are data: addresses"),
        (content({"type": "input_audio"}), "Input tag 'input_audio'"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
    ],
)
def test_a_mistake_in_a_chat_is_named(body: Any, said: str) -> None:
    assert said in told(ChatRequest, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "give question and response, or items with both in each"),
        ({"question": "x"}, "give question and response"),
        ({"items": []}, "items: List should have at least 1 item"),
        ({"items": [{"question": "q", "response": "r"}], "question": "q"}, "not both"),
        ({"question": "q", "response": "r", "images": ["file:///etc/passwd"]}, "images are data: addresses"),
        ({"question": "q", "response": "r", "reply": 1}, "reply: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_in_what_is_to_be_judged_is_named(body: Any, said: str) -> None:
    assert said in told(JudgeRequest, body)


@pytest.mark.parametrize(
    "more",
    [{"top_p": 1}, {"top_p": None}, {"user": "me"}, {"tools": []}, {"presence_penalty": 0.0}, {"metadata": {"a": "b"}},
     {"response_format": {"type": "text"}}],
)  # fmt: skip
def test_what_does_nothing_is_taken(more: dict[str, Any]) -> None:
    ChatRequest.model_validate(ASKED | more).check_own()


@pytest.mark.parametrize(
    "more", [{"top_p": 0.9}, {"tools": [{}]}, {"logit_bias": {"1": 5}}, {"temprature": 1}, {"response_format": {}}]
)
def test_what_would_be_ignored_is_refused_by_name(more: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=f"^{next(iter(more))} is not supported here"):
        ChatRequest.model_validate(ASKED | more).check_own()


def test_a_chat_ends_with_its_user() -> None:
    chat = ChatRequest.model_validate({"messages": [*ASKED["messages"], {"role": "assistant", "content": "2"}]})
    with pytest.raises(ApiError, match="the last message must be the user's"):
        chat.check_own()


def test_texts_stand_around_their_images() -> None:
    parts = [{"type": "text", "text": "a"}, IMAGE, IMAGE, {"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    message = ChatRequest.model_validate(content(*parts)).messages[0]
    assert message.texts() == ["a", "", "bc"]
    assert message.images() == [IMAGE["image_url"]["url"]] * 2  # type: ignore[index]


def test_an_error_steers_no_terminal() -> None:
    assert "\x1b" not in ApiError(400, "a\x1b[31m").message
