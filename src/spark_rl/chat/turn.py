"""The user's turn as text (A.2, Fig. 5): ``chat.policy`` with the question in it, or the prompt of a recycled problem.

Questions and responses are untrusted: special tokens in them are broken by one space after their first character, and
markers of images become places where the question has one for each image. Pure text: no tokenizer, no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spark_rl.config import ChatConfig
from spark_rl.data.values import MARKER
from spark_rl.errors import ChatError
from spark_rl.problem import Problem

_FIELD = re.compile(r"\{\{|\}\}|\{question\}|[{}]")
PROBE = "spark-rl probe"
"""A question that nobody asks, to see whether a template shows it."""
_PLACE = "\ufdd0"
"""Stands for a marker while the text around it is made harmless: a code point that is no character."""


def policy_prompt(problem: Problem, config: ChatConfig) -> str:
    """The user turn: ``few_shot`` and ``policy`` with the question filled in, or a recycled problem's own prompt.

    Filled in a single pass: braces in the question stay what they are. Before a recycled prompt goes the ``few_shot``
    of its task, if there is one; a policy problem that brings its own prompt (a benchmark's) gets none.

    Raises:
        ChatError: ``config.policy`` has a brace that is neither ``{question}`` nor doubled.
    """
    few_shot = config.few_shot_of(problem.task)
    if problem.prompt is not None:
        return problem.prompt if problem.task == "policy" else few_shot + problem.prompt

    def value(found: re.Match[str]) -> str:
        if found[0] in {"{", "}"}:
            near = config.policy[max(0, found.start() - 12) : found.end() + 12]
            raise ChatError(
                f"chat.policy has a lone {found[0]!r} near {near!r}; write {{{{ and }}}} for literal braces"
            )
        return problem.question if found[0] == "{question}" else found[0][0]

    return few_shot + _FIELD.sub(value, config.policy)


def check_policy(config: ChatConfig) -> None:
    """Raises :class:`ChatError` if the user turn can't be made from ``config.policy``."""
    if PROBE not in policy_prompt(Problem(id="probe", question=PROBE, answer=""), config):
        raise ChatError("chat.policy must contain {question} with single braces, or the model never sees the problem")


def user_turn(problem: Problem, config: ChatConfig, special: re.Pattern[str] | None) -> list[str]:
    """The texts of the user turn, with an image between each two; ``special`` is broken wherever it is untrusted."""

    def harmless(text: str) -> str:
        return broken(_with_places(text, len(problem.images)), special)

    asked = replace(
        problem,
        question=harmless(problem.question),
        prompt=None if problem.prompt is None else harmless(problem.prompt),
    )
    turn = policy_prompt(asked, config).split(_PLACE)
    return [""] * len(problem.images) + turn if len(turn) == 1 else turn


def chat_messages(turn: Sequence[str], system: str | None, *, parts: bool = False) -> list[dict[str, Any]]:
    """The chat: a system message unless it is empty or ``None``, a user turn of texts with an image between each two.

    ``parts`` writes text without images as a list of one part too.
    """
    opening = [] if not system else [{"role": "system", "content": content((system,), parts=parts)}]
    return [*opening, {"role": "user", "content": content(turn, parts=parts)}]


def content(texts: Sequence[str], *, parts: bool = False) -> str | list[dict[str, Any]]:
    """What a message holds: texts with an image between each two; ``parts`` as in :func:`chat_messages`."""
    if len(texts) == 1 and not parts:
        return texts[0]
    pieces = [{"type": "text", "text": texts[0]}]
    for text in texts[1:]:
        pieces += [{"type": "image"}, {"type": "text", "text": text}]
    return [piece for piece in pieces if len(texts) == 1 or piece.get("text") != ""]


def broken(text: str, special: re.Pattern[str] | None) -> str:
    """Untrusted text, every ``special`` token in it broken by one space after its first character."""
    while special is not None and special.search(text):
        text = special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


def _with_places(text: str, images: int) -> str:
    """The text with a place for each image where it has markers for all of them, otherwise without any marker."""
    text = text.replace(_PLACE, "")
    if not images or MARKER not in text:
        return text
    first, *others = text.split(MARKER)
    enough = len(others) >= images
    return first + "".join((_PLACE if enough and i < images else " ") + other for i, other in enumerate(others))
