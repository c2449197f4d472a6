r"""How a problem becomes tokens: the user turn (A.2, Fig. 5), the chat template, the end of a response.

The user turn of a policy problem is ``chat.policy`` with the question filled in; a recycled problem brings its own. The
template is ``chat.template``, else the tokenizer's own, else none: a base model without a template reads the plain user
turn and a line break, after the beginning-of-sequence token if its tokenizer usually puts one.

Questions and responses are untrusted. A question that contains ``<|im_end|>`` or ``<eos>`` as text must not end the
user's turn, so the special tokens of the tokenizer are broken by one space after their first character
(``< |im_end|>``) wherever they appear in a question or a recycled turn. Nothing else in the text changes; the settings
(``system``, ``few_shot``, ``policy``, ``template``) are trusted and may use special tokens.

Departures from the authors' release: the question is never searched for in the rendered chat, because the problem still
has it; images go first, in order, and there may be several.

No torch here: the tokenizer is any transformers one, handed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from spark_rl.config import ChatConfig
from spark_rl.errors import UserError
from spark_rl.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
"""Tokens that end the assistant's turn in common templates, often without being the tokenizer's ``eos_token``."""

_FIELD = re.compile(r"\{\{|\}\}|\{question\}|[{}]")
_PROBE = "spark-rl probe"


class ChatError(UserError):
    """A mistake in the chat settings, in one line: what is wrong, where, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    r"""What an engine reads: one problem, rendered. It holds no label.

    For the embedded base::

        Prompt(text="<bos>solve 5?2?7=10\n", token_ids=(1, 4, 34, ...),
               messages=({"role": "user", "content": "solve 5?2?7=10"},))
    """

    text: str
    """The rendered chat, special tokens included."""
    token_ids: tuple[int, ...]
    """(T_prompt,) the text as tokens."""
    messages: tuple[dict[str, Any], ...]
    """The chat before the template, for engines that apply their own."""
    images: tuple[Any, ...] = ()
    """The images of the problem, in the order of their places in ``messages``."""


def policy_prompt(problem: Problem, config: ChatConfig) -> str:
    """The user turn: a recycled problem's own prompt, else ``few_shot`` and ``policy`` with the question filled in.

    Filled in a single pass: braces in the question stay what they are.

    Raises:
        ChatError: ``config.policy`` has a brace that is neither ``{question}`` nor doubled.
    """
    if problem.prompt is not None:
        return problem.prompt

    def value(found: re.Match[str]) -> str:
        if found[0] in {"{", "}"}:
            near = config.policy[max(0, found.start() - 12) : found.end() + 12]
            raise ChatError(
                f"chat.policy has a lone {found[0]!r} near {near!r}; write {{{{ and }}}} for literal braces"
            )
        return problem.question if found[0] == "{question}" else found[0][0]

    return config.few_shot + _FIELD.sub(value, config.policy)


class ChatFormat:
    """Turns problems into prompts and tokens into text, for one tokenizer and one configuration.

    Raises:
        ChatError: the template or the policy turn cannot work; checked here, before any model loads.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: ChatConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._template = _template(tokenizer, config)
        self._special = _special_pattern(tokenizer)
        self._bos = _usual_bos(tokenizer) if self._template is None else ()
        if _PROBE not in policy_prompt(Problem(id="probe", question=_PROBE, answer=""), config):
            raise ChatError(
                "chat.policy must contain {question} with single braces, or the model never sees the problem"
            )
        if _PROBE not in self._render(self._messages(_PROBE, images=0)):
            raise ChatError("the chat template does not show the user's turn; check chat.template")
        self._shows_images = self._template is not None and self._accepts_parts()

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a response."""
        return self.config.stop

    def encode(self, problem: Problem) -> Prompt:
        """The problem as the model reads it.

        Raises:
            ChatError: the problem has images and the template no place for them.
        """
        if problem.images and not self._shows_images:
            raise ChatError(
                f"problem {problem.id} has {len(problem.images)} image(s) and the chat template has no place for them; "
                "use a vision-language model, or data without images"
            )
        harmless = replace(
            problem,
            question=self._neutral(problem.question),
            prompt=None if problem.prompt is None else self._neutral(problem.prompt),
        )
        messages = self._messages(policy_prompt(harmless, self.config), len(problem.images))
        text = self._render(messages)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self._bos:
            text = self.tokenizer.bos_token + text
        return Prompt(text, (*self._bos, *ids), tuple(messages), problem.images)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The tokens as text, special tokens dropped, spaces as the tokens have them."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def eos_ids(self, generation_config: Any | None = None) -> set[int]:
        """Tokens that end a response: the tokenizer's, ``generation_config``'s, and the turn end of the template.

        Empty for a base model that knows none; then only ``stop`` and the length limit end a response.
        """
        ends: set[int] = set()
        for owner in (self.tokenizer, generation_config):
            ids = getattr(owner, "eos_token_id", None)
            ends.update([] if ids is None else [ids] if isinstance(ids, int) else ids)
        vocabulary = self.tokenizer.get_vocab()
        ends.update(vocabulary[end] for end in TURN_ENDS if end in vocabulary and end in (self._template or ""))
        return ends

    def _neutral(self, text: str) -> str:
        """The text with every special token of the tokenizer broken by a space, until none is left."""
        while self._special is not None and self._special.search(text):
            text = self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text

    def _messages(self, user: str, images: int) -> list[dict[str, Any]]:
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": user}] if images else user
        system = [] if self.config.system is None else [{"role": "system", "content": self.config.system}]
        return [*system, {"role": "user", "content": content}]

    def _render(self, messages: list[dict[str, Any]]) -> str:
        if self._template is None:
            return "".join(f"{message['content']}\n" for message in messages)
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:  # what Jinja code raises
            number = getattr(error, "lineno", None)
            line = "" if number is None else f", line {number}"
            where = "chat.template" if self.config.template is not None else "the tokenizer's chat template"
            raise ChatError(f"{where}{line} failed: {' '.join(str(error).split())}") from None

    def _accepts_parts(self) -> bool:
        """Whether the template reads a list of image and text parts, instead of printing or rejecting the list."""
        try:
            shown = self._render(self._messages(_PROBE, images=1))
        except ChatError:
            return False
        return _PROBE in shown and "'type'" not in shown


def _template(tokenizer: PreTrainedTokenizerBase, config: ChatConfig) -> str | None:
    """The template's text: the setting, the file it names, the tokenizer's own, or ``None``."""
    if config.template is None:
        try:
            return None if tokenizer.chat_template is None else str(tokenizer.get_chat_template())
        except ValueError as error:
            raise ChatError(f"the tokenizer's chat template cannot be chosen: {str(error).splitlines()[0]}") from None
    if "\n" in config.template or not config.template.endswith(".jinja"):
        return config.template
    try:
        return Path(config.template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChatError(f"chat.template: cannot read {config.template} ({error.__class__.__name__})") from None


def _special_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Matches the special tokens, longest first. Plain words and single characters are not control tokens."""
    tokens = {*tokenizer.all_special_tokens}
    tokens.update(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    markers = sorted({t for t in map(str.strip, tokens) if len(t) > 1 and not t.isalnum()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, markers))) if markers else None


def _usual_bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The beginning-of-sequence token, if the tokenizer puts it before ordinary text."""
    ids = tokenizer("x")["input_ids"]
    return (ids[0],) if ids and ids[0] == tokenizer.bos_token_id else ()
