r"""How a problem becomes tokens: the user turn (A.2, Fig. 5), the chat template, the end of a response.

The user turn of a policy problem is ``chat.policy`` with the question filled in; a recycled problem brings its own. The
template is ``chat.template``, else the tokenizer's own, else none: a base model without a template reads the plain user
turn and a line break, after the beginning-of-sequence token if its tokenizer usually puts one.

Questions and responses are untrusted. A question that contains ``<|im_end|>`` or ``<eos>`` as text must not end the
user's turn, so the special tokens of the tokenizer are broken by one space after their first character
(``< |im_end|>``) wherever they appear in a question or a recycled turn. So are added tokens that are not flagged
special and look like control tokens (``<think>``, ``[TOOL_CALLS]``), which a model reads as one token too. Nothing else
in the text changes: words and HTML tags among the added tokens stay. The settings (``system``, ``few_shot``,
``policy``, ``template``) are trusted and may use special tokens.

Images stand where the question has its ``<image>`` markers, or before the text when it has none, as image parts of the
user's turn; the template puts the family's own placeholders there and the processor expands them, once a problem.

Departures from the authors' release: the question is never searched for in the rendered chat, because the problem still
has it; there may be several images.

No torch here: the tokenizer and the processor are any transformers ones, handed in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from spark_rl.chat.rendering import MOST_CHARACTERS, RenderingError, render
from spark_rl.chat.turn import PROBE, broken, chat_messages, check_policy, content, user_turn
from spark_rl.config import ChatConfig, Config, ImagesConfig
from spark_rl.data.images import fit, open_image
from spark_rl.data.values import without_surrogates
from spark_rl.errors import ChatError
from spark_rl.files import user_path
from spark_rl.problem import TASKS, Problem, Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<end_of_utterance>")
"""Tokens that end the assistant's turn in common templates, often without being the tokenizer's ``eos_token``."""
MOST = 2**31
"""No token has a number beyond it."""

_LIKE_CONTROL = re.compile(r"<.*\w.*>|\[.*\w.*\]|[|｜].*\w.*[|｜]", re.DOTALL)
"""An added token that is not flagged special and may steer the model all the same."""
_HTML = re.compile(
    r"</?(?:table|caption|thead|tbody|tfoot|t[rhd]|h[1-6]|blockquote|strong|em|[bius]|su[bp]|code|p|br|li|[ou]l)>"
)
"""Gemma's vocabulary has the tags of formatted text."""
_OURS = frozenset((
    "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs",
))  # fmt: skip
"""Arguments of ``apply_chat_template`` that are no settings."""


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
    vision: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What the processor made of the images beside the tokens, for engines that run the model themselves."""
    stop: tuple[str, ...] = ()
    """Strings that end a response to it: ``chat.stop`` for the problem's task."""


class Chat(Protocol):
    """What asking a model needs of a chat format: :class:`ChatFormat`, or a server's, which has its own template."""

    @property
    def config(self) -> ChatConfig:
        """The settings the user turn is made from."""
        ...

    def encode(self, problem: Problem, system: str | None = None) -> Prompt:
        """The problem as the engine reads it, with ``system`` in place of ``chat.system`` if it is given."""
        ...


class ChatFormat:
    """Turns problems into prompts and tokens into text, for one tokenizer (or processor) and one configuration.

    Raises:
        ChatError: the template or the policy turn cannot work; checked here, before any model loads.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: ChatConfig,
        processor: Any = None,
        images: ImagesConfig | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.processor = processor
        self.images = images or ImagesConfig()
        self._template = _template(tokenizer, config, processor)
        _check_arguments(config, self._template)
        for task in TASKS:
            end_tokens(tokenizer, config.stop_of(task))
        self._special = _special_pattern(tokenizer, processor)
        self._bos = _usual_bos(tokenizer) if self._template is None else ()
        check_policy(config)
        if PROBE not in self._render(self._messages((PROBE,))):
            raise ChatError("the chat template does not show the user's turn; check chat.template")
        self.pixel_bounds = _pixel_bounds(processor, config)
        self._shows_images = self._template is not None and self._accepts_parts()
        if processor is not None and not self._shows_images:
            raise ChatError("the chat template has no place for images, and the model sees; check chat.template")

    def encode(self, problem: Problem, system: str | None = None) -> Prompt:
        """The problem as the model reads it. The processor runs once, on all its images.

        Args:
            problem: what is asked.
            system: a system message of the problem's own, trusted, in place of ``chat.system``.

        Raises:
            ChatError: the problem has images and the model sees none, or one of them can't be read or used.
        """
        messages = self._messages(user_turn(problem, self.config, self._special), system)
        return self._prompt(messages, problem.images, problem.task, f"problem {problem.id:.60}")

    def encode_chat(self, turns: Sequence[tuple[str, Sequence[str]]], images: Sequence[Any] = ()) -> Prompt:
        """A chat that somebody else wrote, as the model reads it up to where it answers; ``chat.policy`` has no part.

        Args:
            turns: of each message its role and its untrusted texts, with an image between each two. Without a message
                of the system ``chat.system`` stands first.
            images: all of them, in their order.

        Raises:
            ChatError: as for :meth:`encode`, or the template refuses the order of the roles.
        """
        parts = self.processor is not None
        messages: list[dict[str, Any]] = [
            {"role": role, "content": content([broken(text, self._special) for text in texts], parts=parts)}
            for role, texts in turns
        ]
        if self.config.system and all(role != "system" for role, _ in turns):
            messages.insert(0, {"role": "system", "content": content((self.config.system,), parts=parts)})
        return self._prompt(messages, tuple(images), "policy", "the chat")

    def _prompt(self, messages: list[dict[str, Any]], images: tuple[Any, ...], task: Task, what: str) -> Prompt:
        """Messages as tokens; ``what`` names them in errors."""
        if images and (self.processor is None or not self._shows_images):
            raise ChatError(
                f"{what} has {len(images)} image(s), for which this model or its chat template has no place; use a "
                "vision-language model, or data without images"
            )
        text = without_surrogates(self._render(messages))
        if len(text) > MOST_CHARACTERS:
            raise ChatError(f"{what} makes a prompt of {len(text):,} characters, more than {MOST_CHARACTERS:,}; leave "
                            "it out of the data")  # fmt: skip
        if images:
            try:
                ids, vision = self._processed(images, text)
            except (OSError, ValueError) as error:
                raise ChatError(f"{what}: its images can't be used: {' '.join(str(error).split())}") from None
        else:
            ids, vision = self.tokenizer(text, add_special_tokens=False)["input_ids"], {}
        if self._bos:
            text = self.tokenizer.bos_token + text
        return Prompt(text, (*self._bos, *ids), tuple(messages), images, vision, self.config.stop_of(task))

    def _processed(self, images: Sequence[Any], text: str) -> tuple[list[int], dict[str, Any]]:
        assert self.processor is not None, "checked by the caller"
        made = self.processor(
            text=[text], images=[self.pictures(images)], add_special_tokens=False, return_tensors="pt",
            **self.pixel_bounds,
        )  # fmt: skip
        ids: list[int] = made.pop("input_ids")[0].tolist()
        made.pop("attention_mask", None)
        return ids, dict(made)

    def vision_of(self, prompt: Prompt) -> dict[str, Any]:
        """What :meth:`encode` made of the images of a prompt, made again where only the prompt's images came."""
        return self._processed(prompt.images, prompt.text)[1] if prompt.images else {}

    def pictures(self, images: Sequence[Any]) -> list[Image]:
        """The images as the processor takes them, within the configured bounds unless it keeps to those itself.

        Raises:
            ImageError: one of them can't be read.
        """
        opened = [open_image(image, self.images) for image in images]
        if self.pixel_bounds:
            return opened
        return [fit(picture, self.config.min_pixels, self.config.max_pixels) for picture in opened]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The tokens as text, special tokens dropped, spaces as the tokens have them."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def eos_ids(self, generation_config: Any | None = None) -> set[int]:
        """Tokens that end a response: the tokenizer's, ``generation_config``'s, and the turn end of the template.

        Empty for a base model that knows none; then only ``stop`` and the length limit end a response.

        Raises:
            ChatError: one of them is no number, or too large to be that of a token.
        """
        ends: set[int] = set()
        for owner in (self.tokenizer, generation_config):
            ids = getattr(owner, "eos_token_id", None)
            named = [] if ids is None else ids if isinstance(ids, list | tuple) else [ids]
            if wrong := [end for end in named if not isinstance(end, int) or isinstance(end, bool) or abs(end) > MOST]:
                raise ChatError(f"the model has eos_token_id {wrong[0]!r:.40}, which is no number of a token; mend its "
                                "generation_config.json or config.json")  # fmt: skip
            ends.update(named)
        vocabulary = self.tokenizer.get_vocab()
        ends.update(vocabulary[end] for end in TURN_ENDS if end in vocabulary and end in (self._template or ""))
        return ends

    def _messages(self, turn: Sequence[str], system: str | None = None) -> list[dict[str, Any]]:
        """Some templates of models that see know nothing but lists of parts."""
        return chat_messages(turn, self.config.system if system is None else system, parts=self.processor is not None)

    def _render(self, messages: list[dict[str, Any]]) -> str:
        if self._template is None:
            return "".join(f"{message['content']}\n" for message in messages)
        named = {name: value if isinstance(value, str | list) else str(value)
                 for name, value in self.tokenizer.special_tokens_map.items()}  # fmt: skip
        try:
            return render(self._template, messages, named | self.config.template_arguments)
        except RenderingError as error:
            line = "" if error.line is None else f", line {error.line}"
            where = "chat.template" if self.config.template is not None else "the tokenizer's chat template"
            raise ChatError(f"{where}{line} failed: {error}") from None

    def _accepts_parts(self) -> bool:
        """Whether the template reads a list of parts and shows the image, instead of printing or rejecting the list."""
        try:
            text, shown = (self._render(chat_messages(turn, None, parts=True)) for turn in ((PROBE,), ("", PROBE)))
        except ChatError:
            return False
        return PROBE in shown and "'type'" not in shown and shown != text


def end_tokens(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> tuple[int, ...]:
    """Ids of the stop strings that are special tokens: decoded text never shows those, so they end a response as ids.

    Raises:
        ChatError: a stop string has a special token beside other text, so nothing could find it.
    """
    if not stop:
        return ()
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    special |= {t.content: number for number, t in tokenizer.added_tokens_decoder.items() if t.special}
    for text in stop:
        inside = next((token for token in special if token in text and text not in special), None)
        if inside is not None:
            raise ChatError(
                f"chat.stop has {text!r}, but responses are decoded without special tokens such as {inside!r}, so it "
                f"would never be found; give {inside!r} alone, or the text around it alone"
            )
    return tuple(special[text] for text in stop if text in special)


def _pixel_bounds(processor: Any, config: ChatConfig) -> dict[str, Any]:
    """The processor's own bounds on an image's area, with the configured ones in their place; empty if it has none.

    Only processors in the manner of Qwen2-VL bound an area; others call the side of a tile by the same names.
    """
    resizes = getattr(processor, "image_processor", None)
    if resizes is None or not {"min_pixels", "max_pixels"} <= set(resizes.valid_kwargs.__annotations__):
        return {}
    least, most = resizes.size["shortest_edge"], resizes.size["longest_edge"]
    low = config.min_pixels or min(least, config.max_pixels or least)  # of two bounds that cross, ours holds
    high = config.max_pixels or max(most, config.min_pixels or most)
    return {"size": {"shortest_edge": low, "longest_edge": high}}


def _template(tokenizer: PreTrainedTokenizerBase, config: ChatConfig, processor: Any) -> str | None:
    """The template's text: the setting, the file it names, the processor's, the tokenizer's own, or ``None``."""
    if config.template is None and isinstance(getattr(processor, "chat_template", None), str):
        return str(processor.chat_template)
    if config.template is None:
        try:
            return None if tokenizer.chat_template is None else str(tokenizer.get_chat_template())
        except ValueError as error:
            raise ChatError(f"the tokenizer's chat template cannot be chosen: {str(error).splitlines()[0]}") from None
    if "\n" in config.template or not config.template.endswith(".jinja"):
        return config.template
    try:
        return user_path(config.template).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ChatError(f"chat.template: cannot read {config.template} ({error.__class__.__name__})") from None


def _check_arguments(config: ChatConfig, template: str | None) -> None:
    """Raises :class:`ChatError` for a template argument that can't have any effect, or is ours to give."""
    for name in config.template_arguments:
        if name in _OURS:
            raise ChatError(f"chat.template_arguments can't set {name!r}, which is set here; remove it")
        if not re.search(rf"\b{re.escape(name)}\b", template or ""):
            raise ChatError(
                f"chat.template_arguments sets {name!r}, which the chat template never mentions, so it would do "
                "nothing; check its spelling, or remove it"
            )


def chat_of(config: Config, model: Any) -> ChatFormat:
    """The chat format of a model that is loaded or described: of whatever has its ``tokenizer`` and ``processor``.

    Raises:
        ChatError: like :class:`ChatFormat`.
    """
    return ChatFormat(model.tokenizer, config.chat, model.processor, config.data.images)


def _special_pattern(tokenizer: PreTrainedTokenizerBase, processor: Any) -> re.Pattern[str] | None:
    """Matches the special tokens, the placeholders of the processor and the added tokens that look like control tokens,
    of which neither need be special; longest first.

    Plain words and single characters are not control tokens.
    """
    tokens = {*tokenizer.all_special_tokens}
    placeholders = vars(processor) if processor is not None else {}
    tokens.update(str(token) for name, token in placeholders.items() if name.endswith("_token"))
    tokens.update(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (_LIKE_CONTROL.fullmatch(token.content.strip()) and not _HTML.fullmatch(token.content))
    )
    markers = sorted({t for t in map(str.strip, tokens) if len(t) > 1 and not t.isalnum()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, markers))) if markers else None


def _usual_bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The beginning-of-sequence token, if the tokenizer puts it before ordinary text."""
    ids = tokenizer("x")["input_ids"]
    return (ids[0],) if ids and ids[0] == tokenizer.bos_token_id else ()
