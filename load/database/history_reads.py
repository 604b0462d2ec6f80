"""The reads that people's screens make of long conversations, as the Gateway and the Streamer send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from db.pool import Database
from db.queries import QUERIES as PRODUCT_QUERIES
from load.database.history_data import HOUR, QUERIES, Person, message_at, root

TREE_PAGE = 200
THREADS_PAGE = 50
STREAM_PAGE, STREAM_BYTES = 500, 256 << 10
CONVERSATIONS_PAGE = 50
SEARCH_PAGE = 20
WARM_UP = 10  # calls; after five PostgreSQL may go from plans for given values to one for all


@dataclass(frozen=True)
class Read:
    """One kind of call. Each of `arguments` is a case; they take turns."""

    name: str
    query: str
    arguments: Sequence[tuple[Any, ...]]


class Reader:
    """Makes the calls of one person. `thread_messages` is the length of the long threads."""

    def __init__(self, admin: asyncpg.Connection, app: Database, person: Person, thread_messages: int) -> None:
        self._admin = admin
        self._app = app
        self._session = person.session
        self._thread_messages = thread_messages

    async def tree(self, name: str, conversation_id: UUID) -> list[Read]:
        """Pages of a long thread: first, middle, last, and backwards."""
        root_id = await root(self._admin, conversation_id)
        middle = await message_at(self._admin, root_id, self._thread_messages // 2)
        late = await message_at(self._admin, root_id, self._thread_messages - TREE_PAGE - 1)
        last = await message_at(self._admin, root_id, self._thread_messages - 1)
        pages = {
            "first": (None, None),
            "middle": (middle, None),
            "last": (late, None),
            "back from the end": (None, last),
            "back from the middle": (None, middle),
        }
        return [
            Read(f"tree, {name}: {page}", "get_tree", [(self._session, root_id, *marks, TREE_PAGE)])
            for page, marks in pages.items()
        ]

    async def trees(self, name: str, conversations: Sequence[UUID]) -> Read:
        """First pages of many short threads."""
        roots = [await root(self._admin, conversation_id) for conversation_id in conversations]
        return Read(f"tree, {name}", "get_tree", [(self._session, root_id, None, None, TREE_PAGE) for root_id in roots])

    async def thread_pages(self, name: str, conversation_id: UUID) -> list[Read]:
        """First, middle and last page of a long list of threads."""
        marks: list[tuple[datetime | None, UUID | None]] = [(None, None)]
        while True:
            args = (self._session, conversation_id, *marks[-1], THREADS_PAGE)
            if not (mark := orjson.loads(await self._app.value("list_threads", *args))["next_before"]):
                break
            marks.append(_mark(mark))
        pages = {"first": marks[0], "middle": marks[len(marks) // 2], "last": marks[-1]}
        return [
            Read(f"threads, {name}: {page}", "list_threads", [(self._session, conversation_id, *mark, THREADS_PAGE)])
            for page, mark in pages.items()
        ]

    def threads(self, name: str, conversations: Sequence[UUID]) -> Read:
        """First pages of many short lists of threads."""
        arguments = [(self._session, place, None, None, THREADS_PAGE) for place in conversations]
        return Read(f"threads, {name}", "list_threads", arguments)

    def log(self, conversation_id: UUID, events: int) -> list[Read]:
        """A stream's start, and pages of a long log: from its beginning, in its middle, the last event, none."""
        after = {"from the beginning": 0, "middle": events // 2, "one new event": events - 1, "nothing new": events}
        return [
            Read("stream: open", "stream_open", [(self._session, HOUR, conversation_id)]),
            *(
                Read(f"stream: {page}", "stream_read", [([conversation_id], [offset], STREAM_PAGE, STREAM_BYTES)])
                for page, offset in after.items()
            ),
        ]

    async def conversation_pages(self) -> list[Read]:
        """First and last page of one's conversations."""
        marks: list[tuple[datetime | None, UUID | None]] = [(None, None)]
        while True:
            args = (self._session, None, None, *marks[-1], CONVERSATIONS_PAGE)
            if not (mark := orjson.loads(await self._app.value("list_conversations", *args))["next_before"]):
                break
            marks.append(_mark(mark))
        return [
            Read(
                f"conversations: {page}", "list_conversations", [(self._session, None, None, *mark, CONVERSATIONS_PAGE)]
            )
            for page, mark in (("first", marks[0]), ("last", marks[-1]))
        ]

    def unread(self, name: str, conversations: Sequence[UUID]) -> Read:
        """Threads with something unread."""
        return Read(f"unread, {name}", "list_unread", [(self._session, place) for place in conversations])

    def search(self, queries: Mapping[str, str]) -> list[Read]:
        """First pages of what a query finds in all one's conversations."""
        return [
            Read(f"search: {name}", "search", [(self._session, query, None, None, None, None, SEARCH_PAGE)])
            for name, query in queries.items()
        ]


def _mark(text: str) -> tuple[datetime, UUID]:
    at, _, row_id = text.partition(",")
    return datetime.fromisoformat(at), UUID(row_id)


@dataclass(frozen=True)
class Touched:
    """What one call did to the tables that grow, messages and events: scans of a whole table, and rows fetched."""

    whole_scans: int
    rows: int


async def touched(admin: asyncpg.Connection, read: Read) -> Touched:
    """Of the read's first case, as the server counts it, after enough calls for a lasting plan."""
    for number in range(WARM_UP):
        await admin.fetch(PRODUCT_QUERIES[read.query], *read.arguments[number % len(read.arguments)])
    async with admin.transaction():
        before = await _counted(admin)
        await admin.fetch(PRODUCT_QUERIES[read.query], *read.arguments[0])
        after = await _counted(admin)
    return Touched(after.whole_scans - before.whole_scans, after.rows - before.rows)


async def _counted(admin: asyncpg.Connection) -> Touched:
    # Of this transaction and of earlier ones that the server has not yet added to its statistics.
    tables = await admin.fetch(QUERIES["reads"])
    return Touched(
        sum(table["seq_scan"] for table in tables),
        sum(table["seq_tup_read"] + table["idx_tup_fetch"] for table in tables),
    )
