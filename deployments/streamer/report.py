"""What the streams of a replica tell about themselves: metrics, once a second, and a warning of a slow reader."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from deployments.config import Sse
from deployments.observability.metrics import (
    SSE_CONNECTIONS,
    SSE_EVENTS_DROPPED,
    SSE_EVENTS_SENT,
    SSE_QUEUE_DEPTH,
    SSE_QUEUE_OCCUPANCY,
    SSE_REPLAY_EVENTS,
    SSE_REPLAY_MS,
)
from deployments.streamer.merge import DELTA
from deployments.streamer.reader import Reader
from deployments.streamer.wire import Batch

logger = logging.getLogger(__name__)


class Report:
    """Counts in this process and passes the sums on in `publish`: a metric costs more than the event it counts."""

    def __init__(self, settings: Sse) -> None:
        self._queue_events = settings.queue_events
        self.warn_at = settings.queue_events * settings.backpressure.warn_queue_ratio
        self._sent: Counter[str] = Counter()
        self._replayed: Counter[str] = Counter()
        self._merged = 0

    def sent(self, batch: Batch, is_replay: bool = False) -> None:
        """One write of events to one reader."""
        for kind, count in batch.counts.items():
            self._sent[kind] += count
            if is_replay:
                self._replayed[kind] += count

    def merged(self, count: int) -> None:
        """So many deltas went out as part of another one."""
        self._merged += count

    def caught_up(self, seconds: float) -> None:
        """A reader has reached the live end after so long."""
        SSE_REPLAY_MS.observe(seconds * 1000)

    def watch(self, reader: Reader) -> None:
        """Warns of a reader whose queue is nearly full, once."""
        if 0 < reader.lag >= self.warn_at and not reader.was_warned:
            reader.was_warned = True
            logger.warning(
                "a reader of channel %s is %d events behind; from %d on it reads the log again",
                reader.channel.id,
                reader.lag,
                self._queue_events,
            )

    def publish(self, readers: Iterable[Reader]) -> None:
        """Passes on what was counted since the last time, and how the readers are now."""
        connections = depth = 0
        for reader in readers:
            connections += 1
            depth = max(depth, reader.lag)
            self.watch(reader)
        SSE_CONNECTIONS.set(connections)
        SSE_QUEUE_DEPTH.set(depth)
        SSE_QUEUE_OCCUPANCY.set(min(1.0, depth / self._queue_events))
        for kind, count in self._sent.items():
            SSE_EVENTS_SENT.inc(count, tags={"type": kind})
        for kind, count in self._replayed.items():
            SSE_REPLAY_EVENTS.inc(count, tags={"type": kind})
        if self._merged:
            SSE_EVENTS_DROPPED.inc(self._merged, tags={"type": DELTA})
        self._sent.clear()
        self._replayed.clear()
        self._merged = 0
