"""What requests may hold, checked: OpenAI's chat completions, and our own ``spark`` and ``/v1/judge``.

Everything is untrusted. Images are ``data:`` addresses only: neither a path of this machine nor an address on the web
is ever opened. What would change an answer and isn't done here is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from spark_rl.serve.errors import ApiError

MOST_SEED = 2**63
MOST_STOPS = 16
LEAST_TEMPERATURE = 1e-5
"""Below it a temperature is 0, as vLLM has it."""
MOST_MESSAGES = 1000

HARMLESS = frozenset((
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
))  # fmt: skip
"""Fields of OpenAI's that change no answer."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,), "top_k": (-1, 0), "min_p": (0,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "tools": ([],), "tool_choice": ("none", "auto"), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "skip_special_tokens": (True,),
}  # fmt: skip
"""Fields that are taken with the values that do nothing."""


MEMBERS = frozenset(("body", "str", "text", "image_url", "list"))
"""What pydantic puts into the place of a mistake beside the names of fields."""


def _encodable(text: str) -> str:
    """JSON may hold halves of characters, which no tokenizer takes and nothing can send on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a character (a lone surrogate)") from None
    return text


def _greedy(temperature: float) -> float:
    """Dividing logits by less than :data:`LEAST_TEMPERATURE` leaves no numbers; the likeliest token is meant."""
    return temperature if temperature >= LEAST_TEMPERATURE else 0.0


Temperature = Annotated[float, Field(ge=0, le=100), AfterValidator(_greedy)]
Text = Annotated[str, AfterValidator(_encodable)]
Stop = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_encodable)]


class _Loose(BaseModel):
    """An object of OpenAI's, which may hold more than is read here."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Strict(BaseModel):
    """An object of ours: a field that there is not is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextPart(_Loose):
    """Text of a message."""

    type: Literal["text"]
    text: Text


class ImageAddress(_Loose):
    """An image in place."""

    url: Annotated[str, Field(pattern=r"^[dD][aA][tT][aA]:")]
    """A ``data:`` address."""


class ImagePart(_Loose):
    """An image of a message."""

    type: Literal["image_url"]
    image_url: ImageAddress


class Message(_Loose):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]

    def texts(self) -> list[str]:
        """Its texts, with an image between each two."""
        if isinstance(self.content, str):
            return [self.content]
        texts = [""]
        for part in self.content:
            if isinstance(part, TextPart):
                texts[-1] += part.text
            else:
                texts.append("")
        return texts

    def images(self) -> list[str]:
        """Its images as ``data:`` addresses."""
        if isinstance(self.content, str):
            return []
        return [part.image_url.url for part in self.content if isinstance(part, ImagePart)]


class StreamOptions(_Loose):
    """Of a streamed reply."""

    include_usage: bool | None = None


class Spark(_Strict):
    """Answer, choose, judge and reflect (Eq. 9 to 11), instead of a plain completion."""

    rounds: int | None = Field(None, ge=0, le=16)
    """Judge-and-reflect rounds at most. Without it those of the model's run, or none where ``n`` answers are made."""
    n: int = Field(1, ge=1, le=64)
    """Answers that one is chosen from before it is judged and reflected on."""
    select: Literal["majority", "verdict", "weighted"] = "verdict"
    """How: what most agree on, what the model is surest of by its P(Yes), or what has most P(Yes) together."""
    trace: bool = False
    """Whether every round comes with the reply."""


class ChatRequest(BaseModel):
    """The body of ``/v1/chat/completions``."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    temperature: Temperature | None = None
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-MOST_SEED, lt=MOST_SEED)
    stop: Stop | list[Stop] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    """As vLLM names it."""
    spark: Spark | None = None

    @model_validator(mode="after")
    def _whole(self) -> ChatRequest:
        if isinstance(self.stop, list) and len(self.stop) > MOST_STOPS:
            raise ValueError(f"stop has {len(self.stop)} strings, more than {MOST_STOPS}")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens of a completion at most, where the request says."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end a completion."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def images(self) -> list[str]:
        """Every image, in order."""
        return [image for message in self.messages for image in message.images()]

    def check_own(self) -> None:
        """Raises :class:`ApiError` for a field that a model of ours can't obey, and for a chat that ends elsewhere than
        with a user."""
        self._check_extra()
        if self.messages[-1].role != "user":
            raise ApiError(400, "the last message must be the user's, for the model to answer it", param="messages")

    def _check_extra(self) -> None:
        for name, value in (self.model_extra or {}).items():
            if value is None or name in HARMLESS or value in NEUTRAL.get(name, ()):
                continue
            known = f" but as {NEUTRAL[name][0]!r}" if name in NEUTRAL else ""
            raise ApiError(400, f"{name[:60]} is not supported here{known}; leave it out", param=name[:60])

    def check_spark(self) -> None:
        """Raises :class:`ApiError` for what has no meaning where answers are judged and reflected on."""
        self._check_extra()
        for name in ("stop", "logprobs", "top_logprobs", "repetition_penalty"):
            if getattr(self, name):
                raise ApiError(400, f"{name} does not go with spark; leave it out", param=name)
        if (self.n or 1) > 1:
            raise ApiError(400, "n does not go with spark, which gives one answer; spark.n is how many it is chosen "
                           "from", param="n")  # fmt: skip
        if len(self.messages) != 1 or self.messages[0].role != "user":
            raise ApiError(400, "spark takes one message of the user's, the question; the run's own prompt stands "
                           "around it", param="messages")  # fmt: skip


class JudgeItem(_Strict):
    """A response to judge, or two of which one is to be chosen."""

    question: Text
    response: Text
    other: Text | None = None
    """A second response: both orders are asked."""
    images: list[Annotated[str, Field(pattern=r"^[dD][aA][tT][aA]:")]] = Field(default_factory=list, max_length=64)


class JudgeRequest(_Strict):
    """The body of ``/v1/judge``: one item in place, or a list of them."""

    model: str | None = None
    question: Text | None = None
    response: Text | None = None
    other: Text | None = None
    images: list[Annotated[str, Field(pattern=r"^[dD][aA][tT][aA]:")]] = Field(default_factory=list, max_length=64)
    items: list[JudgeItem] | None = Field(None, min_length=1, max_length=256)
    judgements: int = Field(1, ge=1, le=64)
    """Of each response, whose P(Yes) are averaged."""
    temperature: Temperature | None = None
    seed: int | None = Field(None, ge=-MOST_SEED, lt=MOST_SEED)
    max_tokens: int | None = Field(None, ge=1, lt=2**31)

    @model_validator(mode="after")
    def _one_of_both(self) -> JudgeRequest:
        single = (self.question, self.response, self.other)
        if self.items is not None and (any(text is not None for text in single) or self.images):
            raise ValueError("give items, or one question and response, not both")
        if self.items is None and (self.question is None or self.response is None):
            raise ValueError("give question and response, or items with both in each")
        return self

    def asked(self) -> list[JudgeItem]:
        """The items."""
        if self.items is not None:
            return self.items
        assert self.question is not None
        assert self.response is not None
        return [JudgeItem(question=self.question, response=self.response, other=self.other, images=self.images)]


def first_mistake(errors: Sequence[Any]) -> ApiError:
    """The first mistake of a body, from pydantic's list, in one line that quotes nothing of it."""
    # of a union, the member that fits furthest says what is wrong inside of it
    first = max((e for e in errors if e["loc"][:2] == errors[0]["loc"][:2]), key=lambda e: len(e["loc"]))
    if first["type"] == "json_invalid" or (tuple(first["loc"]) == ("body",) and first["type"] != "value_error"):
        return ApiError(400, "the body is no JSON object; send one, with Content-Type: application/json")
    # pydantic's location also names the member of a union that was tried
    parts = [str(part)[:60] for part in first["loc"]]
    place = [part for part in parts if part.isdecimal() or (part.isidentifier() and part not in MEMBERS)]
    message = str(first["msg"]).removeprefix("Value error, ")
    if "pattern" in message:
        message = "images are data: addresses (data:image/png;base64,...); nothing is fetched, and no file is opened"
    where = ".".join(place)
    return ApiError(400, f"{where}: {message}" if where else message, param=where or None)
