"""What goes back, in OpenAI's format: completions, pieces of a stream, log-probabilities, traces."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spark_rl.inference import Trace
from spark_rl.problem import Completion, Place

LEAST_LOGPROB = -9999.0
"""Written for a token that could not be: JSON has no infinity."""
DONE = b"data: [DONE]\n\n"
"""The end of a stream."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply's name and time."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, int], **more: Any) -> dict[str, Any]:
        """A chat completion."""
        return {
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": choices, "usage": usage, **more,
        }  # fmt: skip

    def piece(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """A piece of a stream, as an event."""
        return event({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices, **more,
        })  # fmt: skip


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n\n"


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Tokens that were read and written."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def choice(index: int, text: str, finish: str, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """One completion of several."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def delta(
    index: int, text: str | None, finish: str | None = None, logprobs: dict[str, Any] | None = None, *,
    first: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What a piece of a stream adds to one completion."""
    added: dict[str, Any] = {"role": "assistant", "content": text or ""} if first else {}
    if text and not first:
        added["content"] = text
    return {"index": index, "delta": added, "logprobs": logprobs, "finish_reason": finish}


def logprobs_of(
    token_ids: Sequence[int], logprobs: Sequence[float], top: Sequence[Place], most: int, piece: Callable[[int], str]
) -> dict[str, Any]:
    """The ``logprobs`` of a choice; ``most`` likely tokens at each place."""
    content = []
    for place, (token, logprob) in enumerate(zip(token_ids, logprobs, strict=True)):
        likely: list[tuple[str, float]] = []
        if most:
            sampled, *others = top[place]
            likely = others if len(others) >= most else sorted([sampled, *others], key=lambda one: -one[1])[:most]
        content.append({**_token(piece(token), logprob), "top_logprobs": [_token(*one) for one in likely]})
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    finite = logprob if math.isfinite(logprob) else LEAST_LOGPROB
    return {"token": text, "logprob": max(finite, LEAST_LOGPROB), "bytes": list(text.encode("utf-8", "replace"))}


def tokens_of(completions: Sequence[Completion]) -> int:
    """Tokens of all of them."""
    return sum(completion.tokens for completion in completions)


def trace_of(trace: Trace, candidates: int, *, whole: bool) -> dict[str, Any]:
    """The ``spark`` of a reply.

    Args:
        trace: every round; the first ``candidates`` are answers that one was chosen from, the others reflections.
        candidates: at least 1.
        whole: whether the rounds come along.
    """
    final = trace.rounds.index(trace.final) if trace.chosen is None else trace.chosen
    facts: dict[str, Any] = {
        "answer": trace.answer, "accepted": trace.final.accepted, "probability": trace.final.probability,
        "final_round": final,
    }  # fmt: skip
    if whole:
        facts["rounds"] = rounds_of(trace, candidates)
    return facts


def rounds_of(trace: Trace, candidates: int) -> list[dict[str, Any]]:
    """Every round of a trace, as a client reads it. Arguments as for :func:`trace_of`."""
    roles = ("answer" if i < candidates else "reflection" for i in range(len(trace.rounds)))
    return [{"role": role, **asdict(one)} for role, one in zip(roles, trace.rounds, strict=True)]
