"""What is measured of chats, the same for the product and for the bare engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Chat:
    """One answer. Instants are of one monotonic clock, in seconds: the question is sent, the first piece
    of the answer arrives, its end arrives."""

    started: float
    first_token: float
    ended: float
    completion_tokens: int

    @property
    def first_token_ms(self) -> float:
        """How long the person looked at nothing."""
        return (self.first_token - self.started) * 1000

    @property
    def tokens_per_second(self) -> float:
        """Of the whole answer, the wait for its first piece included."""
        return self.completion_tokens / (self.ended - self.started)


def throughput(chats: Sequence[Chat]) -> float:
    """Tokens per second of all together, from the first question to the last end."""
    seconds = max(chat.ended for chat in chats) - min(chat.started for chat in chats)
    return sum(chat.completion_tokens for chat in chats) / seconds


def first_token_p50_ms(chats: Sequence[Chat]) -> float:
    """Half of the answers began no later."""
    return median(chat.first_token_ms for chat in chats)
