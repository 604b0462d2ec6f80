"""People who share a conversation, and what their inboxes tell them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg

from tests.integration.conftest import HOUR, Store


async def join(store: Store, owner: bytes, conversation: UUID, session: bytes, role: str = "member") -> None:
    """The owner adds somebody."""
    await store.call("add_participant", owner, None, conversation, await store.user_id(session), role)


async def together(store: Store) -> tuple[bytes, bytes, UUID]:
    """Ann and Ben in a new conversation in which the assistant is silent."""
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    await store.settings(ann, conversation, reply_mode="never")
    await join(store, ann, conversation, ben)
    return ann, ben, conversation


async def inbox(store: Store, session: bytes, after: int = 0) -> list[tuple[int, str, dict[str, Any]]]:
    """Events of somebody's own channel: offset, type, payload."""
    return await store.events(await store.user_id(session), after)


async def lock_is_waited_for(superuser: asyncpg.Connection) -> None:
    """Returns when somebody waits for a lock, which the caller's transaction holds."""
    waiting = "select exists (select 1 from pg_stat_activity where wait_event_type = 'Lock')"
    async with asyncio.timeout(30):
        while not await superuser.fetchval(waiting):
            pass


async def end_of_inbox(store: Store, session: bytes) -> int:
    """The offset of the inbox's latest event."""
    return (await store.call("stream_open", session, HOUR, None))["last_offset"]
