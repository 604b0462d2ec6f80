"""Answers as server-sent events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

PING = b": ping\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event(data: bytes, name: str | None = None, number: int | None = None) -> bytes:
    """One event. `data` is JSON in one line; `number` is what a reader resumes after."""
    head = b"" if number is None else b"id: %d\n" % number
    if name is not None:
        head += b"event: " + name.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"


class EventStream(Response):
    """What `writes` yields goes out at once; silence is filled with comments. `writes` is closed at the end, and has
    ended before the connection is forgotten, when the client leaves.

    One task writes and nothing is between it and the server: Starlette's StreamingResponse with pings around it would
    take a task for each write.
    """

    media_type = "text/event-stream"

    def __init__(
        self, writes: AsyncGenerator[bytes, None], heartbeat_seconds: float, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(headers=HEADERS | (headers or {}))
        del self.headers["content-length"]
        self._writes = writes
        self._heartbeat_seconds = heartbeat_seconds
        self._written_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 as ASGI has it
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        writing = asyncio.create_task(self._write(send))
        beside = [asyncio.create_task(_disconnected(receive, writing)), asyncio.create_task(self._ping(send))]
        try:
            await asyncio.wait({writing})
        finally:
            for task in (writing, *beside):
                task.cancel()
            await asyncio.wait({writing, *beside})
        if not writing.cancelled() and (error := writing.exception()):
            logger.error("an answer was broken off", exc_info=error)

    async def _write(self, send: Send) -> None:
        async with aclosing(self._writes) as writes:
            async for data in writes:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                self._written_at = time.monotonic()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        while True:
            silent = time.monotonic() - self._written_at
            if silent >= self._heartbeat_seconds:
                await send({"type": "http.response.body", "body": PING, "more_body": True})
                self._written_at = time.monotonic()
                silent = 0.0
            await asyncio.sleep(self._heartbeat_seconds - silent)


async def _disconnected(receive: Receive, writing: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    writing.cancel()
