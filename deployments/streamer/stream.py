"""One reader's connection: history after its cursor, then live, without a gap between."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.config import Settings
from deployments.problems import ProblemError
from deployments.sessions import session_of
from deployments.streamer.hub import Hub, Reader
from deployments.streamer.wire import PING, RETRY, Cursor, Frame, notice, place

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class EventStream:
    """The ASGI endpoint. Path parameter `conversation_id`, or `user_id`: one's own id or `me`, for one's inbox."""

    def __init__(self, database: Database, hub: Hub, settings: Settings) -> None:
        self._database = database
        self._hub = hub
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "GET":
            raise ProblemError(405, "RGP.METHOD_NOT_ALLOWED", "A stream is read with GET.")
        session = session_of(request)
        asked = request.headers.get("last-event-id") or request.query_params.get("after")
        cursor = Cursor.parse(asked) if asked else None
        channel_id = await self._channel_id(request, session)
        with self._hub.join(session, channel_id) as reader:
            end, first_offset = await self._open(session, channel_id)
            self._hub.start(reader.channel, end)
            cursor = cursor or end
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            stale = cursor.epoch != end.epoch or not first_offset - 1 <= cursor.offset <= end.offset
            writing = asyncio.create_task(self._write(reader, cursor, stale, send))
            leaving = asyncio.create_task(_disconnected(receive))
            try:
                await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
                if writing.done():
                    writing.result()
            finally:
                writing.cancel()
                leaving.cancel()

    async def _channel_id(self, request: Request, session: bytes) -> UUID:
        asked = request.path_params.get("conversation_id") or request.path_params["user_id"]
        try:
            wanted = None if asked == "me" else UUID(asked)
        except ValueError:
            raise ProblemError(400, "RGP.VALIDATION", "The id in this address is not a UUID.") from None
        if wanted is not None and "conversation_id" in request.path_params:
            return wanted
        own = UUID(orjson.loads(await self._stream_open(session, None))["channel_id"])
        if wanted not in (None, own):
            raise ProblemError(403, "RGP.RBAC.FORBIDDEN", "You may read only your own inbox.")
        return own

    async def _stream_open(self, session: bytes, channel_id: UUID | None) -> str:
        idle = timedelta(seconds=self._settings.session.idle_seconds)
        return await self._database.value("stream_open", session, idle, channel_id)

    async def _open(self, session: bytes, channel_id: UUID) -> tuple[Cursor, int]:
        opened = orjson.loads(await self._stream_open(session, channel_id))
        return Cursor(opened["epoch"], opened["last_offset"]), opened["first_offset"]

    async def _write(self, reader: Reader, cursor: Cursor, stale: bool, send: Send) -> None:
        async def put(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        if stale:
            return await put(RETRY + _reset(), more=False)
        await put(RETRY + place(cursor))
        channel, offset = reader.channel, cursor.offset
        ends = time.monotonic() + self._settings.sse.connection_seconds
        while True:
            changed = channel.changed()
            if reader.revoked:
                return await put(b"", more=False)
            if channel.is_reset:
                return await put(_reset(), more=False)
            frames = channel.after(offset)
            if frames is None:
                frames = await self._read_log(reader, offset)
                if frames and (frames[0].offset != offset + 1):
                    return await put(_reset(), more=False)
            if frames:
                await put(b"".join(item.data for item in frames))
                self._hub.sent.update(Counter(item.type for item in frames))
                offset = frames[-1].offset
                continue
            if time.monotonic() >= ends:
                return await put(notice("stream.reconnect", {"reason": "connection_age"}), more=False)
            try:
                async with asyncio.timeout(min(self._settings.sse.heartbeat_seconds, ends - time.monotonic())):
                    await changed.wait()
            except TimeoutError:
                await put(PING)

    async def _read_log(self, reader: Reader, offset: int) -> list[Frame]:
        while True:
            try:
                return await self._hub.read(reader.channel, offset)
            except DatabaseUnavailable:
                await asyncio.sleep(0.2)


def _reset() -> bytes:
    return notice("stream.reset", {"reason": "cursor_out_of_range"})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
