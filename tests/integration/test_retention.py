"""What of the log goes and what stays, on a real PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson

from tests.integration.conftest import HOUR, Store
from tests.integration.together import together

DAYS = timedelta(days=2)
PLENTY = 1_000_000
FIRST = UUID(int=0)


async def prune(store: Store, channel: UUID, keep: timedelta = DAYS, most: int = PLENTY, batch: int = 100) -> int:
    """One batch; how many events went."""
    return await store.worker.value("worker_prune_channel", channel, keep, most, batch)


async def candidates(store: Store, most: int = PLENTY, page: int = 1000) -> set[UUID]:
    """Channels with something to prune, from a walk over all pages."""
    found: set[UUID] = set()
    after: str | None = str(FIRST)
    while after is not None:
        text = await store.worker.value("worker_channels_to_prune", UUID(after), DAYS, most, page)
        found |= {UUID(channel) for channel in orjson.loads(text)["channel_ids"]}
        after = orjson.loads(text)["after"]
    return found


async def grow_old(superuser: asyncpg.Connection, channel: UUID, up_to: int) -> None:
    """The channel's events up to this offset happened three days ago."""
    statement = (
        "update rustygpt.events set created_at = now() - interval '3 days' where channel_id = $1 and \"offset\" <= $2"
    )
    await superuser.execute(statement, channel, up_to)


async def state(store: Store, session: bytes, channel: UUID) -> tuple[int, int, list[int]]:
    """First and last offset as a stream is told them, and the offsets that are there."""
    opened = await store.call("stream_open", session, HOUR, channel)
    offsets = [offset for offset, _, _ in await store.events(channel, opened["first_offset"] - 1)]
    return opened["first_offset"], opened["last_offset"], offsets


async def filled(store: Store, count: int) -> tuple[bytes, UUID]:
    """A conversation with exactly so many events."""
    ann, _, conversation = await together(store)
    while (await store.call("stream_open", ann, HOUR, conversation))["last_offset"] < count:
        await store.call("set_typing", ann, conversation, None, 1, 10.0)
        await store.call("set_typing", ann, conversation, None, 0, 10.0)
    first, last, _ = await state(store, ann, conversation)
    assert first == 1
    assert last in (count, count + 1)
    return ann, conversation


async def test_old_events_go_in_batches_and_the_rest_is_contiguous(store: Store, superuser: asyncpg.Connection) -> None:
    ann, conversation = await filled(store, 30)
    _, last, _ = await state(store, ann, conversation)
    await grow_old(superuser, conversation, 25)
    assert [await prune(store, conversation, batch=10) for _ in range(4)] == [10, 10, 5, 0]
    assert await state(store, ann, conversation) == (26, last, list(range(26, last + 1)))


async def test_events_beyond_the_newest_go_however_young(store: Store) -> None:
    ann, conversation = await filled(store, 30)
    _, last, _ = await state(store, ann, conversation)
    assert await prune(store, conversation, most=7) == last - 7
    assert await state(store, ann, conversation) == (last - 6, last, list(range(last - 6, last + 1)))


async def test_young_event_keeps_all_after_it(store: Store, superuser: asyncpg.Connection) -> None:
    ann, conversation = await filled(store, 20)
    await grow_old(superuser, conversation, 20)
    statement = 'update rustygpt.events set created_at = now() where channel_id = $1 and "offset" = 11'
    await superuser.execute(statement, conversation)
    assert await prune(store, conversation) == 10
    assert (await state(store, ann, conversation))[0] == 11


async def test_text_so_far_of_an_open_answer_is_kept(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.ask(ann, conversation)
    [claim] = await store.claim("replica", posted["assistant_message_id"])
    first_delta = (await state(store, ann, conversation))[1] + 1
    for number in range(5):
        await store.append(claim, number, f"{number} ", tokens=str(number))
    await grow_old(superuser, conversation, 1000)
    assert await prune(store, conversation, most=1) == first_delta - 1
    assert await prune(store, conversation, most=1) == 0
    [again] = await store.claim("another", posted["assistant_message_id"], lease=HOUR) or [claim]
    assert (await store.tree(ann, posted["root_id"]))["messages"][1]["content"] == "0 1 2 3 4 "
    assert await store.finish(again)
    await grow_old(superuser, conversation, 1000)
    assert await prune(store, conversation, keep=DAYS) > 5
    assert (await store.tree(ann, posted["root_id"]))["messages"][1]["content"] == "0 1 2 3 4 "


async def test_log_goes_on_after_everything_was_pruned(store: Store, superuser: asyncpg.Connection) -> None:
    ann, conversation = await filled(store, 10)
    _, last, _ = await state(store, ann, conversation)
    await grow_old(superuser, conversation, last)
    assert await prune(store, conversation) == last
    assert await state(store, ann, conversation) == (last + 1, last, [])
    await store.post(ann, conversation, "Hello again")
    first, newest, offsets = await state(store, ann, conversation)
    assert (first, offsets) == (last + 1, list(range(last + 1, newest + 1)))


async def test_only_channels_with_something_to_prune_are_found(store: Store, superuser: asyncpg.Connection) -> None:
    _, young = await filled(store, 10)
    _, old = await filled(store, 10)
    await grow_old(superuser, old, 1)
    for page in (1, 3, 1000):
        found = await candidates(store, page=page)
        assert old in found
        assert young not in found
    assert {young, old} <= await candidates(store, most=5)
    await prune(store, old)
    assert old not in await candidates(store)


# Sequential scans that the current transaction made of tables that grow.
SCANS = """
select sum(pg_stat_get_xact_numscans(c.oid))
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'rustygpt'
   and c.relname in ('events', 'messages', 'turns', 'channels', 'conversations', 'read_marks')
"""


async def test_retention_has_an_index_for_all_that_it_looks_for(store: Store, superuser: asyncpg.Connection) -> None:
    ann, conversation = await filled(store, 10)
    posted = await store.post(ann, conversation, "Hello")
    await store.reply(ann, posted["root_id"], "Again")
    statement = "update rustygpt.conversations set deleted_at = now() - interval '3 days' where id = $1"
    async with superuser.transaction():
        # Tables as small as here are scanned where that is quicker; forbidden to, only where no index serves.
        await superuser.execute("set local enable_seqscan = off")
        await superuser.execute(statement, conversation)
        before = await superuser.fetchval(SCANS)
        await superuser.fetchval("select rustygpt.worker_channels_to_prune($1, $2, 2, 1000)", FIRST, DAYS)
        assert await superuser.fetchval("select rustygpt.worker_prune_channel($1, $2, 5, 3)", conversation, DAYS) == 3
        while await superuser.fetchval("select rustygpt.worker_purge_conversation($1, 3)", DAYS):
            pass
        assert not await superuser.fetchval(
            "select exists (select 1 from rustygpt.messages where id = $1)", UUID(posted["root_id"])
        )
        assert await superuser.fetchval(SCANS) == before


async def test_deleted_conversation_is_purged_step_by_step(store: Store, superuser: asyncpg.Connection) -> None:
    ann, ben, conversation = await together(store)
    await store.settings(ann, conversation, reply_mode="always")
    posted = await store.ask(ann, conversation)
    await store.answer(posted)
    root = posted["root_id"]
    for number in range(6):
        await store.reply(ben, root, f"reply {number}")
    await store.call("mark_read", ben, UUID(root), None)
    other = await store.post(ann, await store.conversation(ann), "stays")

    async def purge() -> bool:
        return await store.worker.value("worker_purge_conversation", DAYS, 5)

    statement = "update rustygpt.conversations set deleted_at = now() - $2::interval where id = $1"
    await superuser.execute(statement, conversation, timedelta(days=1))
    assert not await purge(), "its time has not come"
    await superuser.execute(statement, conversation, timedelta(days=3))
    steps = 0
    while await purge():
        steps += 1
    assert steps > 4, "in batches"
    for table, column in (
        ("conversations", "id"),
        ("channels", "id"),
        ("events", "channel_id"),
        ("messages", "conversation_id"),
        ("turns", "conversation_id"),
        ("participants", "conversation_id"),
        ("read_marks", "conversation_id"),
    ):
        left = await superuser.fetchval(f"select count(*) from rustygpt.{table} where {column} = $1", conversation)
        assert left == 0, table
    assert (await store.tree(ann, other["root_id"]))["messages"][0]["content"] == "stays"
