"""Which models are ready by the word of their replicas, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from deployments.gateway.health import readiness
from deployments.model.announcer import ANNOUNCE_SECONDS, Announcer
from tests.integration.conftest import Store
from tests.integration.test_timers import until

_numbers = itertools.count(1)


@pytest.fixture
def model() -> str:
    """A model that nobody has announced yet."""
    return f"model{next(_numbers)}"


async def announce(store: Store, model: str, replica: str, state: str = "ready", detail: str = "") -> None:
    await store.worker.value("worker_announce", model, replica, state, detail)


async def told(store: Store, model: str) -> dict[str, Any]:
    return (await store.call("model_readiness", [model]))[model]


async def silent_for(superuser: asyncpg.Connection, replica: str, seconds: float) -> None:
    """A replica's latest heartbeat was so long ago."""
    statement = "update rustygpt.model_replicas set seen_at = now() - make_interval(secs => $2) where replica = $1"
    await superuser.execute(statement, replica, seconds)


@asynccontextmanager
async def announcing(announcer: Announcer) -> AsyncIterator[None]:
    """At work, as in a replica."""
    work = asyncio.create_task(announcer.run())
    try:
        yield
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_model_that_nobody_announced_is_not_ready(store: Store, model: str) -> None:
    assert await told(store, model) == {"ready": False, "states": {}, "detail": None, "silent_seconds": None}


async def test_a_model_is_ready_while_its_replica_says_so(
    store: Store, model: str, superuser: asyncpg.Connection
) -> None:
    await announce(store, model, f"{model}.a")
    found = await told(store, model)
    assert found["silent_seconds"] < 3
    assert found == {"ready": True, "states": {"ready": 1}, "detail": None, "silent_seconds": found["silent_seconds"]}
    await silent_for(superuser, f"{model}.a", 2.5)
    assert (await told(store, model))["ready"], "two heartbeats may be late"
    await silent_for(superuser, f"{model}.a", 6)
    found = await told(store, model)
    assert (found["ready"], found["states"]) == (False, {})
    assert 6 <= found["silent_seconds"] < 60
    await announce(store, model, f"{model}.a")
    assert (await told(store, model))["ready"]


async def test_one_ready_replica_of_several_is_enough(store: Store, model: str, superuser: asyncpg.Connection) -> None:
    await announce(store, model, f"{model}.a", "starting", "checking how it runs here")
    await announce(store, model, f"{model}.b", "ready")
    await announce(store, model, f"{model}.c", "starting", "loading")
    await announce(store, model, f"{model}.d", "ready")
    await silent_for(superuser, f"{model}.d", 6)
    found = await told(store, model)
    assert (found["ready"], found["states"]) == (True, {"starting": 2, "ready": 1})
    await silent_for(superuser, f"{model}.b", 6)
    found = await told(store, model)
    assert (found["ready"], found["states"], found["detail"]) == (False, {"starting": 2}, "loading")


async def test_an_unusable_replica_says_why_and_comes_before_those_that_start(store: Store, model: str) -> None:
    await announce(store, model, f"{model}.a", "ready")
    await announce(store, model, f"{model}.a", "unusable", "its kernels compute wrong")
    await announce(store, model, f"{model}.b", "starting", "loading")
    found = await told(store, model)
    assert (found["ready"], found["states"]) == (False, {"unusable": 1, "starting": 1})
    assert found["detail"] == "its kernels compute wrong"


async def test_models_are_judged_each_by_itself(store: Store, model: str) -> None:
    await announce(store, model, "same name")
    await announce(store, f"{model}-other", "same name", "starting")
    found = await store.call("model_readiness", [model, f"{model}-other", f"{model}-none", model])
    assert {name: one["ready"] for name, one in found.items()} == {
        model: True,
        f"{model}-other": False,
        f"{model}-none": False,
    }


async def test_a_replica_silent_for_a_minute_is_forgotten(
    store: Store, model: str, superuser: asyncpg.Connection
) -> None:
    await announce(store, model, f"{model}.a")
    await announce(store, model, f"{model}.b")
    await silent_for(superuser, f"{model}.a", 61)
    await silent_for(superuser, f"{model}.b", 59)
    await announce(store, f"{model}-other", "c")
    left = await superuser.fetch("select replica from rustygpt.model_replicas where model = $1", model)
    assert [row["replica"] for row in left] == [f"{model}.b"]


async def test_a_replica_announces_itself_until_it_departs(
    store: Store, model: str, superuser: asyncpg.Connection
) -> None:
    announcer = Announcer(store.worker, model, "a")

    async def state() -> dict[str, int]:
        return (await told(store, model))["states"]

    async def is_ready() -> bool:
        return (await told(store, model))["ready"]

    async with announcing(announcer):
        assert await until(state) == {"starting": 1}
        announcer.say("ready")
        await until(is_ready, seconds=ANNOUNCE_SECONDS / 2)
        await silent_for(superuser, "a", 30)
        await until(is_ready)
        await announcer.depart()
        announcer.say("ready")
        await asyncio.sleep(2 * ANNOUNCE_SECONDS)
        assert await state() == {}
    assert (await told(store, model))["silent_seconds"] is None


async def test_a_replica_whose_engine_is_dead_falls_silent(
    store: Store, model: str, superuser: asyncpg.Connection
) -> None:
    engine = {"alive": True}
    announcer = Announcer(store.worker, model, "a", lambda: engine["alive"])

    async def is_ready() -> bool:
        return (await told(store, model))["ready"]

    announcer.say("ready")
    async with announcing(announcer):
        await until(is_ready)
        engine["alive"] = False
        await silent_for(superuser, "a", 30)
        await asyncio.sleep(2 * ANNOUNCE_SECONDS)
        assert not await is_ready()


async def test_a_replica_is_heard_again_after_the_database_was_lost(
    store: Store, model: str, superuser: asyncpg.Connection
) -> None:
    announcer = Announcer(store.worker, model, "a")

    async def seen_at() -> Any:
        return await superuser.fetchval("select seen_at from rustygpt.model_replicas where model = $1", model)

    async with announcing(announcer):
        before = await until(seen_at)
        for _ in range(3):
            await superuser.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and usename like 'rustygpt_login_worker%'"
            )
        now = await superuser.fetchval("select now()")

        async def is_heard() -> bool:
            return (await seen_at()) > now

        await until(is_heard)
        assert before < now


async def test_a_database_that_hangs_is_missing_within_two_seconds(
    store: Store, model: str, superuser: asyncpg.Connection
) -> None:
    await announce(store, model, "a")
    assert await readiness.missing(store.app, [model]) == []
    transaction = superuser.transaction()
    await transaction.start()
    try:
        await superuser.execute("lock table rustygpt.model_replicas in access exclusive mode")
        async with asyncio.timeout(2):
            # More often than there are connections.
            for found in await asyncio.gather(*(readiness.missing(store.app, [model]) for _ in range(8))):
                assert found == ["database"]
    finally:
        await transaction.rollback()
    assert await readiness.missing(store.app, [model]) == []
