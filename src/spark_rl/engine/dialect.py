"""The protocol of OpenAI-compatible chat completions as pure functions: what goes out, and what a reply says."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from spark_rl.config import ImagesConfig
from spark_rl.data.decode import ImageError, encode, fit, media_type, quiet
from spark_rl.data.images import open_image, read_image, stored_image
from spark_rl.engine.base import Sampling
from spark_rl.errors import UserError
from spark_rl.problem import Completion, Place

AS_IT_IS = 2_000_000
"""Encoded images of at most this many bytes are sent as they are, if nothing but the picture is in them."""

_HARMLESS = frozenset((
    "adobe", "adobe_transform", "chromaticity", "dpi", "gamma", "icc_profile", "jfif", "jfif_density", "jfif_unit",
    "jfif_version", "progression", "progressive", "srgb",
))  # fmt: skip
"""What Pillow may find in a file beside the picture that neither turns it nor tells of where it was made."""
_MOST_NATS = 1e6
"""Servers write -9999 for a token that could not be; nothing real is near this."""


class ReplyError(ValueError):
    """Why a reply can't be read, as a phrase."""


def body(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    without: Collection[str] = (),
    limit: str = "max_tokens",
    template_arguments: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A chat-completions request; ``without`` is left out, ``limit`` is what the token limit is called."""
    request: dict[str, Any] = {
        "model": model, "messages": list(messages), "temperature": sampling.temperature,
        limit: sampling.max_new_tokens, "top_p": 1, "logprobs": True,
        "seed": sampling.seed % 2**31,  # servers in C hold it in 32 bits
    }  # fmt: skip
    if sampling.top and "logprobs" not in without:
        request["top_logprobs"] = sampling.top
    if sampling.n > 1:
        request["n"] = sampling.n
    if sampling.repetition_penalty != 1:  # an extension of the servers that people run themselves
        request["repetition_penalty"] = sampling.repetition_penalty
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if template_arguments:
        request["chat_template_kwargs"] = dict(template_arguments)
    return {name: value for name, value in request.items() if name not in without}


def completions(reply: Mapping[str, Any], stop: Sequence[str], *, top: bool = False) -> list[Completion]:
    """What a reply holds: one completion a choice, at least one; with ``top``, :attr:`Completion.top` as far as it
    tells.

    The reply counts tokens for all its choices together; they are shared out by the log-probabilities of each, or by
    the length of the texts. A server that counts nothing and gives no log-probabilities leaves 0. What a content filter
    withheld is ``refused``, the whole response: what it left is not what the model said.

    Raises:
        ReplyError: it is no reply to a chat.
    """
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise ReplyError("the reply holds no choices, is it a server of chat completions?")
    texts = [_text(choice) for choice in choices]
    logprobs = [_logprobs(choice) for choice in choices]
    weights = [float(len(each)) for each in logprobs] if all(logprobs) else [float(len(text)) for text in texts]
    total = counted(reply, "completion_tokens")
    counts = [len(each) for each in logprobs] if total is None else shares(total, weights)
    return [
        refused("the content filter of the server withheld the response")
        if choice.get("finish_reason") == "content_filter"
        else Completion(
            text[: min((text.index(s) for s in stop if s in text), default=len(text))], (), each,
            "length" if choice.get("finish_reason") == "length" else "stop", count,
            top=places(_entries(choice) or ()) if top else (),
        )
        for choice, text, each, count in zip(choices, texts, logprobs, counts, strict=True)
    ]  # fmt: skip


def counted(reply: Mapping[str, Any], name: str) -> int | None:
    """One of the numbers in the ``usage`` of a reply; ``None`` where the server does not say."""
    usage = reply.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and 0 <= count < 2**53 else None


def refused(why: str) -> Completion:
    """What stands for a response that a server refuses to give."""
    return Completion("", (), (), "refused", 0, why)


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to the total; even shares where all weights are 0."""
    everything = sum(weights)
    parts = [total * weight / everything if everything else total / len(weights) for weight in weights]
    whole = [math.floor(part) for part in parts]
    for place in sorted(range(len(parts)), key=lambda i: whole[i] - parts[i])[: total - sum(whole)]:
        whole[place] += 1
    return whole


def data_url(
    image: object, settings: ImagesConfig, min_pixels: int | None = None, max_pixels: int | None = None
) -> str:
    """The image as a ``data:`` address: small PNG and JPEG files as they are if they hold nothing but the picture and
    need no other size, everything else as a PNG of what :func:`open_image` makes of it. Never a path.

    Raises:
        UserError: it can't be read.
    """
    try:
        opened = open_image(image, settings)
        picture = fit(opened, min_pixels, max_pixels)
        data = _plain(image) if picture is opened else None
        if data is None:
            data = encode(picture)
    except ImageError as error:
        raise UserError(f"an image can't be sent: {error}") from None
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode('ascii')}"


def _plain(image: object) -> bytes | None:
    """The encoded bytes of an image that was opened, if they can be sent as they are."""
    if isinstance(image, Image.Image):
        return None
    stored = stored_image(read_image(image), Path())
    if isinstance(stored, str) and stored[:5].lower() == "data:":
        stored = base64.b64decode(stored.partition(",")[2])
    data = stored if isinstance(stored, bytes) else Path(stored).read_bytes()
    if len(data) > AS_IT_IS or media_type(data) not in {"image/png", "image/jpeg"}:
        return None
    with quiet(), Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as found:
        found.load()  # a PNG may say more behind the picture
        plain = found.mode in {"RGB", "L"} and _HARMLESS.issuperset(found.info) and not found.getexif()
    return data if plain else None


def _text(choice: Mapping[str, Any]) -> str:
    """The text of a choice; none where the server withheld it or the model never got to its answer."""
    message = choice.get("message")
    if isinstance(message, dict):
        content = message.get("content")
        if content is None:
            said = message.get("refusal")  # the model's own words, apart from an answer
            return said if isinstance(said, str) else ""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if isinstance(content, str):
            return content
    raise ReplyError("a choice of the reply holds no message, is it a server of chat completions?")


def _entries(choice: Mapping[str, Any]) -> list[Any] | None:
    """What a server reports of each token; ``None`` if it does not."""
    reported = choice.get("logprobs")
    entries = reported.get("content") if isinstance(reported, dict) else None
    return entries if isinstance(entries, list) else None


def places(entries: Sequence[Any], decode: Callable[[int], str] | None = None) -> tuple[Place, ...]:
    """:attr:`Completion.top` from what a server reports of each token; empty if one of them is no token with a number.

    ``decode`` makes text of a token's id, for servers that write ``token_id:91``.
    """
    found = []
    for entry in entries:
        sampled = _piece(entry, decode)
        if sampled is None:
            return ()
        others = entry.get("top_logprobs")
        likely = [_piece(other, decode) for other in others] if isinstance(others, list) else []
        found.append((sampled, *(piece for piece in likely if piece is not None and piece[0] != sampled[0])))
    return tuple(found)


def _piece(entry: object, decode: Callable[[int], str] | None) -> tuple[str, float] | None:
    """(text, log-probability) of a token; none where the probability is 0 but for rounding."""
    if not isinstance(entry, dict):
        return None
    text, value = entry.get("token"), entry.get("logprob")
    if not isinstance(text, str) or not isinstance(value, int | float) or not abs(value) < _MOST_NATS:
        return None
    if decode is not None and (number := text.removeprefix("token_id:")) != text and number.isdecimal():
        text = decode(int(number))
    return text, float(value)


def _logprobs(choice: Mapping[str, Any]) -> tuple[float, ...]:
    """(T,) log-probabilities of the tokens as the server reports them; empty if it does not, or not all."""
    entries = _entries(choice)
    if entries is None:
        return ()
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]
    numbers = [float(value) for value in values if isinstance(value, int | float) and abs(value) < _MOST_NATS]
    return tuple(numbers) if len(numbers) == len(values) else ()
