"""One who reads a channel: its place, its right to read, and when it is to be told what."""

from __future__ import annotations

import asyncio
import random
import time

from deployments.config import Sse
from deployments.streamer.channel import Channel
from deployments.streamer.wire import notice

# What ends a stream.
RECONNECT = notice("stream.reconnect", "connection_age")
OUT_OF_RANGE = notice("stream.reset", "cursor_out_of_range")
REPLACED = notice("stream.reset", "log_replaced")
SILENT = b""  # nobody is there any more, or nobody who may be told anything


class Reader:
    """A cursor in a channel, held by the right of a session. All methods belong to one event loop.

    replaying ──reached replay_until──> live ──fell behind the ring──> replaying
        └───────────────── end() ────────┴──────> ended
    """

    __slots__ = (
        "_age_ends", "_cut_at", "_settings", "_task", "_waiter", "channel", "farewell", "offset", "ping_due",
        "replay_until", "session", "was_live", "was_warned", "written_at",
    )  # fmt: skip

    def __init__(self, session: bytes, channel: Channel, settings: Sse) -> None:
        now = time.monotonic()
        self.session = session
        self.channel = channel
        self.offset = 0
        self.replay_until = 0
        self.was_live = False
        self.was_warned = False
        self.written_at = now
        self.ping_due = False
        self.farewell: bytes | None = None
        self._settings = settings
        self._task = asyncio.current_task()
        self._waiter: asyncio.Future[None] | None = None
        # Readers that came together, after a restart, do not leave together.
        self._age_ends = now + settings.connection_seconds * random.uniform(0.9, 1.0)  # noqa: S311
        self._cut_at = self._age_ends + settings.heartbeat_seconds

    @property
    def is_replaying(self) -> bool:
        """Whether it reads history: of before it came, or what it missed when it fell behind."""
        return self.offset < self.replay_until

    @property
    def lag(self) -> int:
        """How many events its queue holds. One that still reads the history of before it came has no queue."""
        return max(0, self.channel.last - self.offset) if self.was_live else 0

    def end(self, farewell: bytes) -> None:
        """The stream ends with `farewell`; the first one counts. A reader that does not even take that is cut."""
        if self.farewell is None:
            self.farewell = farewell
            self._cut_at = min(self._cut_at, time.monotonic() + self._settings.heartbeat_seconds)
        self.wake()

    def tick(self, now: float) -> None:
        """Called once in a while: ends a stream that is old enough, has a silent one send a ping."""
        if now >= self._cut_at and self._task is not None:
            self._task.cancel()
        elif now >= self._age_ends:
            self.end(RECONNECT)
        elif now - self.written_at >= self._settings.heartbeat_seconds:
            self.ping_due = True
            self.wake()

    def wake(self) -> None:
        """Lets it look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until the next `wake`. Nothing may be awaited between looking and this: then no change is missed."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
