"""Tokens that an answer took, counted towards its caller's limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from deployments.gateway.v1.answer import Answer
from deployments.gateway.v1.callers import Caller
from deployments.gateway.v1.limits import Limits
from deployments.generation import Item, Piece, Started


async def metered(limits: Limits, caller: Caller, answer: Answer) -> AsyncGenerator[list[Item], None]:
    """The items of an answer that is not stored. However it ends, what was made of it counts, and its prompt."""
    tokens = 0
    try:
        async with aclosing(aiter(answer)) as batches:
            async for batch in batches:
                for item in batch:
                    if isinstance(item, Piece):
                        tokens += len(item.token_ids)
                    elif isinstance(item, Started):
                        tokens += item.prompt_tokens
                yield batch
    finally:
        limits.charge(caller, tokens)
