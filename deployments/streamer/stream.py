"""One reader's connection: history after its cursor, then live, without a gap between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from db.pool import Database
from deployments.config import Settings
from deployments.problems import ProblemError
from deployments.sessions import session_of
from deployments.streamer.hub import Hub
from deployments.streamer.log import PAGE_BYTES
from deployments.streamer.merge import merge_deltas
from deployments.streamer.reader import OUT_OF_RANGE, SILENT, Reader
from deployments.streamer.wire import PING, RETRY, Cursor, Frame, batches, body, place

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]

# In the scope: the server's `send`, without what Starlette puts around it. The answer's head goes through that, so
# that errors are handled; its body, which is many small writes, does not.
BARE_SEND = "rustygpt.send"

Put = Callable[[Message], Awaitable[None]]


class EventStream:
    """The ASGI endpoint. Path parameter `conversation_id`, or `user_id`: one's own id or `me`, for one's inbox."""

    def __init__(self, database: Database, hub: Hub, settings: Settings) -> None:
        self._database = database
        self._hub = hub
        self._settings = settings
        self._merges = settings.sse.backpressure.drop_strategy == "drop_tokens"

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
            cursor = cursor or end
            if cursor.epoch != end.epoch or not first_offset - 1 <= cursor.offset <= end.offset:
                reader.end(OUT_OF_RANGE)
            self._hub.start(reader, cursor, end)
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            # A task of its own: to wake it is cheaper than to wake all that Serve and Starlette have put around this.
            writing = asyncio.create_task(self._write(reader, cursor, scope[BARE_SEND]))
            leaving = asyncio.create_task(_until_disconnected(receive, reader))
            try:
                await writing
            finally:
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

    async def _write(self, reader: Reader, cursor: Cursor, send: Send) -> None:
        # `send` returns when the connection's buffer has room: a slow reader waits here, and nobody else.
        async def put(message: Message) -> None:
            reader.ping_due = False
            await send(message)
            reader.written_at = time.monotonic()

        await put(body(RETRY if reader.farewell is not None else RETRY + place(cursor)))
        channel, report = reader.channel, self._hub.report
        while reader.farewell is None:
            if reader.is_replaying or reader.offset < channel.base:
                await self._replay(reader, put)
                continue
            reader.was_live = True
            batch = channel.after(reader.offset)
            if batch is not None:
                if channel.last - reader.offset >= report.warn_at:
                    report.watch(reader)
                await put(batch.message)
                reader.offset = batch.last
                report.sent(batch)
            elif reader.ping_due:
                await put(PING)
            else:
                await reader.wait()
        await send({**body(reader.farewell), "more_body": False})

    async def _replay(self, reader: Reader, put: Put) -> None:
        """Up to where the live end was when the replay began."""
        started, report = time.perf_counter(), self._hub.report
        report.watch(reader)
        reader.replay_until = max(reader.replay_until, reader.channel.last)
        while reader.is_replaying and reader.farewell is None:
            for batch in batches(await self._history(reader)):
                if reader.farewell is not None:
                    return
                await put(batch.message)
                reader.offset = batch.last
                report.sent(batch, is_replay=True)
        report.caught_up(time.perf_counter() - started)

    async def _history(self, reader: Reader) -> list[Frame]:
        """What follows the reader's place, from the ring or from the log. Empty where the stream has ended."""
        channel = reader.channel
        if channel.base <= reader.offset < channel.last:
            frames = channel.frames(reader.offset, PAGE_BYTES)
        else:
            page = await self._hub.read_log(reader)
            frames = page.frames if page else []
        if not self._merges:
            return frames
        assert channel.epoch is not None
        kept = merge_deltas(channel.epoch, frames)
        self._hub.report.merged(len(frames) - len(kept))
        return kept


async def _until_disconnected(receive: Receive, reader: Reader) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.end(SILENT)
