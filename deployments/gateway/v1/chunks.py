"""Answers in OpenAI's older manner: a stream of unnamed chunks, or one object."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from fastapi.responses import Response

from deployments.gateway.v1.errors import ApiError, error_body
from deployments.gateway.v1.json_text import json_bytes, json_response
from deployments.gateway.v1.sse import EventStream, event
from deployments.generation import Item, Json

DONE = event(b"[DONE]")


class Fold(Protocol):
    """Takes items, gives chunks, and the whole once all answers have ended."""

    def feed(self, batch: Sequence[Item], /) -> list[Json]:
        """The chunks of a batch; {"error"} is the last one of an answer that failed."""
        ...

    def whole(self) -> Json:
        """All of it. Raises ApiError where an answer failed."""
        ...


async def answered(
    items: AsyncGenerator[list[Item], None], fold: Fold, stream: bool, heartbeat_seconds: float
) -> Response:
    """The answer that is not stored, as it is made or at its end. Raises ApiError."""
    if stream:
        return EventStream(_events(items, fold), heartbeat_seconds)
    async with aclosing(items):
        async for batch in items:
            fold.feed(batch)
    return json_response(fold.whole())


async def _events(items: AsyncGenerator[list[Item], None], fold: Fold) -> AsyncGenerator[bytes, None]:
    """One write for each batch."""
    async with aclosing(items):
        try:
            async for batch in items:
                if made := fold.feed(batch):
                    yield b"".join(event(json_bytes(chunk)) for chunk in made)
                    if "error" in made[-1]:
                        return
        except ApiError as error:
            yield event(json_bytes(error_body(error)))
            return
    yield DONE
