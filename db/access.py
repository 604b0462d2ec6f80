"""Where the database is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TimerSettings:
    """After how much silence people count as away and as offline, how long a turn waits for a model that nobody runs,
    what of the log is kept, and for how long stored answers are."""

    away_seconds: float
    offline_seconds: float
    abandon_seconds: float
    retention_hours: float
    max_events_per_channel: int
    prune_batch_size: int
    stored_days: float


@dataclass(frozen=True)
class Access:
    """Where the database is: at `url`, or embedded in `folder` of the one machine; how a replica uses it; and how the
    access actor keeps it. `prepare_actor` runs first in the actor's process: it sets up its logs."""

    url: str | None = field(repr=False)
    folder: Path
    connections_per_replica: int
    statement_timeout_seconds: float
    timers: TimerSettings
    prepare_actor: Callable[[], None] = field(repr=False)
