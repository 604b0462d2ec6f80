"""The latest events of one channel, shared by all its readers on this replica."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

from deployments.streamer.wire import WRITE_BYTES, Batch, Cursor, Frame

if TYPE_CHECKING:
    from deployments.streamer.reader import Reader

# Of long events a channel keeps fewer than its setting says.
RING_BYTES = 8 << 20
MOST_BATCHES = 16
# Readers of other channels come in between, and the proxy is at work on the first writes while the last are made.
WAKE_AT_ONCE = 50


class Channel:
    """A ring of the frames with offsets `base + 1` to `last`. A reader's queue is the part of it after its cursor: a
    reader that falls behind `base` reads the log itself, loses nothing and holds nobody up."""

    def __init__(self, channel_id: UUID, capacity: int) -> None:
        self.id = channel_id
        self.readers: set[Reader] = set()
        self.epoch: int | None = None  # None until the first reader knows where the log stands
        self.base = 0
        self.last = 0  # the highest offset that is here
        self._frames: deque[Frame] = deque()
        self._capacity = capacity
        self._bytes = 0
        # Readers at the live end stand at the same place: what follows it is joined once for all of them.
        self._batches: dict[int, Batch] = {}

    def start(self, cursor: Cursor) -> None:
        """Begins after `cursor`; later calls change nothing."""
        if self.epoch is None:
            self.epoch, self.base, self.last = cursor.epoch, cursor.offset, cursor.offset

    def append(self, frames: Sequence[Frame]) -> None:
        """Adds what was read after `last` and wakes the readers. A gap (pruned events) empties the ring: readers must
        notice it."""
        self._batches.clear()
        for item in frames:
            if item.offset <= self.last:
                continue
            if item.offset != self.last + 1:
                self._empty(item.offset - 1)
            self._frames.append(item)
            self.last = item.offset
            self._bytes += len(item.data)
            while len(self._frames) > self._capacity or (self._bytes > RING_BYTES and len(self._frames) > 1):
                self._bytes -= len(self._frames.popleft().data)
                self.base += 1
        self.wake()

    def skip(self, first_offset: int) -> None:
        """The log begins at `first_offset` now: what is before it and not here yet will never come."""
        if first_offset > self.last + 1:
            self._empty(first_offset - 1)
            self.wake()

    def after(self, offset: int) -> Batch | None:
        """What follows `offset`, as much as goes out in one write; None when that is nothing, or not here yet."""
        if offset >= self.last:
            return None
        batch = self._batches.get(offset)
        if batch is None:
            if len(self._batches) == MOST_BATCHES:
                self._batches.clear()
            batch = self._batches[offset] = Batch.of(self.frames(offset, WRITE_BYTES))
        return batch

    def frames(self, offset: int, most_bytes: int) -> list[Frame]:
        """Frames after `offset`, which is not before `base`: as many as fit in so many bytes, and at least one."""
        assert self.base <= offset, "what is before the ring must be read from the log"
        found, size = [], 0
        for item in islice(self._frames, offset - self.base, None):
            size += len(item.data)
            if found and size > most_bytes:
                break
            found.append(item)
        return found

    def wake(self) -> None:
        """Lets every reader look."""
        self._wake_some(iter(list(self.readers)))

    def _wake_some(self, readers: Iterator[Reader]) -> None:
        woken = list(islice(readers, WAKE_AT_ONCE))
        for reader in woken:
            reader.wake()
        if len(woken) == WAKE_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._wake_some, readers)

    def _empty(self, offset: int) -> None:
        self._frames.clear()
        self._batches.clear()
        self._bytes, self.base, self.last = 0, offset, offset
