"""Reads what the database holds of a chapter, as its superuser, past the product."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from tests.chaos.checker import Channel, FinalLog, Message, Turn
from tests.chaos.history import Cursor, Seen
from tests.chaos.waiting import until

CONVERSATIONS = "select id::text, title from rustygpt.conversations where title like $1"
OWNERS = "select id::text, created_by::text as owner from rustygpt.conversations where title like $1"
CHANNELS = "select id::text, epoch, first_offset, last_offset from rustygpt.channels where id = any($1::text[]::uuid[])"
EVENTS = """
select channel_id::text, "offset", type, payload::text as data from rustygpt.events
 where channel_id = any($1::text[]::uuid[])"""
MESSAGES = """
select id::text, conversation_id::text, parent_id::text, role::text, state::text, content, finish_reason
  from rustygpt.messages where conversation_id = any($1::text[]::uuid[])"""
TURNS = """
select message_id::text, state::text, epoch from rustygpt.turns where conversation_id = any($1::text[]::uuid[])"""
NO_OPEN_TURN = """
select count(*) = 0 from rustygpt.turns t join rustygpt.conversations c on c.id = t.conversation_id
 where c.title like $1 and t.state <> 'done'"""


class LogReader:
    """The log of one chapter: its conversations, found by their titles, and the inboxes of its people."""

    def __init__(self, database_url: str, chapter: str, people: Sequence[str]) -> None:
        self._url = database_url
        self._titles = f"%[{chapter}.%"
        self._people = list(people)

    async def wait_for_turns(self, seconds: float) -> bool:
        """Whether every turn has ended within so long."""
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            async with asyncio.timeout(seconds):
                await until(lambda: connection.fetchval(NO_OPEN_TURN, self._titles))
            return True
        except TimeoutError:
            return False
        finally:
            await connection.close()

    async def ends(self) -> dict[str, Cursor]:
        """Where every channel's log ends now."""
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            channels = await self._channels(connection)
            return {channel_id: Cursor(c.epoch, c.last_offset) for channel_id, c in channels.items()}
        finally:
            await connection.close()

    async def owners(self) -> dict[str, str]:
        """Who opened each conversation, and may read it whatever became of the invitations of others."""
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            return {row["id"]: row["owner"] for row in await connection.fetch(OWNERS, self._titles)}
        finally:
            await connection.close()

    async def read(self) -> FinalLog:
        """All of it, of one moment."""
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await self._read(connection)
        finally:
            await connection.close()

    async def _channels(self, connection: Any) -> dict[str, Channel]:
        conversations = [row["id"] for row in await connection.fetch(CONVERSATIONS, self._titles)]
        rows = await connection.fetch(CHANNELS, conversations + self._people)
        return {row["id"]: Channel(row["epoch"], row["first_offset"], row["last_offset"]) for row in rows}

    async def _read(self, connection: Any) -> FinalLog:
        conversations = {row["id"]: row["title"] for row in await connection.fetch(CONVERSATIONS, self._titles)}
        log = FinalLog(await self._channels(connection), conversations)
        for row in await connection.fetch(EVENTS, list(log.channels)):
            channel = log.channels[row["channel_id"]]
            cursor = Cursor(channel.epoch, row["offset"])
            channel.events[row["offset"]] = Seen(cursor, row["type"], row["data"].encode())
        for row in await connection.fetch(MESSAGES, list(conversations)):
            log.messages[row["id"]] = Message(*row.values())
        for row in await connection.fetch(TURNS, list(conversations)):
            log.turns[row["message_id"]] = Turn(*row.values())
        return log
