"""The periodic work as the access actor runs it, on a real PostgreSQL: it goes on through a loss of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from db.access import TimerSettings
from db.timers import Timers
from tests.integration.conftest import HOUR, Store
from tests.integration.together import end_of_inbox, inbox, together

SETTINGS = TimerSettings(
    away_seconds=45,
    offline_seconds=300,
    abandon_seconds=120,
    retention_hours=48,
    max_events_per_channel=100_000,
    prune_batch_size=10,
    stored_days=30,
)
NONE = timedelta(0)


@asynccontextmanager
async def running(store: Store, count: int = 1, settings: TimerSettings = SETTINGS) -> AsyncIterator[list[int]]:
    """Timers at work; the numbers of events that they pruned."""
    pruned: list[int] = []
    work = [asyncio.create_task(Timers(store.worker, settings, pruned.append).run()) for _ in range(count)]
    try:
        yield pruned
        assert not any(task.done() for task in work)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while True:
        if found := await look():
            return found
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


async def silent_since(superuser: asyncpg.Connection, person: UUID, seconds: int) -> None:
    """Somebody's latest beat was so long ago."""
    statement = "update rustygpt.presence set last_seen_at = now() - make_interval(secs => $2) where user_id = $1"
    await superuser.execute(statement, person, seconds)


async def test_presence_ages_once_however_many_timers_run(store: Store, superuser: asyncpg.Connection) -> None:
    ann, ben, _ = await together(store)
    ann_id = await store.user_id(ann)
    await store.call("heartbeat", ann, "online")
    end = await end_of_inbox(store, ben)

    async def told() -> list[str]:
        events = await inbox(store, ben, end)
        return [p["status"] for _, kind, p in events if kind == "presence.update" and p["user_id"] == str(ann_id)]

    async def is_offline() -> bool:
        return "offline" in await told()

    async with running(store, count=3):
        await silent_since(superuser, ann_id, 46)
        await until(told)
        await silent_since(superuser, ann_id, 301)
        await until(is_offline)
    assert await told() == ["away", "offline"]


async def test_timers_go_on_after_the_database_was_lost(store: Store, superuser: asyncpg.Connection) -> None:
    ann, ben, _ = await together(store)
    ann_id = await store.user_id(ann)
    await store.call("heartbeat", ann, "online")
    end = await end_of_inbox(store, ben)

    async def told() -> bool:
        return any(kind == "presence.update" for _, kind, _ in await inbox(store, ben, end))

    async with running(store):
        for _ in range(3):
            await superuser.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and usename like 'rustygpt_login_worker%'"
            )
        await silent_since(superuser, ann_id, 46)
        await until(told)


async def test_turn_that_no_model_answers_ends_with_a_reason(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    queued, begun, in_work = [await store.ask(ann, conversation) for _ in range(3)]
    [claim] = await store.claim("dead", begun["assistant_message_id"])
    await store.append(claim, 0, "So far", lease=NONE)
    [working] = await store.claim("alive", in_work["assistant_message_id"], lease=HOUR)
    past = "update rustygpt.turns set deadline_at = now() - interval '6 seconds' where conversation_id = $1"
    await superuser.execute(past, conversation)

    async def ended() -> list[dict[str, Any]]:
        events = await store.events(conversation)
        done = [payload for _, kind, payload in events if kind in ("message.done", "error")]
        return done if len(done) >= 4 else []

    async with running(store, count=2):
        seen = await until(ended)
    assert len(await ended()) == 4
    for posted in (queued, begun):
        done, error = [p for p in seen if p["message_id"] == posted["assistant_message_id"]]
        assert (done["finish_reason"], error["code"]) == ("timeout", "assistant_timeout")
        assert "whether the model is running" in error["message"]
    assert (await store.tree(ann, begun["root_id"]))["messages"][1]["content"] == "So far"
    assert not await store.worker.value("worker_expire_turn", NONE)
    assert await store.finish(working), "a replica that holds its lease ends its turn itself"


async def test_turn_within_its_grace_is_left_to_its_replica(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await store.ask(ann, conversation)
    past = "update rustygpt.turns set deadline_at = now() - interval '3 seconds' where conversation_id = $1"
    await superuser.execute(past, conversation)
    assert not await store.worker.value("worker_expire_turn", timedelta(seconds=5))


async def test_turn_whose_model_nobody_runs_ends_with_a_reason(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    orphan = await store.post(ann, conversation, "Hello?", ["gone"])
    served = await store.post(ann, conversation, "Hello?", ["served"])
    waiting = "update rustygpt.turns set created_at = now() - interval '1 hour' where conversation_id = $1"
    await superuser.execute(waiting, conversation)
    await superuser.execute(
        "insert into rustygpt.live_models (model, seen_at) values ('served', now() + interval '1 hour')"
    )

    async def ended() -> list[dict[str, Any]]:
        events = await store.events(conversation)
        done = [payload for _, kind, payload in events if kind in ("message.done", "error")]
        return done if len(done) >= 2 else []

    async with running(store, count=2, settings=replace(SETTINGS, abandon_seconds=1)):
        done, error = await until(ended)
    assert {done["message_id"], error["message_id"]} == {orphan["assistant_message_id"]}
    assert (done["finish_reason"], error["code"]) == ("error", "assistant_stream_error")
    assert "The model gone is not running" in error["message"]
    [claim] = await store.claim("replica", served["assistant_message_id"], model="served")
    assert await store.finish(claim)


async def test_models_are_given_time_to_start_before_their_turns_are_given_up(
    store: Store, superuser: asyncpg.Connection
) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.post(ann, conversation, "Hello?", ["slow"])
    waiting = "update rustygpt.turns set created_at = now() - interval '1 hour' where conversation_id = $1"
    await superuser.execute(waiting, conversation)
    await Timers(store.worker, SETTINGS, lambda _: None).abandon_turns()
    assert len(await store.claim("replica", posted["assistant_message_id"], model="slow")) == 1


async def test_old_events_and_deleted_conversations_go(store: Store, superuser: asyncpg.Connection) -> None:
    ann, _, conversation = await together(store)
    _, _, deleted = await together(store)
    for place in (conversation, deleted):
        await store.post(ann, place, "Hello")
    count = (await store.events(conversation))[-1][0]
    old = "update rustygpt.events set created_at = now() - interval '49 hours' where channel_id = $1"
    await superuser.execute(old, conversation)
    gone = "update rustygpt.conversations set deleted_at = now() - interval '49 hours' where id = $1"
    await superuser.execute(gone, deleted)

    async def is_purged() -> bool:
        left = "select exists (select 1 from rustygpt.conversations where id = $1)"
        pruned_to = (await store.call("stream_open", ann, HOUR, conversation))["first_offset"]
        return pruned_to == count + 1 and not await superuser.fetchval(left, deleted)

    async with running(store, settings=replace(SETTINGS, prune_batch_size=3)) as pruned:
        await until(is_purged)
    assert sum(pruned) >= count
    assert max(pruned) <= 3


async def test_keys_and_sessions_of_the_past_are_purged(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await store.post(ann, conversation, "Hello", once=["old", "print"])
    await store.post(ann, conversation, "Hello", once=["new", "print"])
    await superuser.execute(
        "update rustygpt.idempotency_keys set created_at = now() - interval '25 h' where key = 'old'"
    )
    ann_id = await store.user_id(ann)
    for token, ends in ((b"ended", -25), (b"expired", -1), (b"live", 1)):
        await store.call("open_session", ann_id, token, "csrf", HOUR, HOUR, 10)
        moved = "update rustygpt.sessions set expires_at = now() + make_interval(hours => $2) where token_hash = $1"
        await superuser.execute(moved, token, ends)

    async def keys() -> set[str]:
        return {row["key"] for row in await superuser.fetch("select key from rustygpt.idempotency_keys")}

    async def tokens() -> set[bytes]:
        return {row["token_hash"] for row in await superuser.fetch("select token_hash from rustygpt.sessions")}

    async def is_purged() -> bool:
        return "old" not in await keys() and b"ended" not in await tokens()

    async with running(store):
        await until(is_purged)
    assert "new" in await keys()
    assert {b"expired", b"live"} <= await tokens()
