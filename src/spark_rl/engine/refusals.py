"""What a server's refusal is about: the moment, one request, one parameter, or whoever asks. Pure functions.

The status decides first: 408, 425, 429 and 5xx pass by themselves, 400, 413 and 422 refuse what a request holds.
Servers are not strict about it, so words decide where they have to: a 500 that says "context size exceeded" will not
pass, a 403 that says "flagged by moderation" is not about the key, and a reply of status 200 may hold an error with a
status of its own, or with words only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OPTIONAL: Mapping[str, str] = {
    "logprobs": "log-probabilities are unknown",
    "top_logprobs": "a verdict's probability is told from its own token alone",
    "seed": "sampling does not repeat",
    "top_p": "the server's own truncation holds",
    "temperature": "the server's own temperature holds",
    "repetition_penalty": "tokens may repeat without a penalty",
    "stop": "responses are cut here, and cost more tokens",
    "n": "each response is a request",
}
"""What a request can do without if the server refuses it, and what follows."""

_NAMES: Mapping[str, str] = {
    "logprobs": r"(?<!top[ _-])log[ _-]?prob(?:abilitie)?s?",
    "top_logprobs": r"top[ _-]log[ _-]?prob(?:abilitie)?s?",
    "top_p": r"top[_-]p",
    "n": r"(?:['\"`]n['\"`]|(?<![\w'\\])n(?![\w'])|completion choices?|multiple (?:choices|completions))",
}
"""What servers call them, where it is not the name alone."""
_PASSING = frozenset((408, 425, 429))
_OF_ITSELF = frozenset((400, 413, 422))
_MAY_BE_OWN = frozenset((403, 451, 500))
"""Statuses that mean something else, unless the words speak of what the request holds."""
_BUSY = re.compile(
    r"overload|rate.?limit|too many requests|try (?:it )?again|temporar|unavailable|time(?:d)?[ -]?out|capacity|busy",
    re.IGNORECASE,
)
_OWN = re.compile(
    r"context[ _-]?(?:length|size|window)|(?:maximum|max|exceeds?(?: the)?(?: available)?) context"
    r"|(?:prompt|input|request|message|sequence)s?\b[^.;]{0,30}\b(?:too (?:long|large|big)|exceeds?|longer than)"
    r"|content[ _-]?(?:filter|management|policy|moderation)|moderation|flagged|safety system|usage polic"
    r"|image\b[^.;]{0,40}\b(?:too (?:large|small|big|many)|invalid|unsupported|not supported|unknown format|corrupt)"
    r"|(?:load|decode|identify|read|open|process|invalid|unsupported|corrupt(?:ed)?)\b[^.;]{0,20}\bimage",
    re.IGNORECASE,
)
_REFUSING = (
    r"(?:not (?:be )?(?:supported|permitted|allowed|available|implemented|accepted|enabled)|n[o']t support|unsupported"
    r"|unknown|unrecogni[sz]ed|unexpected|invalid|extra|must|only|forbidden|disabled|cannot|can't|reject|refuse"
    r"|deprecated|at most|less than|greater than|no longer|no support|without)"
)
_APART = r"[^\n]{0,60}?"
_GAVE_UP = frozenset(("error", "abort"))
"""Reasons to finish that are the server's failure and not the model's answer."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A reply that is an error. ``Failure("HTTP 429", "slow down", 429, passes=True)``"""

    what: str
    words: str
    """The server's own."""
    status: int
    """The HTTP status, or the one that an error in the reply names."""
    own: bool = False
    """It refuses what the request holds, and may well answer the next one."""
    passes: bool = False
    """It may pass by itself."""
    once: bool = False
    """It is worth one more try only."""


def of_status(status: int, content: object) -> Failure:
    """What a reply of any other status than 200 says; ``content`` is its JSON, or its text if it has none."""
    return _judged(f"HTTP {status}", words_of(content), status)


def of_reply(reply: Mapping[str, Any]) -> Failure | None:
    """The error that a reply of status 200 holds, or ``None``."""
    if reply.get("error") or reply.get("object") == "error":
        return _error("HTTP 200 with an error", reply)
    choices = reply.get("choices")
    if "choices" in reply and not choices:
        return Failure("the reply holds no choices", words_of(reply), 200, own=True)
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and str(choice.get("finish_reason")) in _GAVE_UP:
            told = "a response that the server gave up"
            if choice.get("error"):
                return _error(told, choice)
            return Failure(told, f"finish_reason {choice['finish_reason']}", 500, own=True, passes=True, once=True)
    return None


def parameters(words: str) -> Iterator[str]:
    """The names in :data:`OPTIONAL` that words refuse. A word is no refusal by itself: servers repeat prompts."""
    for name in OPTIONAL:
        named = rf"(?<![A-Za-z]){_NAMES.get(name, name)}(?![A-Za-z])"
        if re.search(rf"(?i){_REFUSING}{_APART}{named}|{named}{_APART}{_REFUSING}|\(param: {name}\)", words):
            yield name


def wants_other_limit(words: str) -> bool:
    """Whether words refuse ``max_tokens`` itself, for which newer servers have another name."""
    if "max_completion_tokens" in words:
        return True
    refusing = r"(?i)(?:un(?:supported|known|recogni[sz]ed|expected)|extra)"
    return bool(re.search(rf"{refusing}{_APART}\bmax_tokens|\bmax_tokens\b{_APART}not (?:supported|permitted)", words))


def words_of(content: object) -> str:
    """A server's own words for what went wrong, with its code and the parameter it speaks of."""
    found = content.get("error") or content if isinstance(content, dict) else content
    if not isinstance(found, dict):
        return _text(found)
    words = next((found[name] for name in ("message", "detail") if found.get(name)), found)
    text = _text(words)
    code, parameter = found.get("code"), found.get("param")
    text += f" ({code})" if isinstance(code, str) and code not in text else ""
    return text + (f" (param: {parameter})" if isinstance(parameter, str) else "")


def _error(what: str, holder: Mapping[str, Any]) -> Failure:
    """The error in a reply, whose status is its code, or is told from its words."""
    words, found = words_of(holder), holder.get("error")
    told = found if isinstance(found, dict) else holder
    for name in ("code", "status", "status_code", "http_status"):
        code = str(told.get(name))
        if re.fullmatch("[45][0-9][0-9]", code):
            return _judged(f"{what} ({code})" if f"({code})" not in words else what, words, int(code))
    return _judged(what, words, 503 if _BUSY.search(words) and not _OWN.search(words) else 400)


def _judged(what: str, words: str, status: int) -> Failure:
    if "insufficient_quota" in words:
        return Failure(what, words, status)
    own = status in _OF_ITSELF or (status in _MAY_BE_OWN and _OWN.search(words) is not None)
    own = own or (status in {500, 501} and "support" in words and next(parameters(words), None) is not None)
    passes = status in _PASSING or (status >= 500 and not own)
    return Failure(what, words, status, own or (status == 429 and _OWN.search(words) is not None), passes)


def _text(words: object) -> str:
    try:
        return words if isinstance(words, str) else json.dumps(words)
    except RecursionError:
        return "something nested beyond reading"
