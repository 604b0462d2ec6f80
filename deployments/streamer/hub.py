"""One listening connection and one read a wake-up serve all readers of a replica."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.config import Sse
from deployments.observability.metrics import SSE_CONNECTIONS, SSE_EVENTS_SENT
from deployments.streamer.channel import Channel
from deployments.streamer.wire import Cursor, Frame, frame

logger = logging.getLogger(__name__)

READ_LIMIT = 500


@dataclass(eq=False)
class Reader:
    """Somebody who reads a channel by the right of a session."""

    session: bytes
    channel: Channel
    revoked: bool = False


class Hub:
    """Keeps the channels that somebody reads up to date. All methods belong to one event loop."""

    def __init__(self, database: Database, settings: Sse) -> None:
        self._database = database
        self._settings = settings
        self._channels: dict[UUID, Channel] = {}
        self._readers: set[Reader] = set()
        self._dirty: set[UUID] = set()
        self._work = asyncio.Event()
        self._recheck = asyncio.Event()
        self.sent: Counter[str] = Counter()

    async def serve(self) -> None:
        """Listens, reads, rechecks and counts until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._database.listen("rustygpt_events", self._on_notify, self._mark_all))
            group.create_task(self._poll())
            group.create_task(self._feed())
            group.create_task(self._recheck_rights())
            group.create_task(self._report())

    @contextmanager
    def join(self, session: bytes, channel_id: UUID) -> Iterator[Reader]:
        """Registers a reader. What commits from here on reaches the channel: ask for the log's end after it."""
        channel = self._channels.get(channel_id)
        if channel is None:
            channel = self._channels[channel_id] = Channel(channel_id, self._settings.ring_events)
        reader = Reader(session, channel)
        channel.readers += 1
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            channel.readers -= 1
            if not channel.readers and self._channels.get(channel_id) is channel:
                del self._channels[channel_id]

    def start(self, channel: Channel, end: Cursor) -> None:
        """`end` is where the log stood after the channel was joined."""
        channel.start(end)
        self._mark(channel.id)

    async def read(self, channel: Channel, after: int) -> list[Frame]:
        """Events after an offset, from the log: for a reader who fell behind the ring."""
        rows = await self._database.rows("stream_read", [channel.id], [after], READ_LIMIT)
        return [frame(Cursor(row["epoch"], row["offset"]), row["type"], row["payload"]) for row in rows]

    def _on_notify(self, payload: str) -> None:
        self._mark(UUID(payload))

    def _mark(self, channel_id: UUID) -> None:
        if channel_id in self._channels:
            self._dirty.add(channel_id)
            self._work.set()

    def _mark_all(self) -> None:
        for channel_id in self._channels:
            self._mark(channel_id)

    async def _poll(self) -> None:
        # The safety net for notifications that were lost with a connection.
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            self._mark_all()

    async def _feed(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            channels = [self._channels[i] for i in self._dirty if i in self._channels]
            self._dirty.clear()
            channels = [channel for channel in channels if channel.epoch is not None]
            if not channels:
                continue
            try:
                rows = await self._database.rows(
                    "stream_read", [c.id for c in channels], [c.last for c in channels], READ_LIMIT
                )
            except DatabaseUnavailable:
                logger.warning("the database cannot be reached; streams wait for it")
                await asyncio.sleep(0.2)
                for channel in channels:
                    self._mark(channel.id)
                continue
            found: dict[UUID, list[tuple[int, Frame]]] = defaultdict(list)
            for row in rows:
                item = frame(Cursor(row["epoch"], row["offset"]), row["type"], row["payload"])
                found[row["channel_id"]].append((row["epoch"], item))
            for channel in channels:
                self._take(channel, found[channel.id])

    def _take(self, channel: Channel, items: list[tuple[int, Frame]]) -> None:
        if not items:
            return
        if any(epoch != channel.epoch for epoch, _ in items):
            self._channels.pop(channel.id, None)
            channel.reset()
            return
        channel.append([item for _, item in items])
        if len(items) == READ_LIMIT:
            self._mark(channel.id)
        if any(item.type == "membership.changed" for _, item in items):
            self._recheck.set()

    async def _recheck_rights(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.recheck_seconds):
                    await self._recheck.wait()
            except TimeoutError:
                pass
            self._recheck.clear()
            readers = list(self._readers)
            if not readers:
                continue
            try:
                revoked = await self._database.value(
                    "stream_recheck", [r.session for r in readers], [r.channel.id for r in readers]
                )
            except DatabaseUnavailable:
                continue
            for place in orjson.loads(revoked):
                reader = readers[place - 1]
                reader.revoked = True
                reader.channel.wake()

    async def _report(self, period_seconds: float = 1.0) -> None:
        while True:
            await asyncio.sleep(period_seconds)
            SSE_CONNECTIONS.set(len(self._readers))
            for kind, count in self.sent.items():
                SSE_EVENTS_SENT.inc(count, tags={"type": kind})
            self.sent.clear()
