"""Reading stored answers from the log while they are written."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database

logger = logging.getLogger(__name__)

# Of one answer, in one read; at least one delta, however long it is.
PAGE_DELTAS = 500
PAGE_BYTES = 128 << 10
# Answers read in one statement: after the database was away all of them are due at once.
READERS_AT_ONCE = 64
RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Delta:
    """A part of an answer, as its writer committed it. `payload` is that of a `message.delta` event."""

    payload: dict[str, Any]
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """What follows a place in an answer. `end` is set once no delta follows: {"reason", "usage", "error", "deltas"}."""

    deltas: list[Delta] = field(default_factory=list)
    end: dict[str, Any] | None = None


class AnswerGone(Exception):
    """The answer was deleted, or its reader may not read it any more."""


@dataclass(eq=False)
class _Reader:
    """A place in an answer, and the read that is due there."""

    credential: bytes
    message_id: UUID
    offset: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    page: asyncio.Future[Page | None] = field(default_factory=asyncio.Future)


class Tail:
    """Follows any number of answers over one listening connection, which is opened when the first reader comes.

    A reader takes a page when it wants more, so that a slow one holds up nobody and nothing is queued for it; reads
    that are due at the same time go in one statement. Each of them checks the right to read. A lost database is waited
    for. All methods belong to one event loop.
    """

    def __init__(self, database: Database, poll_seconds: float) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._readers: dict[UUID, set[_Reader]] = {}
        self._due: list[_Reader] = []
        self._listening: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def pages(self, credential: bytes, message_id: UUID, channel_id: UUID) -> AsyncGenerator[Page, None]:
        """The answer's pages from its beginning to its end; none of them is empty. Raises AnswerGone."""
        reader = _Reader(credential, message_id)
        self._join(channel_id, reader)
        try:
            while True:
                reader.woken.clear()
                page = await self._read(reader)
                if page is None:
                    raise AnswerGone
                if page.deltas or page.end:
                    yield page
                if page.end:
                    return
                if not page.deltas:
                    # The slow poll is for notifications that were lost with a connection.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_seconds):
                            await reader.woken.wait()
        finally:
            self._leave(channel_id, reader)

    def _join(self, channel_id: UUID, reader: _Reader) -> None:
        self._readers.setdefault(channel_id, set()).add(reader)
        if self._listening is None or self._listening.done():
            self._listening = _started(self._database.listen("rustygpt_events", self._wake, self._wake_all))

    def _leave(self, channel_id: UUID, reader: _Reader) -> None:
        readers = self._readers[channel_id]
        readers.discard(reader)
        if not readers:
            del self._readers[channel_id]

    def _wake(self, payload: str) -> None:
        for reader in self._readers.get(UUID(payload), ()):
            reader.woken.set()

    def _wake_all(self) -> None:
        for readers in self._readers.values():
            for reader in readers:
                reader.woken.set()

    async def _read(self, reader: _Reader) -> Page | None:
        reader.page = asyncio.get_running_loop().create_future()
        self._due.append(reader)
        if self._reading is None or self._reading.done():
            self._reading = _started(self._read_due())
        return await reader.page

    async def _read_due(self) -> None:
        """While a statement is under way the next batch gathers."""
        while self._due:
            batch = [reader for reader in self._due[:READERS_AT_ONCE] if not reader.page.done()]
            del self._due[:READERS_AT_ONCE]
            try:
                pages = await self._pages(batch)
            except Exception as error:  # noqa: BLE001 whatever it is, each of them is told, and the others are read
                for reader in batch:
                    if not reader.page.done():
                        reader.page.set_exception(error)
                continue
            for reader, page in zip(batch, pages, strict=True):
                if not reader.page.done():
                    reader.page.set_result(page)

    async def _pages(self, readers: list[_Reader]) -> list[Page | None]:
        arguments = (
            [reader.credential for reader in readers],
            [reader.message_id for reader in readers],
            [reader.offset for reader in readers],
            PAGE_DELTAS,
            PAGE_BYTES,
        )
        is_waiting = False
        while True:
            try:
                rows = await self._database.rows("stream_read_answers", *arguments)
                break
            except DatabaseUnavailable:
                if not is_waiting:
                    logger.warning("the database cannot be reached; stored answers wait for it")
                is_waiting = True
                await asyncio.sleep(RETRY_SECONDS)
        deltas: list[list[Delta]] = [[] for _ in readers]
        pages: list[Page | None] = [None] * len(readers)
        for row in rows:
            place = row["place"] - 1
            if row["offset"] is None:
                pages[place] = Page(deltas[place], orjson.loads(row["ended"]) if row["ended"] else None)
            else:
                deltas[place].append(Delta(orjson.loads(row["payload"])["payload"], tuple(row["token_ids"])))
                readers[place].offset = row["offset"]
        return pages


def _started(work: Any) -> asyncio.Task[None]:
    # A context of its own: it outlives the request in which it was begun.
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
