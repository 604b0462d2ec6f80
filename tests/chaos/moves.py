"""The nemesis: what is done to the service. Each move says when the fault began and what is left to be undone."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.chaos.history import History, Takeover
from tests.chaos.probe import Probe
from tests.chaos.readers import begin, read
from tests.chaos.service import Service, find_all, find_one, send
from tests.chaos.slow_reader import read_slowly
from tests.chaos.waiting import until
from tests.chaos.writers import World

PAUSE_SECONDS = 10.0
CROWD = 200


@dataclass
class Stage:
    """What a move has to do with."""

    service: Service
    world: World
    history: History
    probe: Probe
    rng: random.Random


@dataclass
class Struck:
    """A fault that was injected. `recovery` measures its end where the plain probe is not the measure; `rest` is
    what goes on meanwhile: the fault lasts, or is undone."""

    since: float
    recovery: Awaitable[float] | None = None
    rest: asyncio.Task[None] | None = None


Move = Callable[[Stage], Coroutine[Any, Any, Struck]]


def kill(part: str) -> Move:
    """kill -9 of one process of a part."""

    async def strike(stage: Stage) -> Struck:
        victim = await find_one(stage.service, part, stage.rng)
        since = time.monotonic()
        send(victim, signal.SIGKILL)
        return Struck(since)

    return strike


def pause(part: str) -> Move:
    """SIGSTOP of one process of a part, or of the whole database server; SIGCONT ten seconds later."""

    async def strike(stage: Stage) -> Struck:
        whole = part == "database"
        victims = await find_all(stage.service, part) if whole else [await find_one(stage.service, part, stage.rng)]
        since = time.monotonic()
        for victim in victims:
            send(victim, signal.SIGSTOP)

        async def resume() -> None:
            await asyncio.sleep(PAUSE_SECONDS)
            for victim in victims:
                send(victim, signal.SIGCONT)

        return Struck(since, rest=asyncio.create_task(resume()))

    return strike


async def pause_writing_model(stage: Stage) -> Struck:
    """SIGSTOP, for ten seconds, of the Model replica that is writing an answer, while there is another replica: the
    other one must go on with the answer before the first wakes up, and what the first writes then must be refused."""
    connection = await asyncpg.connect(stage.service.database_url, timeout=10)
    owner = "select owner from rustygpt.turns where message_id = $1::text::uuid and state = 'running'"
    taken = "select epoch > 1 from rustygpt.turns where message_id = $1::text::uuid"
    ended = "select state = 'done' from rustygpt.turns where message_id = $1::text::uuid"
    while True:
        answer_id, _ = await stage.probe.post()
        held_by = None
        while held_by is None and not await connection.fetchval(ended, answer_id):
            held_by = await connection.fetchval(owner, answer_id)
        replicas = {process.pid: process for process in await find_all(stage.service, "model")}
        if held_by is None or len(replicas) < 2:
            continue
        victim = replicas[int(held_by.rpartition(":")[2])]
        since = time.monotonic()
        send(victim, signal.SIGSTOP)
        if await connection.fetchval(owner, answer_id) == held_by:
            break
        send(victim, signal.SIGCONT)  # the answer was complete already

    async def resume() -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        stage.history.takeovers.append(Takeover(answer_id, bool(await connection.fetchval(taken, answer_id))))
        await connection.close()
        send(victim, signal.SIGCONT)

    return Struck(since, rest=asyncio.create_task(resume()))


async def restart(stage: Stage) -> Struck:
    """A full stop, as by Ctrl-C, and a start. Measured from the Ctrl-C."""
    since = time.monotonic()
    await asyncio.to_thread(stage.service.restart)
    return Struck(since)


async def cut_database_connections(stage: Stage) -> Struck:
    """pg_terminate_backend on every connection."""
    connection = await asyncpg.connect(stage.service.database_url, timeout=10)
    since = time.monotonic()
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    await connection.close()
    return Struck(since)


async def slow_reader(stage: Stage) -> Struck:
    """A reader of the probe's conversation, which begins with 17 MB, takes one byte a second for ten seconds, and
    then the rest: it must get all of it, and the probe's reader must not notice."""
    await stage.probe.lengthen()
    _, end = await stage.probe.post()
    since = time.monotonic()
    client = stage.world.people[0]
    rest = read_slowly(client, stage.history, stage.probe.conversation, end, PAUSE_SECONDS)
    return Struck(since, rest=asyncio.create_task(rest))


async def stampede(stage: Stage) -> Struck:
    """200 readers of one conversation lose their Streamer and connect again at once. Measured from its kill -9 until
    the last of them has read the first text of an answer to a question that was asked after it."""
    history, probe = stage.history, stage.probe
    clients = [stage.world.people[n % len(stage.world.people)] for n in range(CROWD)]
    answer_id, cursor = await probe.post()
    await asyncio.gather(*(probe.first_text(c, f"crowd {n}", answer_id, cursor) for n, c in enumerate(clients)))
    waiting = [begin(history, f"crowd {n}", probe.conversation, cursor) for n in range(CROWD)]
    readers = [
        asyncio.create_task(read(client, history, reading, lambda _: False))
        for client, reading in zip(clients, waiting, strict=True)
    ]
    await until(lambda: asyncio.sleep(0, all(reading.place for reading in waiting)))
    victim = await find_one(stage.service, "streamer", stage.rng)
    since = time.monotonic()
    send(victim, signal.SIGKILL)
    await asyncio.gather(*readers)

    async def recovery() -> float:
        answer_id, cursor = await probe.post()
        await asyncio.gather(*(probe.first_text(c, f"crowd {n}", answer_id, cursor) for n, c in enumerate(clients)))
        return time.monotonic() - since

    return Struck(since, recovery=recovery())


MOVES: dict[str, Move] = {
    **{f"kill-{part}": kill(part) for part in ("model", "gateway", "streamer", "access-actor", "controller")},
    **{f"kill-{part}": kill(part) for part in ("proxy", "proxy-manager", "database")},
    **{f"pause-{part}": pause(part) for part in ("model", "gateway", "streamer", "access-actor", "controller")},
    **{f"pause-{part}": pause(part) for part in ("proxy", "database")},
    "cut-database-connections": cut_database_connections,
    "slow-reader": slow_reader,
    "stampede": stampede,
    "restart": restart,
}
"""Moves against the product of one machine, as it is by default."""

MIXED = tuple(name for name in MOVES if name not in ("restart", "stampede"))


def mixed(names: tuple[str, ...] = MIXED) -> Move:
    """Two moves at once, drawn anew each time, up to two seconds apart. Measured from the first."""

    async def strike(stage: Stage) -> Struck:
        first_name, second_name = stage.rng.sample(names, 2)
        first = await MOVES[first_name](stage)
        await asyncio.sleep(stage.rng.uniform(0, 2))
        second = await MOVES[second_name](stage)
        rests = [struck.rest for struck in (first, second) if struck.rest is not None]
        return Struck(first.since, rest=asyncio.create_task(_all(rests)) if rests else None)

    return strike


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)
