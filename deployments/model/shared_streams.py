"""One stream for each Gateway, on which all its answers come: one message has what several of them have made, where one
for each would take cores from the engine, whose threads wait for each other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from deployments.generation import Item, Parcels, Piece, ReturnPath, SentBatch, Started, Switch

# Text gathers for a while, as it does on its way to the log (append_writer.py). First words and ends do not wait.
PAUSE_SECONDS = 0.01  # for each answer that is made
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.03, 0.1
# A stream is a request to Serve. A model without requests may be scaled down, and a replica that is to stop waits for
# those it has: a stream without answers ends.
IDLE_SECONDS = 2.0


class SharedStreams:
    """Those of one replica, `replica`; `running` says how many answers are made. For one event loop."""

    def __init__(self, replica: str, running: Callable[[], int]) -> None:
        self._replica = replica
        self._running = running
        self._open: dict[str, _SharedStream] = {}

    async def carry(self, name: str, opening: int) -> AsyncIterator[Parcels]:
        """Opens the stream of this name; it ends when there have been no answers for a while. `opening` tells it from
        others of its name, before and after it."""
        shared = self._open[name] = _SharedStream(opening)
        try:
            async for parcels in shared.carry(self._running):
                yield parcels
        finally:
            shared.is_open = False
            if self._open.get(name) is shared:
                del self._open[name]

    def _find(self, path: ReturnPath) -> _SharedStream | None:
        shared = self._open.get(path.shared_stream)
        return shared if shared and shared.opening not in path.lost else None

    async def send(self, batches: AsyncGenerator[list[Item], None], path: ReturnPath) -> AsyncIterator[SentBatch]:
        """An answer's own stream: its batches until the shared stream is open, then Switch, and the rest goes there."""
        shared: _SharedStream | None = None
        is_urgent = True
        try:
            async with contextlib.aclosing(batches):
                async for batch in batches:
                    if isinstance(batch[0], Started):
                        batch[0] = dataclasses.replace(batch[0], replica=self._replica)
                    if shared is None and (shared := self._find(path)):
                        shared.answers += 1
                        yield [*batch, Switch(shared.opening)]
                    elif shared is None:
                        yield [*batch]
                    elif shared.is_open:
                        shared.put(path.number, batch, is_urgent)
                        is_urgent = False
                    else:
                        return  # its Gateway does not listen any more
        finally:
            if shared:
                shared.answers -= 1
                shared.put(path.number, [Switch()], is_urgent=True)


class _SharedStream:
    """The answers of one Gateway."""

    def __init__(self, opening: int) -> None:
        self.opening = opening
        self.is_open = True
        self.answers = 0
        self._parcels: Parcels = {}
        self._some, self._urgent = asyncio.Event(), asyncio.Event()

    def put(self, number: int, batch: Sequence[Item | Switch], is_urgent: bool) -> None:
        """Sends this to the answer's reader, with what was put before, at once or after a pause."""
        parcel = self._parcels.setdefault(number, [])
        for item in batch:
            if parcel and (whole := joined(parcel[-1], item)):
                parcel[-1] = whole
            else:
                parcel.append(item)
        self._some.set()
        if is_urgent:
            self._urgent.set()

    async def carry(self, running: Callable[[], int]) -> AsyncIterator[Parcels]:
        """What is put, until there are no answers for a while."""
        loop, not_before = asyncio.get_running_loop(), 0.0
        while await self._wait_for_some():
            if loop.time() < not_before and not self._urgent.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(not_before):
                        await self._urgent.wait()
            parcels, self._parcels = self._parcels, {}
            self._some.clear()
            self._urgent.clear()
            yield parcels
            pause = max(SHORTEST_PAUSE_SECONDS, PAUSE_SECONDS * running())
            not_before = loop.time() + min(LONGEST_PAUSE_SECONDS, pause)

    async def _wait_for_some(self) -> bool:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    return await self._some.wait()
            except TimeoutError:
                # What was put in this very moment is still sent.
                if not self.answers and not self._parcels:
                    return False


def joined(one: Item | Switch, other: Item | Switch) -> Piece | None:
    """Two pieces of one answer as one: they arrive at once, and all on the way have less to do. Not where each has
    log-probabilities: those belong to what their own piece says."""
    if not (isinstance(one, Piece) and isinstance(other, Piece)) or one.index != other.index:
        return None
    if one.logprobs or other.logprobs:
        return None
    return Piece(one.index, one.text + other.text, one.token_ids + other.token_ids)
