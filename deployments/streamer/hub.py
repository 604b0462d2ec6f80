"""One listening connection and one read a wake-up serve all readers of a replica."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from db.pool import Database
from deployments.config import Sse
from deployments.streamer.channel import Channel
from deployments.streamer.log import Log, Page
from deployments.streamer.reader import OUT_OF_RANGE, REPLACED, SILENT, Reader
from deployments.streamer.report import Report
from deployments.streamer.rights import Rights
from deployments.streamer.wire import Cursor

logger = logging.getLogger(__name__)

# Channels read in one statement: after the database was away all of them are due at once.
FEED_CHANNELS = 200


class Hub:
    """Keeps the channels that somebody reads up to date. All methods belong to one event loop."""

    def __init__(self, database: Database, settings: Sse) -> None:
        self._database = database
        self._settings = settings
        self._log = Log(database)
        self._rights = Rights(database)
        self._channels: dict[UUID, Channel] = {}
        self._readers: set[Reader] = set()
        self._dirty: set[UUID] = set()
        self._work = asyncio.Event()
        self.report = Report(settings)

    @property
    def connections(self) -> int:
        """How many read here now."""
        return len(self._readers)

    async def serve(self) -> None:
        """Listens, reads, rechecks and counts until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._database.listen("rustygpt_events", self._on_notify, self._mark_all))
            group.create_task(self._poll())
            group.create_task(self._feed())
            group.create_task(self._recheck_all())
            group.create_task(self._tick())

    @contextmanager
    def join(self, session: bytes, channel_id: UUID) -> Iterator[Reader]:
        """Registers a reader. What commits from here on reaches the channel: ask for the log's end after it."""
        channel = self._channels.get(channel_id)
        if channel is None:
            channel = self._channels[channel_id] = Channel(channel_id, self._settings.queue_events)
        reader = Reader(session, channel, self._settings)
        channel.readers.add(reader)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            channel.readers.discard(reader)
            if not channel.readers:
                self._drop(channel)

    def start(self, reader: Reader, cursor: Cursor, end: Cursor) -> None:
        """The reader reads on after `cursor`; `end` is where the log stood after the channel was joined."""
        channel = reader.channel
        reader.offset, reader.replay_until = cursor.offset, end.offset
        channel.start(end)
        if channel.epoch != end.epoch:
            self._end(channel, REPLACED)
        self._mark(channel.id)

    async def read_log(self, reader: Reader) -> Page | None:
        """What follows the reader's place, for one who fell behind the ring. None: the stream has ended.

        Waits while the database cannot be reached.
        """
        channel = reader.channel
        pages = await self._log.read([(channel.id, reader.offset)])
        page = pages.get(channel.id)
        if page is None:
            reader.end(SILENT)
        elif page.epoch != channel.epoch:
            reader.end(REPLACED)
        elif not page.follows(reader.offset):
            reader.end(OUT_OF_RANGE)
        elif page.rights_change:
            await self._rights.recheck([reader])
        return page if reader.farewell is None else None

    def _on_notify(self, payload: str) -> None:
        self._mark(UUID(payload))

    def _mark(self, channel_id: UUID) -> None:
        if channel_id in self._channels:
            self._dirty.add(channel_id)
            self._work.set()

    def _mark_all(self) -> None:
        self._dirty.update(self._channels)
        self._work.set()

    def _drop(self, channel: Channel) -> None:
        if self._channels.get(channel.id) is channel:
            del self._channels[channel.id]

    def _end(self, channel: Channel, farewell: bytes) -> None:
        """Readers that come after this get another channel."""
        self._drop(channel)
        for reader in list(channel.readers):
            reader.end(farewell)

    async def _poll(self) -> None:
        # The safety net for notifications that were lost with a connection.
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            self._mark_all()

    async def _feed(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            # Those that were not started yet are marked when they are.
            due = [c for i in self._dirty if (c := self._channels.get(i)) is not None and c.epoch is not None]
            self._dirty = {channel.id for channel in due[FEED_CHANNELS:]}
            if self._dirty:
                self._work.set()
            if due:
                await self._read(due[:FEED_CHANNELS])

    async def _read(self, channels: list[Channel]) -> None:
        pages = await self._log.read([(channel.id, channel.last) for channel in channels])
        suspects: list[Reader] = []
        for channel in channels:
            page = pages.get(channel.id)
            if page is not None and page.epoch == channel.epoch and page.rights_change:
                # Who was removed may still be told so, and sees nothing that was said afterwards.
                channel.append(page.frames[: page.rights_change])
                suspects += channel.readers
        if suspects:
            await self._rights.recheck(suspects)
        for channel in channels:
            self._take(channel, pages.get(channel.id))

    def _take(self, channel: Channel, page: Page | None) -> None:
        if page is None:
            self._end(channel, SILENT)
        elif page.epoch != channel.epoch:
            self._end(channel, REPLACED)
        else:
            channel.skip(page.first_offset)
            if page.frames:
                channel.append(page.frames)
            if channel.last < page.last_offset:
                self._mark(channel.id)

    async def _recheck_all(self) -> None:
        while True:
            await asyncio.sleep(self._settings.recheck_seconds)
            await self._rights.recheck(list(self._readers))

    async def _tick(self) -> None:
        period_seconds = min(1.0, self._settings.heartbeat_seconds / 4)
        while True:
            await asyncio.sleep(period_seconds)
            now = time.monotonic()
            for reader in self._readers:
                reader.tick(now)
            self.report.publish(self._readers)
