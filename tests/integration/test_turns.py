"""Leases, fencing and the event log, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from tests.integration.conftest import HOUR, Store

NONE = timedelta(0)


async def test_turn_is_claimed_by_one_replica_only(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    claims = await asyncio.gather(*(store.claim(f"replica {i}", turn) for i in range(8)))
    assert sum(len(claim) for claim in claims) == 1


async def test_stale_writer_cannot_write(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    [old] = await store.claim("old", turn, lease=NONE)
    assert await store.append(old, 0, "one ", lease=NONE) == []
    [new] = await store.claim("new", turn)
    assert new["epoch"] == old["epoch"] + 1
    before = await store.events(conversation)
    assert await store.append(old, 1, "stale") == [[turn, "lost"]]
    assert await store.finish(old) is False
    assert await store.events(conversation) == before


async def test_takeover_starts_from_the_stored_tokens(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    [old] = await store.claim("old", turn)
    await store.append(old, 0, "one ", tokens="11,12")
    await store.append(old, 1, "two ", lease=NONE, tokens="13")
    [new] = await store.claim("new", turn)
    assert (new["token_ids"], new["delta_count"]) == ([11, 12, 13], 2)
    await store.append(new, 2, "three")
    assert await store.finish(new)
    tree = await store.tree(store.sessions["ann"], new["root_id"])
    assert tree["messages"][1]["content"] == "one two three"


async def test_repeated_append_is_stored_once(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    [claim] = await store.claim("replica", turn)
    await store.append(claim, 0, "once")
    after_first = await store.events(conversation)
    assert await store.append(claim, 0, "once") == []
    assert await store.events(conversation) == after_first


async def test_answer_ends_exactly_once(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    [claim] = await store.claim("replica", turn)
    ends = await asyncio.gather(*(store.finish(claim) for _ in range(4)))
    assert ends.count(True) == 1
    kinds = [kind for _, kind, _ in await store.events(conversation)]
    assert kinds.count("message.done") == 1


async def test_turn_that_fails_five_times_ends_with_an_error(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    for _ in range(5):
        assert len(await store.claim("crashing", turn, lease=NONE)) == 1
    assert await store.claim("crashing", turn, lease=NONE) == []
    events = await store.events(conversation)
    assert [kind for _, kind, _ in events][-3:] == ["message.done", "error", "thread.activity"]
    assert events[-3][2]["finish_reason"] == "error"


async def test_cancel_reaches_the_writer_with_its_next_append(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    [claim] = await store.claim("replica", turn)
    await store.append(claim, 0, "so far")
    assert (await store.call("cancel", store.sessions["ann"], UUID(turn)))["status"] == "cancelling"
    assert await store.append(claim, 1, " and more") == [[turn, "cancel"]]
    await store.finish(claim, "cancelled")
    assert (await store.call("cancel", store.sessions["ann"], UUID(turn)))["status"] == "cancelled"


async def test_queued_turn_is_cancelled_at_once(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    turn = (await store.ask(store.sessions["ann"], conversation))["assistant_message_id"]
    assert (await store.call("cancel", store.sessions["ann"], UUID(turn)))["status"] == "cancelled"
    assert await store.claim("late", turn) == []


async def test_offsets_are_gapless_under_concurrent_writers(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    turns = [(await store.ask(ann, conversation))["assistant_message_id"] for _ in range(4)]
    claims = [(await store.claim(f"replica {i}", turn))[0] for i, turn in enumerate(turns)]

    async def write(claim: dict[str, object]) -> None:
        for number in range(20):
            await store.append(claim, number, f"{number} ")
        await store.finish(claim)

    await asyncio.gather(*(write(claim) for claim in claims))
    offsets = [offset for offset, _, _ in await store.events(conversation)]
    assert offsets == list(range(1, len(offsets) + 1))
    assert len(offsets) >= 4 * 21


async def test_one_flush_serves_turns_of_many_conversations(store: Store) -> None:
    ann = store.sessions["ann"]
    places = [await store.conversation(ann) for _ in range(3)]
    turns = [(await store.ask(ann, place))["assistant_message_id"] for place in places]
    claims = [(await store.claim("replica", turn))[0] for turn in turns]
    await flush(store, (claims[0], 0, "hi"), (claims[1], 0, None), (claims[2], 0, "hi"))
    counts = [sum(kind == "message.delta" for _, kind, _ in await store.events(p)) for p in places]
    assert counts == [1, 0, 1]


async def test_one_flush_tells_apart_who_may_write_and_what_is_new(store: Store) -> None:
    ann = store.sessions["ann"]
    place, other = await store.conversation(ann), await store.conversation(ann)
    turns = [(await store.ask(ann, where))["assistant_message_id"] for where in (other, other, place, place, place)]
    claims = [(await store.claim("replica", turn, lease=NONE if turn == turns[0] else HOUR))[0] for turn in turns]
    stale, cancelled, one, two, repeated = claims
    await store.append(repeated, 0, "stored")
    await store.claim("another", turns[0])
    await store.call("cancel", ann, UUID(turns[1]))
    gone = {"message_id": str(uuid4()), "epoch": 1}
    before = {where: len(await store.events(where)) for where in (place, other)}
    told = await flush(
        store,
        (one, 0, "1"),
        (two, 0, "2"),
        (repeated, 0, "again"),
        (stale, 0, "stale"),
        (cancelled, 0, "5"),
        (gone, 0, "6"),
    )
    assert sorted(told) == sorted([[turns[0], "lost"], [turns[1], "cancel"], [gone["message_id"], "lost"]])
    written = {where: (await store.events(where))[before[where] :] for where in (place, other)}
    assert {payload["choices"][0]["delta"]["content"] for _, _, payload in written[place]} == {"1", "2"}
    assert [payload["choices"][0]["delta"]["content"] for _, _, payload in written[other]] == ["5"]
    assert [offset for offset, _, _ in written[place]] == [before[place] + 1, before[place] + 2]
    assert await flush(store, (repeated, 1, "next"), (one, 1, "more")) == []


async def test_a_flush_wakes_the_readers_of_every_conversation_once(
    store: Store, superuser: asyncpg.Connection
) -> None:
    ann = store.sessions["ann"]
    places = [await store.conversation(ann) for _ in range(3)]
    turns = [(await store.ask(ann, place))["assistant_message_id"] for place in (*places, places[0])]
    claims = [(await store.claim("replica", turn))[0] for turn in turns]
    woken: list[UUID] = []
    await superuser.add_listener("rustygpt_events", lambda *args: woken.append(UUID(args[3])))
    await flush(store, *((claim, 0, None if claim is claims[2] else "hi") for claim in claims))
    await superuser.fetchval("select 1")  # what was sent before comes before the answer
    assert sorted(woken) == sorted(places[:2])


async def flush(store: Store, *items: tuple[dict[str, Any], int, str | None]) -> list[list[str]]:
    """One append of several turns: (claim, the delta's number, its text); what the replica is told."""
    payloads = [
        None if text is None else orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).decode()
        for _, _, text in items
    ]
    answer = await store.worker.value(
        "worker_append",
        [UUID(claim["message_id"]) for claim, _, _ in items],
        [claim["epoch"] for claim, _, _ in items],
        [number for _, number, _ in items],
        payloads,
        [None if text is None else "1" for _, _, text in items],
        HOUR,
    )
    return orjson.loads(answer)
