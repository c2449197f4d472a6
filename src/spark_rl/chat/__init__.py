"""How a problem becomes tokens: the user's turn (:mod:`spark_rl.chat.turn`), then the chat template and the tokens
(:mod:`spark_rl.chat.format`). No torch: the tokenizer and the processor are handed in.
"""

from __future__ import annotations

from spark_rl.chat.format import TURN_ENDS, Chat, ChatFormat, Prompt, chat_of, end_tokens
from spark_rl.chat.turn import chat_messages, check_policy, policy_prompt, user_turn
from spark_rl.data.values import MARKER
from spark_rl.errors import ChatError

__all__ = [
    "MARKER", "TURN_ENDS", "Chat", "ChatError", "ChatFormat", "Prompt", "chat_messages", "chat_of", "check_policy",
    "end_tokens", "policy_prompt", "user_turn",
]  # fmt: skip
