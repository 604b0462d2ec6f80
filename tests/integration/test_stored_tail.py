"""Stored answers followed through the log, on a real PostgreSQL: every reader gets the same, whatever is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from db.errors import DatabaseError, DatabaseUnavailable, RefusedError
from db.migrate import migrate
from db.pool import Database, Grant
from deployments.config import Settings, Sse
from deployments.gateway.threads.dispatcher import TurnDispatcher
from deployments.gateway.v1.callers import READ, WRITE, Caller
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.limits import Limits
from deployments.gateway.v1.stored import tail
from deployments.gateway.v1.stored.answer import StoredAnswer
from deployments.gateway.v1.stored.store import Store
from deployments.generation import Ask, Ended, Item, Logprob, Piece, Sampling, Started
from deployments.model.append_writer import AppendWriter
from deployments.model.claim import Claim
from deployments.model.engine import TokenDelta
from deployments.prefixes import Prefix
from tests.conftest import connect
from tests.integration.conftest import HOUR
from tests.integration.conftest import Store as Functions

ASKED = Ask(messages=({"role": "user", "content": "Hello?"},))
LISTENING = "select count(*) from pg_stat_activity where query ilike 'listen%' and datname = current_database()"
NEVER = 60.0  # seconds between polls that a test does not wait for


class NoModels(TurnDispatcher):
    """There is no cluster: the tests write the answers themselves."""

    def hand_over(self, message_id: UUID, model_id: str, prefix: Prefix) -> None:
        """Nobody is there."""


class Watched(Database):
    """Tells of each read that has come back."""

    def __init__(self, pool: asyncpg.Pool, grant: Grant) -> None:
        super().__init__(pool, grant)
        self.has_read = asyncio.Event()
        self.deltas = 0

    async def rows(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """As of every database."""
        found = await super().rows(name, *args)
        self.deltas += sum(row["offset"] is not None for row in found)
        self.has_read.set()
        return found


class Failing(Database):
    """Reads the log when it may, and answers once only that something is wrong."""

    def __init__(self, pool: asyncpg.Pool, grant: Grant, error: DatabaseError) -> None:
        super().__init__(pool, grant)
        self.may_read = asyncio.Event()
        self._errors = [error]

    async def rows(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """As of every database, later."""
        await self.may_read.wait()
        return await super().rows(name, *args)

    async def value(self, name: str, *args: Any, timeout_seconds: float | None = None) -> Any:
        """As of every database, the second time."""
        if name == "read_response" and self._errors:
            raise self._errors.pop()
        return await super().value(name, *args, timeout_seconds=timeout_seconds)


class Deaf(Database):
    """Hears of nothing."""

    async def listen(
        self,
        channel: str,
        on_payload: Callable[[str], None],
        on_connected: Callable[[], None],
        retry_seconds: float = 0.5,
    ) -> None:
        """For ever."""
        await asyncio.Event().wait()


def answers_of(database: Database, poll_seconds: float = NEVER) -> Store:
    """A Gateway's stored answers."""
    settings = Settings(sse=Sse(poll_seconds=poll_seconds))
    return Store(database, NoModels(), Limits(None, None), settings)


@pytest.fixture
async def gateway(store: Functions) -> AsyncIterator[Store]:
    """Stored answers of a Gateway that hears of what is written and never polls."""
    made = answers_of(store.app)
    yield made
    await gone_silent(made)


async def gone_silent(gateway: Store) -> None:
    """Ends its listening connection, as the end of the process does."""
    listening = gateway._tail._listening  # pyright: ignore[reportPrivateUsage] it has no end of its own
    if listening is not None:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@pytest.fixture
async def ann(store: Functions) -> Caller:
    """Somebody with a session."""
    session = store.sessions["ann"]
    return Caller(await store.user_id(session), session, None, frozenset({READ, WRITE}))


async def begin(gateway: Store, caller: Caller, ask: Ask = ASKED) -> StoredAnswer:
    """A new stored chat."""
    return await gateway.create(caller, "chat", "default", ask, {}, None, False)


async def written(store: Functions, answer: StoredAnswer, texts: list[str], reason: str = "stop") -> None:
    """Writes the answer, as a replica does."""
    [claim] = await store.claim("replica", str(answer.message_id))
    for number, text in enumerate(texts):
        await store.append(claim, number, text)
    assert await store.finish(claim, reason)


async def all_of(batches: AsyncGenerator[list[Item], None]) -> list[Item]:
    """Every item, to the end."""
    async with aclosing(batches), asyncio.timeout(30):
        return [item async for batch in batches for item in batch]


def expected(texts: list[str], reason: Any = "stop") -> list[Item]:
    """What an answer with these deltas of a token each is."""
    return [Started(0), *(Piece(0, text, (1,)) for text in texts), Ended(0, reason, 0, len(texts), 0)]


async def some(batches: AsyncGenerator[list[Item], None], pieces: int) -> list[Item]:
    """Items, until there are so many pieces."""
    items: list[Item] = []
    async with asyncio.timeout(30):
        while sum(isinstance(item, Piece) for item in items) < pieces:
            items += await anext(batches)
    return items


async def test_reader_who_was_there_and_one_who_comes_later_get_the_same(
    store: Functions, gateway: Store, ann: Caller
) -> None:
    answer = await begin(gateway, ann)
    live = asyncio.create_task(all_of(gateway.follow(answer)))
    texts = ["one ", "two ", "three"]
    await written(store, answer, texts)
    assert await live == expected(texts)
    assert await all_of(gateway.follow(answer)) == expected(texts)
    another = answers_of(store.app)
    assert await all_of(another.follow(answer)) == expected(texts)
    await gone_silent(another)


async def test_who_waits_is_woken_by_each_commit(store: Functions, ann: Caller) -> None:
    database = Watched(store.app._pool, store.app._grant)  # pyright: ignore[reportPrivateUsage]
    gateway = answers_of(database)
    answer = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(answer.message_id))
    async with aclosing(gateway.follow(answer)) as batches, asyncio.timeout(30):
        for number, text in enumerate(["one ", "two ", "three"]):
            database.has_read.clear()
            waiting = asyncio.create_task(anext(batches))
            await database.has_read.wait()
            await store.append(claim, number, text)
            assert (await waiting)[-1] == Piece(0, text, (1,))
    await gone_silent(gateway)


async def test_one_connection_listens_for_all_readers(
    store: Functions, gateway: Store, ann: Caller, superuser: asyncpg.Connection
) -> None:
    answers = [await begin(gateway, ann) for _ in range(20)]
    readers = [asyncio.create_task(all_of(gateway.follow(answer))) for answer in answers for _ in range(5)]
    for answer in answers[1:]:
        await written(store, answer, ["one ", "two"])
    await asyncio.gather(*readers[5:])
    async with asyncio.timeout(30):
        while await superuser.fetchval(LISTENING) != 1:
            pass  # those of tests before this one are closing
    await written(store, answers[0], ["one ", "two"])
    assert await asyncio.gather(*readers) == [expected(["one ", "two"])] * 100


async def test_lost_connections_lose_nothing(
    store: Functions, gateway: Store, ann: Caller, superuser: asyncpg.Connection
) -> None:
    answer = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(answer.message_id))
    reader = asyncio.create_task(all_of(gateway.follow(answer)))
    for number in range(6):
        # Whoever listens, and every connection of the pool.
        await superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where usename like 'rustygpt_login_app%' and datname = current_database()"
        )
        await store.append(claim, number, f"{number} ")
    await store.finish(claim)
    assert await reader == expected([f"{number} " for number in range(6)])


async def test_what_was_written_while_nobody_could_listen_is_read_then(
    store: Functions, gateway: Store, ann: Caller, superuser: asyncpg.Connection
) -> None:
    answer = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(answer.message_id))
    await store.append(claim, 0, "one ")
    reader = gateway.follow(answer)
    items = await some(reader, 1)
    rest = asyncio.create_task(all_of(reader))
    name = await superuser.fetchval("select current_database()")
    await superuser.execute(f"alter database {name} connection limit 0")
    try:
        await superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where usename like 'rustygpt_login_app%' and datname = current_database()"
        )
        await store.append(claim, 1, "two")
        await store.finish(claim)
    finally:
        await superuser.execute(f"alter database {name} connection limit -1")
    assert items + await rest == expected(["one ", "two"])


async def test_poll_finds_what_nobody_was_notified_of(store: Functions, ann: Caller, database_url: str) -> None:
    addresses = await migrate(database_url)
    pool = await connect(addresses["app"])
    deaf = Deaf(pool._pool, pool._grant)  # pyright: ignore[reportPrivateUsage]
    gateway = answers_of(deaf, poll_seconds=0.1)
    answer = await begin(gateway, ann)
    reader = asyncio.create_task(all_of(gateway.follow(answer)))
    await written(store, answer, ["one ", "two"])
    assert await reader == expected(["one ", "two"])
    await gone_silent(gateway)
    await pool.close()


async def test_reader_who_takes_nothing_holds_up_nobody(store: Functions, gateway: Store, ann: Caller) -> None:
    answer = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(answer.message_id))
    await store.append(claim, 0, "0 ")
    slow = gateway.follow(answer)
    first = await some(slow, 1)
    texts = [f"{number} " for number in range(100)]
    quick = asyncio.create_task(all_of(gateway.follow(answer)))
    for number in range(1, 100):
        await store.append(claim, number, texts[number])
    await store.finish(claim)
    assert await quick == expected(texts)
    assert first + await all_of(slow) == expected(texts)


async def test_long_answers_come_in_pages(
    store: Functions, gateway: Store, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "PAGE_DELTAS", 3)
    answer = await begin(gateway, ann)
    texts = [f"{number} " for number in range(9)]
    await written(store, answer, texts)
    async with aclosing(gateway.follow(answer)) as batches:
        pages = [batch async for batch in batches]
    assert [sum(isinstance(item, Piece) for item in page) for page in pages] == [3, 3, 3, 0]
    assert [item for page in pages for item in page] == expected(texts)
    monkeypatch.setattr(tail, "PAGE_BYTES", 1)
    assert await all_of(gateway.follow(answer)) == expected(texts)


async def test_reader_of_a_deleted_answer_is_told(store: Functions, gateway: Store, ann: Caller) -> None:
    answer = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(answer.message_id))
    await store.append(claim, 0, "one ")
    reader = gateway.follow(answer)
    await some(reader, 1)
    await gateway.delete(ann, "chat", answer.public_id)
    with pytest.raises(ApiError) as caught:
        await all_of(reader)
    assert caught.value.status == 404


async def test_nothing_is_read_with_a_session_that_has_ended(store: Functions, gateway: Store) -> None:
    user_id = await store.user_id(store.sessions["ann"])
    session = b"s" * 32
    await store.call("open_session", user_id, session, "csrf", HOUR, HOUR, 5)
    answer = await begin(gateway, Caller(user_id, session, None, frozenset({READ, WRITE})))
    [claim] = await store.claim("replica", str(answer.message_id))
    await store.append(claim, 0, "one ")
    reader = gateway.follow(answer)
    await some(reader, 1)
    await store.call("logout", session)
    await store.append(claim, 1, "two ")
    with pytest.raises(ApiError):
        await all_of(reader)


async def test_cancelled_answer_is_returned_as_it_ended(store: Functions, gateway: Store, ann: Caller) -> None:
    answer = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(answer.message_id))
    await store.append(claim, 0, "so far")
    cancelling = asyncio.create_task(gateway.cancel(ann, "chat", answer.public_id))
    async with asyncio.timeout(30):
        while await store.append(claim, 0, "so far") == []:
            pass
    await store.finish(claim, "cancelled")
    ended = await cancelling
    assert (ended.ended, ended.text) == (Ended(0, "cancelled", 0, 1, 0), "so far")


async def test_what_retention_took_comes_as_one_text_but_nobody_goes_on_in_it(
    store: Functions, gateway: Store, ann: Caller, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "PAGE_DELTAS", 1)
    answer = await begin(gateway, ann)
    await written(store, answer, ["one ", "two ", "three"])
    ended = await gateway.get(ann, "chat", answer.public_id)
    assert ended.events_kept
    reader = gateway.follow(ended)
    await some(reader, 1)
    await superuser.execute("update rustygpt.events set created_at = now() - interval '3 days'")
    days = timedelta(days=2)
    assert await store.worker.value("worker_prune_channel", answer.conversation_id, days, 1000, 2) == 2
    for late in (reader, gateway.follow(ended)):
        with pytest.raises(ApiError) as caught:
            await all_of(late)
        assert (caught.value.status, caught.value.code) == (410, "events_expired")
    pruned = await gateway.get(ann, "chat", answer.public_id)
    assert not pruned.events_kept
    assert await all_of(gateway.follow(pruned)) == [Started(0), Piece(0, "one two three"), pruned.ended]


async def test_log_probabilities_come_back_as_they_were(store: Functions, gateway: Store, ann: Caller) -> None:
    answer = await begin(gateway, ann, Ask(messages=ASKED.messages, sampling=Sampling(top_logprobs=1)))
    [row] = await store.claim("replica", str(answer.message_id))
    writer = AppendWriter(store.worker, HOUR)
    writing = asyncio.create_task(writer.run())
    turn = writer.open(Claim.from_json(row))
    logprobs = (Logprob("\ufffd", b"\xc3", -0.25, ((" a", b" a", -1.5),)), Logprob("b", b"b", -0.5))
    writer.add(turn, TokenDelta((5, 6), "ab"), logprobs)
    await writer.settle(turn)
    await store.finish(row)
    writing.cancel()
    items = await all_of(gateway.follow(answer))
    assert items[1] == Piece(0, "ab", (5, 6), logprobs)


async def test_tokens_are_counted_at_the_end_though_nobody_reads(store: Functions, ann: Caller) -> None:
    limits = Limits(None, 100)
    settings = Settings.model_validate({"api": {"tokens_per_minute": 100}})
    database = Watched(store.app._pool, store.app._grant)  # pyright: ignore[reportPrivateUsage]
    gateway = Store(database, NoModels(), limits, settings)
    used = asyncio.Event()
    limits.on_use = used.set
    answer = await begin(gateway, ann)
    await written(store, answer, ["one ", "two "])
    async with asyncio.timeout(30):
        await used.wait()
    assert [item.tokens for item in limits.take_usage()] == [2]
    used.clear()
    deleted = await begin(gateway, ann)
    [claim] = await store.claim("replica", str(deleted.message_id))
    await store.append(claim, 0, "one ")
    async with asyncio.timeout(30):
        while database.deltas < 3:
            database.has_read.clear()
            await database.has_read.wait()
    await gateway.delete(ann, "chat", deleted.public_id)
    async with asyncio.timeout(30):
        await used.wait()
    assert [item.tokens for item in limits.take_usage()] == [1]
    await gone_silent(gateway)


@pytest.mark.parametrize(
    ("error", "charged"),
    [(DatabaseUnavailable(), 5), (RefusedError(401, "RGP.AUTH.INVALID", "Sign in."), None)],
    ids=["a database that is away is waited for", "who may not read any more is let go"],
)
async def test_counting_survives_errors(
    store: Functions, ann: Caller, superuser: asyncpg.Connection, error: DatabaseError, charged: int | None
) -> None:
    database = Failing(store.app._pool, store.app._grant, error)  # pyright: ignore[reportPrivateUsage]
    limits = Limits(None, 100)
    used = asyncio.Event()
    limits.on_use = used.set
    gateway = Store(database, NoModels(), limits, Settings.model_validate({"api": {"tokens_per_minute": 100}}))
    answer = await begin(gateway, ann)
    await written(store, answer, ["one ", "two "])
    # So that its end is not in the log, but must be asked for.
    await superuser.execute("update rustygpt.events set created_at = now() - interval '3 days'")
    await store.worker.value("worker_prune_channel", answer.conversation_id, timedelta(days=2), 1000, 2)
    usage = '{"prompt_tokens": 3, "completion_tokens": 2}'
    await superuser.execute("update rustygpt.messages set usage = $1 where id = $2", usage, answer.message_id)
    database.may_read.set()
    [counting] = gateway._counting  # pyright: ignore[reportPrivateUsage] nobody else waits for it
    async with asyncio.timeout(30):
        await counting
    assert [item.tokens for item in limits.take_usage()] == ([charged] if charged else [])
    await gone_silent(gateway)


async def test_who_is_nobody_stores_nothing(gateway: Store) -> None:
    with pytest.raises(ApiError) as caught:
        await begin(gateway, Caller(None, None, None, frozenset({READ, WRITE})))
    assert caught.value.status == 401


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
async def test_texts_that_cannot_be_stored_are_refused(gateway: Store, ann: Caller, bad: str) -> None:
    with pytest.raises(ApiError) as caught:
        await gateway.create(ann, "chat", "default", ASKED, {"metadata": {"a": bad}}, None, False)
    assert caught.value.status == 400


@pytest.mark.parametrize("bad", ["", "chatcmpl-", "resp_" + "0" * 32, "chatcmpl-" + "g" * 32, "chatcmpl-" + "A" * 32])
async def test_what_is_no_id_is_not_there(gateway: Store, ann: Caller, bad: str) -> None:
    with pytest.raises(ApiError) as caught:
        await gateway.get(ann, "chat", bad)
    assert caught.value.status == 404
