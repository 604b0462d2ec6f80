"""The latest events of one channel, shared by all its readers on this replica."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from uuid import UUID

from deployments.streamer.wire import Cursor, Frame


class Channel:
    """A ring of the frames with offsets `base + 1` to `last`. A reader is only a cursor into it: one that falls
    behind `base` reads the log itself, loses nothing and holds nobody up."""

    def __init__(self, channel_id: UUID, capacity: int) -> None:
        self.id = channel_id
        self.readers = 0
        self.epoch: int | None = None  # None until the first reader knows where the log stands
        self.base = 0
        self.is_reset = False
        self._frames: deque[Frame] = deque()
        self._capacity = capacity
        self._changed = asyncio.Event()

    @property
    def last(self) -> int:
        """The highest offset that is here."""
        return self.base + len(self._frames)

    def start(self, cursor: Cursor) -> None:
        """Begins after `cursor`; later calls change nothing."""
        if self.epoch is None:
            self.epoch, self.base = cursor.epoch, cursor.offset

    def append(self, frames: Sequence[Frame]) -> None:
        """Adds what was read after `last`. A gap (pruned events) empties the ring: readers must notice it."""
        for item in frames:
            if item.offset <= self.last:
                continue
            if item.offset != self.last + 1:
                self._frames.clear()
                self.base = item.offset - 1
            self._frames.append(item)
            if len(self._frames) > self._capacity:
                self._frames.popleft()
                self.base += 1
        self.wake()

    def reset(self) -> None:
        """The log was replaced by another epoch: readers must start anew."""
        self.is_reset = True
        self.wake()

    def after(self, offset: int) -> list[Frame] | None:
        """Frames after `offset`; None when they are no longer (or not yet) all here."""
        if not self.base <= offset <= self.last:
            return None
        # From the right end: a live reader lacks few.
        count = self.last - offset
        return [self._frames[place] for place in range(len(self._frames) - count, len(self._frames))]

    def wake(self) -> None:
        """Lets every reader look."""
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> asyncio.Event:
        """Set at the next change. Take it before looking: then no change is missed."""
        return self._changed
