"""Readers that follow a channel by cursor, are cut and resume at random, from earlier places, too."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable

from tests.chaos.client import Block, Client, RefusedError, Unreachable
from tests.chaos.history import Cursor, History, Reading, Seen

RETRY_SECONDS = 0.05


def begin(history: History, reader: str, channel: str, after: Cursor | None) -> Reading:
    """A reading that is part of the history from its beginning: what it sees before it is cut counts."""
    reading = Reading(reader, channel, after)
    history.readings.append(reading)
    return reading


async def read(client: Client, history: History, reading: Reading, enough: Callable[[Reading], bool]) -> None:
    """Reads over one connection until it ends or `enough` says so after an event."""
    try:
        async with client.stream(reading.channel, reading.after) as blocks:
            await _take(blocks, history, reading, enough)
    except Unreachable:
        reading.end = "lost"
    except RefusedError as error:
        reading.end = "refused"
        history.refusals.append(f"{reading.reader} on {reading.channel}: {error}")


async def _take(
    blocks: AsyncIterator[Block], history: History, reading: Reading, enough: Callable[[Reading], bool]
) -> None:
    async for block in blocks:
        if block.event == "stream.reset":
            reading.end = "reset"
            return
        if block.event == "stream.reconnect":
            reading.end = "reconnect"
            return
        if not block.id:
            continue
        cursor = Cursor.parse(block.id)
        if not block.event:
            reading.place = cursor
        else:
            reading.events.append(Seen(cursor, block.event, history.shared(block.data)))
        if enough(reading):
            reading.end = "cut"
            return
    reading.end = "lost"  # the service closed it without a word


async def read_to(
    client: Client, history: History, reader: str, channel: str, after: Cursor, end: Cursor, *, to_the_end: bool
) -> None:
    """Reads, over as many connections as it takes, until `end` was seen, which may be the log's end."""
    while True:
        reading = begin(history, reader, channel, after)
        if after < end:
            await read(client, history, reading, lambda r: r.last is not None and r.last >= end)
        after = reading.last or after
        if after >= end:
            reading.to_the_end = to_the_end
            return
        await asyncio.sleep(RETRY_SECONDS)


async def read_answer(
    client: Client, history: History, reader: str, channel: str, after: Cursor, answer_id: str, last: str
) -> None:
    """Reads, over as many connections as it takes, until an event of type `last` of this answer came."""
    while True:
        reading = begin(history, reader, channel, after)
        await read(client, history, reading, lambda r: _is_of(r, answer_id, last))
        if reading.end == "cut":
            return
        after = reading.last or after
        await asyncio.sleep(RETRY_SECONDS)


def _is_of(reading: Reading, answer_id: str, kind: str) -> bool:
    if not reading.events or reading.events[-1].type != kind:
        return False
    return json.loads(reading.events[-1].data)["payload"]["message_id"] == answer_id


class Reader:
    """Reads whatever is going on. `channels` are those that it may read, the latest last."""

    def __init__(
        self, name: str, client: Client, history: History, channels: Callable[[], list[str]], rng: random.Random
    ) -> None:
        self._name = name
        self._client = client
        self._history = history
        self._channels = channels
        self._rng = rng
        self._reading: Reading | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            channel, after = self._choose()
            most = self._rng.choice((1, 3, 10, 30, 1000))
            self._reading = reading = begin(self._history, self._name, channel, after)
            try:
                async with asyncio.timeout(self._rng.uniform(0.2, 8)):
                    await read(self._client, self._history, reading, lambda r, most=most: len(r.events) >= most)
            except TimeoutError:
                reading.end = "cut"
            if reading.end in ("lost", "refused"):
                await asyncio.sleep(RETRY_SECONDS)

    def _choose(self) -> tuple[str, Cursor | None]:
        before = self._reading
        if before is not None and before.last is not None and self._rng.random() < 0.75:
            return before.channel, before.last
        channel = self._rng.choice(self._channels()[-6:])
        known = [r.last for r in self._history.readings[-200:] if r.channel == channel and r.last is not None]
        if not known or self._rng.random() < 0.2:
            return channel, None
        end = self._rng.choice(known)
        return channel, Cursor(end.epoch, self._rng.randint(0, end.offset))

    async def finish(self, ends: dict[str, Cursor]) -> None:
        """Reads what is missing of the channel that it read last."""
        if self._reading is None or self._reading.last is None:
            return
        channel, last = self._reading.channel, self._reading.last
        name = f"{self._name} at the end"
        await read_to(self._client, self._history, name, channel, last, ends[channel], to_the_end=True)
