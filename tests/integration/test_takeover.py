"""Who may take over a turn, and how often, on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys

import orjson

from deployments.model.owner import is_dead, own_name
from tests.integration.conftest import Store
from tests.integration.test_turns import NONE


async def turn(store: Store) -> str:
    ann = store.sessions["ann"]
    return (await store.ask(ann, await store.conversation(ann)))["assistant_message_id"]


async def test_turn_of_a_dead_replica_is_taken_before_its_lease_runs_out(store: Store) -> None:
    held, other = await turn(store), await turn(store)
    await store.claim("dead", held)
    await store.claim("alive", other)
    assert await store.claim("new", held) == []
    owners = orjson.loads(await store.worker.value("worker_owners", "default"))
    assert sorted(owners) == ["alive", "dead"]
    await store.worker.value("worker_release", "default", ["dead"])
    assert [claim["epoch"] for claim in await store.claim("new", held)] == [2]
    assert await store.claim("new", other) == []


async def test_turn_that_gets_on_may_lose_its_replica_any_number_of_times(store: Store) -> None:
    message = await turn(store)
    for number in range(8):
        [claim] = await store.claim("dying", message, lease=NONE)
        await store.append(claim, number, "word ", lease=NONE)
    [claim] = await store.claim("last", message)
    assert claim["delta_count"] == 8
    assert await store.finish(claim)


def test_a_process_that_has_ended_is_known_to_be_dead() -> None:
    place = own_name().rpartition(":")[0]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_dead(f"{place}:{ended.pid}")


def test_a_running_process_and_one_elsewhere_are_not_taken_for_dead() -> None:
    assert not is_dead(own_name())
    assert not is_dead(f"{own_name().rpartition(':')[0]}:{os.getppid()}")
    assert not is_dead("elsewhere/1:999999999")
    assert not is_dead("replica 1")
