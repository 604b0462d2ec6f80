"""Group commit: what is flushed when, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from deployments.model import append_writer
from deployments.model.append_writer import AppendWriter, OpenTurn
from deployments.model.claim import Claim
from deployments.model.engine import TokenDelta
from tests.integration.conftest import HOUR, Store


@asynccontextmanager
async def running(store: Store, lease: timedelta = HOUR) -> AsyncIterator[AppendWriter]:
    """A writer that flushes."""
    writer = AppendWriter(store.worker, lease)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def open_turn(store: Store, writer: AppendWriter, lease: timedelta = HOUR) -> OpenTurn:
    """A turn in a conversation of its own."""
    ann = store.sessions["ann"]
    turn = (await store.ask(ann, await store.conversation(ann)))["assistant_message_id"]
    return writer.open(Claim.from_json((await store.claim("replica", turn, lease=lease))[0]))


async def deltas(store: Store, turn: OpenTurn) -> list[str]:
    """Texts in the log."""
    events = await store.events(turn.claim.conversation_id)
    return [payload["choices"][0]["delta"]["content"] for _, kind, payload in events if kind == "message.delta"]


def word(text: str) -> TokenDelta:
    return TokenDelta((1,), text)


async def test_first_words_and_the_end_do_not_wait_but_what_is_between_gathers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_writer, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(append_writer, "LONGEST_PAUSE_SECONDS", 3600.0)
    async with running(store) as writer, asyncio.timeout(30):
        turn = await open_turn(store, writer)
        writer.add(turn, word("one"))
        await turn.settled.wait()
        for text in (" two", " three", " four"):
            writer.add(turn, word(text))
            assert await deltas(store, turn) == ["one"]
        another = await open_turn(store, writer)
        writer.add(another, word("uno"))
        await another.settled.wait()
        assert await deltas(store, turn) == ["one", " two three four"]
        writer.add(turn, word(" five"))
        await writer.settle(turn)
        assert await deltas(store, turn) == ["one", " two three four", " five"]


async def test_the_more_answers_the_fewer_flushes_for_a_token(store: Store) -> None:
    async with running(store) as writer:
        turns = [await open_turn(store, writer) for _ in range(10)]
        for number in range(60):
            for turn in turns:
                writer.add(turn, word(f"{number} "))
            await asyncio.sleep(0.005)
        await asyncio.gather(*(writer.settle(turn) for turn in turns))
        written = [await deltas(store, turn) for turn in turns]
    assert {"".join(texts) for texts in written} == {"".join(f"{number} " for number in range(60))}
    assert max(len(texts) for texts in written) <= 60 // 4


async def test_lease_of_a_turn_without_text_is_renewed(store: Store, superuser: asyncpg.Connection) -> None:
    lease = timedelta(seconds=1)
    ends = "select lease_expires_at from rustygpt.turns where message_id = $1"
    async with running(store, lease) as writer, asyncio.timeout(30):
        turn = await open_turn(store, writer, lease)
        busy = await open_turn(store, writer, lease)
        first = await superuser.fetchval(ends, turn.claim.message_id)
        while await superuser.fetchval(ends, turn.claim.message_id) < first + 3 * lease:
            writer.add(busy, word("."))
            await writer.settle(busy)
            assert await store.claim("another", str(turn.claim.message_id)) == []
    assert not turn.lost


async def test_turn_that_another_replica_took_is_lost_at_the_next_renewal(store: Store) -> None:
    async with running(store, timedelta(seconds=1)) as writer, asyncio.timeout(30):
        turn = await open_turn(store, writer, lease=timedelta(0))
        assert len(await store.claim("another", str(turn.claim.message_id))) == 1
        while not turn.lost:
            await store.events(turn.claim.conversation_id)
        writer.add(turn, word("stale"))
        assert await deltas(store, turn) == []
