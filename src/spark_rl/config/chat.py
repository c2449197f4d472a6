"""Settings of how a problem becomes tokens."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from spark_rl.config.section import Section
from spark_rl.problem import Task

ANSWER_FORMAT = (
    "{question}\nPlease first conduct reasoning, and then answer the question. "
    "Repeat the final answer using a '\\boxed{{}}'."
)
"""The paper's policy prompt (A.2, Fig. 5): the question, then the answer-format suffix."""


class ChatConfig(Section):
    """How a problem becomes tokens."""

    template: str | None = None
    """A Jinja chat template (text, or a path ending in ``.jinja``) over ``messages``; null uses the tokenizer's own,
    or plain text for a base model without one."""
    system: str | None = None
    """The system message; null sends none."""
    policy: str = ANSWER_FORMAT
    """The user turn of a policy problem; ``{question}`` is the raw question, ``{{`` and ``}}`` are literal braces."""
    template_arguments: dict[str, Any] = Field(default_factory=dict)
    """What the chat template is given beside the messages, such as ``{enable_thinking: false}``; servers get it as
    ``chat_template_kwargs``. A name that the template never mentions is refused."""
    few_shot: str | dict[Task, str] = ""
    """Text put before the user turn, e.g. worked examples for a base model: one text for policy turns made from
    ``policy``, or a text by task, ``{policy: ..., pointwise: ..., pairwise: ..., reflection: ...}``."""
    min_pixels: int | None = Field(None, ge=1)
    """Images with fewer pixels are enlarged before they become tokens; null uses the processor's own bound."""
    max_pixels: int | None = Field(None, ge=1)
    """Images with more pixels are shrunk before they become tokens; null uses the processor's own bound."""
    stop: tuple[str, ...] | dict[Task, tuple[str, ...]] = ()
    """Strings that end a response (base models rarely emit an end-of-sequence token), for all tasks or by task. A
    special token such as ``<|im_end|>`` is one too, alone."""

    def few_shot_of(self, task: Task) -> str:
        """The text before the user turns of a task."""
        if isinstance(self.few_shot, str):
            return self.few_shot if task == "policy" else ""
        return self.few_shot.get(task, "")

    def stop_of(self, task: Task) -> tuple[str, ...]:
        """The strings that end responses to a task."""
        return self.stop.get(task, ()) if isinstance(self.stop, dict) else self.stop
