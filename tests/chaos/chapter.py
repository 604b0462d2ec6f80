"""One chapter: moves made one after the other while people write and read, and then the judgement."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.checker import FinalLog, Violation, check
from tests.chaos.client import Client, open_http
from tests.chaos.final_log import LogReader
from tests.chaos.history import Cursor, History
from tests.chaos.moves import Move, Stage
from tests.chaos.probe import LIMIT_SECONDS, NotRecovered, Probe
from tests.chaos.readers import Reader, read_to
from tests.chaos.service import Service
from tests.chaos.writers import World, Writer
from tests.support.person import PASSWORD

WRITERS = 3
CONVERSATION_READERS = 4
INBOX_READERS = 2
TURN_SECONDS = 60.0  # after the last move every answer must have ended by then
DRAIN_SECONDS = 60.0


@dataclass
class Result:
    """What came out of a chapter."""

    name: str
    recoveries: dict[str, list[float]] = field(default_factory=dict)  # seconds, of each move
    events: int = 0
    observations: int = 0
    turns: int = 0
    taken_over: int = 0
    posts: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


async def play(
    service: Service, admin: Client, name: str, moves: Sequence[tuple[str, Move]], seed: str, dump_folder: Path
) -> Result:
    """Makes the moves among people and conversations of its own, and judges. A history that breaks a promise is
    dumped. `name` is the first part of everything's name: no two chapters of a service have the same."""
    rng = random.Random(f"{seed} {name}")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_http())
        people = [await _invite(http, service, admin, f"{name}-{number}") for number in range(WRITERS + 1)]
        history, world = History(), World(name, people)
        writers = [Writer(f"w{n}", person, world, history, rng) for n, person in enumerate(people[:WRITERS])]
        hall = await Writer("hall", people[-1], World(name, people), history, rng).converse("mentioned")
        assert hall is not None, "the service did not answer before any move was made"
        stage = Stage(service, world, history, Probe(people[-1], history, name, hall), rng)
        result = Result(name)
        readers = _readers(stage)
        tasks = [asyncio.create_task(somebody.run()) for somebody in writers]
        await world.opened.wait()
        tasks += [asyncio.create_task(reader.run()) for reader in readers]
        try:
            for move_name, move in moves:
                await asyncio.sleep(rng.uniform(0.5, 2))
                await _strike(stage, move_name, move, result)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for fault in ended:
            assert isinstance(fault, asyncio.CancelledError), f"a client failed: {fault!r}"
        log = await _drain(stage, readers)
        _judge(result, history, log, dump_folder / f"{name}.jsonl")
        return result


async def _invite(http: aiohttp.ClientSession, service: Service, admin: Client, name: str) -> Client:
    account = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    await admin.call("POST", "/api/users", account)
    person = Client(http, service.doors, name)
    await person.sign_in()
    return person


def _readers(stage: Stage) -> list[Reader]:
    people, rng = stage.world.people, stage.rng
    clients = [people[number % len(people)].again(number) for number in range(CONVERSATION_READERS + INBOX_READERS)]
    return [
        Reader(
            f"r{number}",
            client,
            stage.history,
            (lambda: stage.world.conversations) if number < CONVERSATION_READERS else (lambda own=client.id: [own]),
            rng,
        )
        for number, client in enumerate(clients)
    ]


async def _strike(stage: Stage, name: str, move: Move, result: Result) -> None:
    try:
        struck = await move(stage)
        async with asyncio.timeout(2 * LIMIT_SECONDS):
            seconds = await (struck.recovery or stage.probe.seconds(struck.since))
            if struck.rest is not None:
                await struck.rest
        await stage.probe.ready()
        result.recoveries.setdefault(name, []).append(seconds)
        print(f"{name} {len(result.recoveries[name])}: {seconds:.2f} s", file=sys.stderr, flush=True)
    except (NotRecovered, TimeoutError) as error:
        stage.history.unrecovered.append(name)
        print(f"{name}: the service did not recover: {type(error).__name__}", file=sys.stderr, flush=True)


async def _drain(stage: Stage, readers: Sequence[Reader]) -> FinalLog:
    """Waits until all is quiet and every reader has what there is; then the log cannot change any more."""
    world, history = stage.world, stage.history
    source = LogReader(stage.service.database_url, world.chapter, [person.id for person in world.people])
    await source.wait_for_turns(TURN_SECONDS)
    while True:
        ends, owners = await source.ends(), await source.owners()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.gather(*(reader.finish(ends) for reader in readers), _audit(stage, ends, owners))
        except TimeoutError:
            history.unrecovered.append("readers did not reach the end of their logs")
        log = await source.read()
        now = {channel_id: Cursor(c.epoch, c.last_offset) for channel_id, c in log.channels.items()}
        if now == ends or history.unrecovered:
            return log
        # Something was appended meanwhile (the title of a thread): what was read up to is no longer the end.
        for reading in history.readings:
            reading.to_the_end = False


async def _audit(stage: Stage, ends: dict[str, Cursor], owners: dict[str, str]) -> None:
    """Reads every conversation and inbox once from its beginning."""
    people = {person.id: person for person in stage.world.people}
    for channel, end in ends.items():
        reader = people[owners.get(channel, channel)]
        await read_to(reader, stage.history, "audit", channel, Cursor(end.epoch, 0), end, to_the_end=True)


def _judge(result: Result, history: History, log: FinalLog, dump: Path) -> None:
    result.violations = check(history, log)
    result.events, result.observations = log.events, history.observations
    result.turns, result.posts = len(log.turns), len(history.posts)
    result.taken_over = sum(turn.epoch > 1 for turn in log.turns.values())
    for turn in log.turns:
        reason = log.messages[turn].finish_reason or "none"
        result.ends[reason] = result.ends.get(reason, 0) + 1
    if result.violations:
        dump.parent.mkdir(parents=True, exist_ok=True)
        history.dump(dump)
