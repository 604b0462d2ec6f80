"""What prompts begin with, in hashes: how a router sees that two of them share a beginning, without their text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from deployments.generation import Ask

BLOCK_BYTES = 128
"""About 30 tokens: less is hardly worth a detour to the replica that has it."""
MOST_BLOCKS = 256
"""About 8,000 tokens: prompts that are alike so far go to the same replica anyway."""


@dataclass(frozen=True)
class Prefix:
    """`blocks[i]` is a hash of the prompt's first i + 1 blocks: equal where all text up to there is equal. A last block
    that is not full is left out. `thread` is a hash of what stays the same through a conversation, its beginning up to
    the first message of a user; equal in every process, as the blocks are.
    """

    thread: bytes = b""
    blocks: tuple[bytes, ...] = ()

    @classmethod
    def of_thread(cls, root_id: UUID) -> Self:
        """Of a stored thread, whose text only the model's replica reads."""
        key = _hash(root_id.bytes)
        return cls(key, (key,))

    @classmethod
    def of_ask(cls, ask: Ask) -> Self:
        """Of a prompt that is at hand."""
        if ask.messages:
            beginning, rest = _conversation(ask)
        else:
            raw = _bytes(ask.text if ask.text is not None else list(ask.token_ids or ()))
            beginning, rest = raw[:BLOCK_BYTES], raw[BLOCK_BYTES:]
        return cls(_hash(beginning), tuple(_chain(beginning + rest)))


def _conversation(ask: Ask) -> tuple[bytes, bytes]:
    """A canonical text of tools and messages: up to the first message of a user, and the rest."""
    tools = [_bytes(dataclasses.asdict(function)) for function in ask.tools.functions] if ask.tools else []
    said = [_bytes(message) for message in ask.messages]
    first = next((place for place, message in enumerate(ask.messages, 1) if message.get("role") == "user"), len(said))
    return b"".join(tools + said[:first]), b"".join(said[first:])


def _chain(text: bytes) -> list[bytes]:
    hashes: list[bytes] = []
    running = hashlib.blake2b(digest_size=8)
    for begin in range(0, min(len(text), MOST_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        running.update(text[begin : begin + BLOCK_BYTES])
        hashes.append(running.copy().digest())
    return hashes


def _bytes(value: Any) -> bytes:
    """JSON that takes whatever a request may hold, be it lone surrogates: a router must not fail."""
    return json.dumps(value, sort_keys=True, default=str).encode()


def _hash(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).digest()
