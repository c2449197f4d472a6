r"""What a recycled prompt shows of a response: o_ans or o_cot in Eq. 5 to 7.

Departures from the paper, which says nothing of it:

- Only rollouts that the verifier *compared* with the gold answer are candidates. ``no_answer``, ``unparsable`` and
  ``timeout`` earn no reward, but whether their answer is wrong was never established, so a label made from them would
  not be the verifier's. They are neither right nor wrong here.
- The status decides, not the reward: a right response that lost its reward for its length still deserves a Yes.
- The text is cleaned. What follows the graded box is dropped, every other box is opened (``\boxed{x}`` becomes ``x``)
  and chat control tokens are removed, so that a response can neither write a second verdict, nor close the turn it is
  shown in, nor add an image placeholder.
- A response without a box can be right or wrong where a user's functions grade in place of the verifier: code, free
  text. It has no answer that stands alone, so its problems are of the form ``cot`` whatever was drawn.
- What a model thinks between tags is reasoning, so ``cot`` shows it, without the tags, and it is no answer: a box in
  there is opened like any other that was not graded.
"""

from __future__ import annotations

import re
from typing import Literal

from spark_rl.config import THINKING, Thinking
from spark_rl.problem import Group, Rollout
from spark_rl.verify.boxed import extract_boxed, last_box_span, tags, thoughts

Form = Literal["answer", "cot"]
"""``answer``: the content of the graded box; ``cot``: the whole response up to and including that box."""

FORMS: tuple[Form, ...] = ("answer", "cot")

CONTROL_TOKEN = re.compile(
    # <|im_end|>, <|image_pad|>, <｜end▁of▁sentence｜>, but not the |x|<|y|>z of a proof
    r"<[|｜][A-Za-z0-9_ ▁:-]{2,}[|｜]>"
    r"|<(?:bos|eos|pad|unk|mask)>|</?s>|<</?SYS>>"
    r"|<(?:start|end)_of_[a-z]+>|</?(?:image|video|audio|img)(?:_[a-z]+)*>"
    r"|</?(?:think|thinking|reasoning|tools|tool_calls?|tool_responses?|function_calls?)>"
    r"|\[/?(?:INST|THINK|IMG(?:_[A-Z]+)*|TOOL_(?:CALLS|RESULTS|CONTENT)|AVAILABLE_TOOLS|SYSTEM_PROMPT|ARGS|CALL_ID"
    r"|gMASK)\]"
)
"""The control tokens of the chat templates in use, as text, whether tokenizers flag them special or not."""

MAX_PASSES = 16
"""Text in which tokens are nested deeper was made to slow us down: it loses every character that begins one."""

_TOKEN = re.compile(r"(?P<slashes>\\+)(?P<box>boxed\s*(?P<open>\{)?)?|[{}]")


def answered(group: Group, thinking: Thinking = THINKING) -> tuple[list[Rollout], list[Rollout]]:
    """The (right, wrong) rollouts of a group that can be shown, in sampling order."""
    usable = [r for r in group.rollouts if shown(r.text, "cot" if is_boxless(r) else "answer", thinking)]
    right = [rollout for rollout in usable if rollout.verdict.status == "correct"]
    wrong = [rollout for rollout in usable if rollout.verdict.status == "wrong"]
    return right, wrong


def is_boxless(rollout: Rollout) -> bool:
    """Whether a response has no answer apart from the rest of it, so that every form shows the whole of it."""
    return rollout.verdict.extracted is None and rollout.verdict.status in {"correct", "wrong"}


def shown(response: str, form: Form, thinking: Thinking = THINKING) -> str:
    r"""What a prompt shows of a response.

    ``I say \boxed{3}, no: \boxed{4}. Judgement: Yes`` is ``I say 3, no: \boxed{4}`` as ``cot`` and ``4`` as ``answer``.
    Without a box outside of ``thinking``, ``answer`` is empty and ``cot`` the whole cleaned text.
    """
    pieces: list[str] = []
    done = 0
    for start, end in thoughts(response, thinking):
        pieces += (response[done:start], " " * (end - start))
        done = end
    outside = "".join(pieces) + response[done:]  # as long as the response, so that a place in one is one in the other
    answer = clean(extract_boxed(outside) or "", thinking)
    if form == "answer":
        return answer.strip()
    span = last_box_span(outside)
    if span is None:
        return clean(response, thinking).strip()
    return f"{clean(response[: span[0]], thinking)}\\boxed{{{answer}}}".lstrip()


def clean(text: str, thinking: Thinking = THINKING) -> str:
    """``text`` with every box opened and every control token and thinking tag blanked, also those that only this puts
    together."""
    for _ in range(MAX_PASSES):
        cleaned = _without_tags(CONTROL_TOKEN.sub(" ", _open_boxes(text)), thinking)
        if cleaned == text:
            return text
        text = cleaned
    starts = {"<", "[", "\\", *(tag[0] for pair in thinking for tag in pair)}
    return "".join(char for char in text if char not in starts)


def _without_tags(text: str, thinking: Thinking) -> str:
    return tags(thinking).sub(" ", text) if thinking else text


def _open_boxes(text: str) -> str:
    r"""Drop each ``\boxed{`` and its closing brace, in one pass; an unclosed one loses its opening only."""
    kept: list[str] = []
    braces: list[bool] = []  # for each open brace: does it belong to a box?
    done, escaped = 0, -1
    for token in _TOKEN.finditer(text):
        piece = token[0]
        if token["box"]:
            piece = "\\" * ((len(token["slashes"]) - 1) // 2 * 2)  # line breaks before it stay
            if token["open"]:
                braces.append(True)
        elif token["slashes"]:
            if len(piece) % 2:
                escaped = token.end()
        elif token.start() == escaped:
            pass
        elif piece == "{":
            braces.append(False)
        elif braces and braces.pop():
            piece = ""
        kept += (text[done : token.start()], piece)
        done = token.end()
    return "".join(kept) + text[done:]
