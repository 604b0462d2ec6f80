"""Streams over a real database: nothing is missed, whatever happens to the reader or to the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from deployments.streamer.channel import WAKE_AT_ONCE
from deployments.streamer.log import PAGE_BYTES, Log
from deployments.streamer.wire import notice
from tests.integration.conftest import HOUR, Store
from tests.support.person import Event
from tests.support.streams import Streams, arrivals, parsed, streaming


@pytest.fixture
async def streams(store: Store) -> AsyncIterator[Streams]:
    """A Streamer whose readers fall out of their queue soon."""
    async with streaming(store.app, queue_events=16) as streams:
        yield streams


@pytest.fixture(scope="module")
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """For what only retention or a restore does."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 1,
    "total_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 0},
}


class Answer:
    """An answer that the test writes."""

    def __init__(self, store: Store, conversation: UUID, claim: dict[str, Any]) -> None:
        self.store, self.conversation, self.claim, self.count = store, conversation, claim, 0

    async def write(self, *texts: str) -> None:
        """Each text is a delta of its own, as the product's writer makes them."""
        for text in texts:
            payload = {
                "id": f"{self.claim['message_id']}:{self.count}",
                "object": "chat.completion.chunk",
                **{
                    name: self.claim[name]
                    for name in ("message_id", "root_id", "conversation_id", "parent_id", "depth")
                },
                "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
            }
            turn, delta = [UUID(self.claim["message_id"])], orjson.dumps(payload).decode()
            epoch = [self.claim["epoch"]]
            await self.store.worker.value("worker_append", turn, epoch, [self.count], [delta], ["1"], HOUR)
            self.count += 1

    async def finish(self) -> None:
        """Its end."""
        turn, epoch = UUID(self.claim["message_id"]), self.claim["epoch"]
        assert await self.store.worker.value("worker_finish", turn, epoch, "stop", orjson.dumps(USAGE).decode(), None)


async def answer(store: Store, conversation: UUID | None = None) -> Answer:
    """An answer to be written, in a new conversation of ann's unless one is given."""
    ann = store.sessions["ann"]
    conversation = conversation or await store.conversation(ann)
    turn = (await store.ask(ann, conversation))["assistant_message_id"]
    [claim] = await store.claim("test", turn)
    return Answer(store, conversation, claim)


async def end_of(store: Store, conversation: UUID) -> int:
    return (await store.events(conversation))[-1][0]


async def until(stream: AsyncIterator[Event], last: int) -> list[Event]:
    """What comes up to the event with this offset."""
    found: list[Event] = []
    async for event in stream:
        found.append(event)
        if int(event.id) >= last:
            break
    return found


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events)


def told(events: list[Event]) -> list[tuple[int, str, dict[str, Any]]]:
    return [(int(event.id), event.type, event.payload) for event in events]


# History and live


async def test_history_is_followed_by_what_is_live(store: Store, streams: Streams) -> None:
    written = await answer(store)
    await written.write(*"abc" * 20)
    async with streams.read("ann", str(written.conversation), 0) as stream:
        seen = await until(stream, await end_of(store, written.conversation))
        await written.write("live")
        seen.append(await anext(stream))
    assert told(seen) == await store.events(written.conversation)


async def test_readers_that_come_and_go_while_much_is_written_miss_nothing(store: Store, streams: Streams) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    chance = random.Random(11)

    async def write() -> None:
        for number in range(300):
            await written.write(f"{number} ")
        await written.finish()

    async def read() -> list[Event]:
        seen: list[Event] = []
        while not seen or seen[-1].type != "thread.activity":
            async with streams.read("ann", str(written.conversation), seen[-1].id if seen else begin) as stream:
                async for event in stream:
                    seen.append(event)
                    if event.type == "thread.activity" or chance.random() < 0.03:
                        break
        return seen

    writing = asyncio.create_task(write())
    readers = await asyncio.gather(*(read() for _ in range(8)))
    await writing
    log = await store.events(written.conversation, begin)
    assert [told(seen) for seen in readers] == [log[: len(seen)] for seen in readers]
    assert all(len(seen) > 300 for seen in readers)


async def test_reader_without_a_cursor_begins_at_the_live_end(store: Store, streams: Streams) -> None:
    written = await answer(store)
    await written.write("before")
    async with streams.read("ann", str(written.conversation)) as stream:
        await written.write("after")
        assert (await anext(stream)).text == "after"


async def test_event_reaches_many_readers_who_wait(store: Store, streams: Streams) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    readers = [await streams.connect("ann", str(written.conversation), begin) for _ in range(2 * WAKE_AT_ONCE + 20)]
    sources = [arrivals(reader) for reader in readers]
    assert {await anext(source) for source in sources} == {b"retry: 1000\n\nid: %d\n\n" % begin}
    await written.write("to all")
    async with asyncio.timeout(10):  # less than the time after which a ping wakes them
        found = [await anext(parsed(source)) for source in sources]
    for reader in readers:
        reader.close()
    assert [event.text for event in found] == ["to all"] * len(readers)


# Slow readers


async def test_reader_that_does_not_read_loses_nothing_and_holds_nobody_up(
    store: Store, streams: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    slow = await streams.connect("ann", str(written.conversation), begin)
    long = "x" * 40_000
    async with streams.read("ann", str(written.conversation), begin) as stream:
        for number in range(250):
            await written.write(f"{number} {long}")
            assert (await anext(stream)).text == f"{number} {long}"
    seen = await until(parsed(arrivals(slow)), await end_of(store, written.conversation))
    slow.close()
    assert told(seen) == await store.events(written.conversation, begin)
    warnings = [record.getMessage() for record in caplog.records if "events behind" in record.getMessage()]
    assert len(warnings) == 1
    assert str(written.conversation) in warnings[0]


async def test_with_drop_tokens_a_reader_that_was_away_gets_the_same_text_in_fewer_events(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    one, other = await answer(store, conversation), await answer(store, conversation)
    begin = await end_of(store, conversation)
    await one.write(*"abcde" * 8)
    await other.write(*"fgh" * 8)
    await one.write(*"ijk" * 8)
    await one.finish()
    last = await end_of(store, conversation)
    async with (
        streaming(store.app, queue_events=16, backpressure={"drop_strategy": "drop_tokens"}) as streams,
        streams.read("ann", str(conversation), begin) as stream,
    ):
        seen = await until(stream, last)
        await other.write("l", "m")
        live = [await anext(stream), await anext(stream)]
    deltas = [event.text for event in seen if event.type == "message.delta"]
    assert deltas == ["abcde" * 8, "fgh" * 8, "ijk" * 8]
    others = [event for event in await store.events(conversation, begin) if event[1] != "message.delta"]
    assert [event for event in told(seen) if event[1] != "message.delta"] == others
    assert [event.text for event in live] == ["l", "m"]


async def test_with_drop_tokens_an_overflow_is_caught_up_with_in_fewer_events(store: Store) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    async with streaming(store.app, queue_events=16, backpressure={"drop_strategy": "drop_tokens"}) as streams:
        slow = await streams.connect("ann", str(written.conversation), begin)
        texts = [f"{number} {'x' * 40_000}" for number in range(250)]
        await written.write(*texts)
        seen = await until(parsed(arrivals(slow)), await end_of(store, written.conversation))
        slow.close()
    assert text(seen) == "".join(texts)
    assert len(seen) < 200


async def test_page_of_long_events_is_bounded(store: Store) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    await written.write(*["x" * 100_000] * 12)
    page = (await Log(store.app).read([(written.conversation, begin)]))[written.conversation]
    sizes = [len(item.data) for item in page.frames]
    assert sum(sizes[:-1]) < PAGE_BYTES <= sum(sizes)
    assert page.last_offset == begin + 12


# Logs that change under their readers


async def prune(owner: asyncpg.Connection, conversation: UUID, first: int) -> None:
    """What retention does: in one transaction, events before `first` go."""
    async with owner.transaction():
        await owner.execute("update rustygpt.channels set first_offset = $2 where id = $1", conversation, first)
        await owner.execute('delete from rustygpt.events where channel_id = $1 and "offset" < $2', conversation, first)


async def test_cursor_older_than_what_is_kept_gets_one_reset(
    store: Store, streams: Streams, owner: asyncpg.Connection
) -> None:
    written = await answer(store)
    await written.write(*"abcdef")
    last = await end_of(store, written.conversation)
    await prune(owner, written.conversation, last - 2)
    async with streams.read("ann", str(written.conversation), last - 4) as stream:
        assert [(event.type, event.id, event.payload) async for event in stream] == [
            ("stream.reset", "", {"reason": "cursor_out_of_range"})
        ]
    # One event earlier than the first one kept is just early enough.
    async with streams.read("ann", str(written.conversation), last - 3) as stream:
        assert text(await until(stream, last)) == "def"


@pytest.mark.parametrize("kept", [0, 5])
async def test_slow_reader_whose_rest_was_pruned_is_told_so(
    store: Store, streams: Streams, owner: asyncpg.Connection, kept: int
) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    slow = await streams.connect("ann", str(written.conversation), begin)
    async with streams.read("ann", str(written.conversation), begin) as stream:
        for number in range(250):
            await written.write(f"{number} {'x' * 40_000}")
            await anext(stream)
    last = await end_of(store, written.conversation)
    await prune(owner, written.conversation, last + 1 - kept)
    seen = [event async for event in parsed(arrivals(slow))]
    slow.close()
    assert seen[-1].type == "stream.reset"
    assert [int(event.id) for event in seen[:-1]] == list(range(begin + 1, begin + len(seen)))
    assert len(seen) < 250


async def test_log_of_another_epoch_ends_streams_and_refuses_old_cursors(
    store: Store, streams: Streams, owner: asyncpg.Connection
) -> None:
    written = await answer(store)
    await written.write(*"abc")
    last = await end_of(store, written.conversation)
    raise_epoch = "update rustygpt.channels set epoch = 2 where id = $1"
    async with streams.read("ann", str(written.conversation), last) as stream:
        await owner.execute(raise_epoch, written.conversation)
        await owner.execute("select pg_notify('rustygpt_events', $1)", str(written.conversation))
        assert [event.payload async for event in stream] == [{"reason": "log_replaced"}]
    async with streams.read("ann", str(written.conversation), last) as stream:
        assert [event.type async for event in stream] == ["stream.reset"]
    async with streams.read("ann", str(written.conversation), f"2:{last}") as stream:
        await written.write("d")
        assert (await anext(stream)).id == f"2:{last + 1}"


async def test_event_that_comes_while_nobody_listens_is_found_afterwards(
    store: Store, streams: Streams, owner: asyncpg.Connection
) -> None:
    written = await answer(store)
    async with streams.read("ann", str(written.conversation)) as stream:
        for _ in range(3):
            terminate = "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'"
            await owner.execute(terminate)
            await written.write("late")
            assert (await anext(stream)).text == "late"


async def test_event_that_nobody_was_notified_of_is_found_by_the_poll(store: Store, owner: asyncpg.Connection) -> None:
    written = await answer(store)
    await written.write("first")
    last = await end_of(store, written.conversation)
    async with (
        streaming(store.app, poll_seconds=0.2) as streams,
        streams.read("ann", str(written.conversation)) as stream,
    ):
        async with owner.transaction():
            await owner.execute(
                'insert into rustygpt.events select channel_id, "offset" + 1, type, payload from rustygpt.events'
                ' where channel_id = $1 and "offset" = $2',
                written.conversation,
                last,
            )
            advance = "update rustygpt.channels set last_offset = last_offset + 1 where id = $1"
            await owner.execute(advance, written.conversation)
        assert (await anext(stream)).text == "first"


# Rights


async def test_removed_participant_is_told_and_sees_nothing_that_was_said_afterwards(
    store: Store, streams: Streams, owner: asyncpg.Connection
) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation, ben_id = await store.conversation(ann), await store.user_id(ben)
    await store.call("add_participant", ann, None, conversation, ben_id, "member")
    async with streams.read("ben", str(conversation)) as stream, streams.read("ann", str(conversation)) as others:
        # Removal and a message in one transaction: the Streamer reads both at once.
        async with owner.transaction():
            await owner.execute("select rustygpt.api_remove_participant($1, $2, $3)", ann, conversation, ben_id)
            await owner.execute(
                "select rustygpt.append_event($1, 'typing.update', $2)",
                conversation,
                orjson.dumps(
                    {
                        "conversation_id": str(conversation),
                        "root_id": str(uuid4()),
                        "user_id": str(ben_id),
                        "expires_at": "2026-01-01T00:00:00Z",
                    }
                ).decode(),
            )
        seen_by_ann = [await anext(others), await anext(others)]
        seen_by_ben = [event async for event in stream]
    assert [event.type for event in seen_by_ann] == ["membership.changed", "typing.update"]
    assert seen_by_ben in ([], seen_by_ann[:1])
    assert await streams.status("ben", str(conversation)) == 403


async def test_streams_of_a_deleted_conversation_end(store: Store, streams: Streams) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    async with streams.read("ann", str(conversation)) as stream:
        await store.call("delete_conversation", ann, conversation)
        seen = [event async for event in stream]
    assert [event.type for event in seen] in ([], ["conversation.updated"])
    assert await streams.status("ann", str(conversation)) == 403


async def test_streams_of_a_log_that_is_gone_end(store: Store, streams: Streams, owner: asyncpg.Connection) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    async with streams.read("ann", str(conversation)) as stream:
        await owner.execute("delete from rustygpt.channels where id = $1", conversation)
        await owner.execute("select pg_notify('rustygpt_events', $1)", str(conversation))
        assert [event async for event in stream] == []


async def test_stream_ends_with_its_session(store: Store) -> None:
    async with streaming(store.app, recheck_seconds=1) as streams:
        session = await store.person("eve")
        async with streams.read("eve", "me") as stream:
            await store.call("logout", session)
            assert [event async for event in stream] == []


# The connection


async def test_silent_stream_sends_pings_and_asks_to_reconnect_when_it_is_old(store: Store) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    async with streaming(store.app, heartbeat_seconds=0.2, connection_seconds=1.5) as streams:
        headers = {"Cookie": "SESSION_ID=ann"}
        answer = (await streams.http.get(f"/conversations/{conversation}", headers=headers)).text
    assert answer.count(": ping\n\n") >= 3
    assert answer.startswith("retry: 1000\n\nid: 1\n\n")
    assert answer.endswith(notice("stream.reconnect", "connection_age").decode())


async def test_reader_that_takes_nothing_is_cut_when_it_is_old(store: Store) -> None:
    written = await answer(store)
    begin = await end_of(store, written.conversation)
    await written.write(*["x" * 40_000] * 250)
    async with streaming(store.app, heartbeat_seconds=0.2, connection_seconds=1) as streams:
        slow = await streams.connect("ann", str(written.conversation), begin)
        seen = [event async for event in parsed(_patiently(slow, streams))]
    assert 0 < len(seen) < 250
    assert told(seen) == (await store.events(written.conversation, begin))[: len(seen)]


async def _patiently(slow: Any, streams: Streams) -> AsyncIterator[bytes]:
    """Reads only when the Streamer has given the reader up."""
    source = arrivals(slow)
    yield await anext(source)
    while streams.hub.connections:  # noqa: ASYNC110 (the hub has no event for it)
        await asyncio.sleep(0.05)
    async for data in source:
        yield data


async def test_schema_is_published_to_everybody(streams: Streams) -> None:
    answer = await streams.http.get("/schema")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/schema+json"
    assert len(answer.json()["oneOf"]) == 15
