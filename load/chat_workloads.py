"""Prompts as chats: what workloads.py makes as tokens, as messages."""

from __future__ import annotations

from collections.abc import Callable

from load.chat_client import Message
from load.workloads import Prompts

Messages = list[Message]


class ChatPrompts:
    """Chats that no other call has given. Lengths are without what the chat template adds, and up to 15 tokens above;
    the same for every side."""

    def __init__(self, tokenize: Callable[[str], list[int]], seed: int) -> None:
        self._prompts = Prompts(tokenize, seed)

    def system(self, tokens: int) -> Message:
        """A system message."""
        return {"role": "system", "content": self._prompts.text(tokens)}

    def user(self, tokens: int) -> Message:
        """A question."""
        return {"role": "user", "content": self._prompts.text(tokens)}

    def assistant(self, tokens: int) -> Message:
        """What stands in for an earlier answer."""
        return {"role": "assistant", "content": self._prompts.text(tokens)}

    def short(self, count: int) -> list[Messages]:
        """Questions of 60 tokens that have nothing in common but the template's system message."""
        return [[self.user(60)] for _ in range(count)]

    def shared(self, count: int) -> list[Messages]:
        """A system message of 500 tokens that is the same, with questions of 100 that are not."""
        system = self.system(500)
        return [[system, self.user(100)] for _ in range(count)]
