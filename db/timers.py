"""The periodic work: what has to happen though nobody asks for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson

from db.access import TimerSettings
from db.errors import DatabaseUnavailable
from db.pool import Database

logger = logging.getLogger(__name__)

# Rows that one transaction changes, small enough that nobody waits long for its locks.
BATCH = 50
CHANNELS_A_PAGE = 1_000
# For a replica that is about to end its turn with the timeout itself.
DEADLINE_GRACE = timedelta(seconds=5)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
FIRST = UUID(int=0)


class Timers:
    """Ages presence, ends turns that no model answers, and deletes what grew old.

    What it needs to know is in the database: it goes on where another process left off, and several at once do
    nothing twice. `on_pruned` hears how many events went.
    """

    def __init__(self, database: Database, settings: TimerSettings, on_pruned: Callable[[int], None]) -> None:
        self._database = database
        self._away = timedelta(seconds=settings.away_seconds)
        self._offline = timedelta(seconds=settings.offline_seconds)
        self._keep = timedelta(hours=settings.retention_hours)
        self._max_events = settings.max_events_per_channel
        self._prune_batch = settings.prune_batch_size
        self._keep_answers = timedelta(days=settings.stored_days)
        self._abandon = timedelta(seconds=settings.abandon_seconds)
        self._watching_since = time.monotonic()
        self._on_pruned = on_pruned

    async def run(self) -> None:
        """Until cancelled. A lost database is waited for."""
        async with asyncio.TaskGroup() as group:
            for period_seconds, work in (
                (1, self.age_presence),
                (1, self.expire_turns),
                (1, self.abandon_turns),
                (30, self.purge_typing),
                (60, self.prune_events),
                (60, self.purge_conversations),
                (60, self.purge_answers),
                (600, self.purge_keys),
                (600, self.purge_sessions),
                (600, self.purge_api_keys),
            ):
                group.create_task(_repeat(work, period_seconds))

    async def age_presence(self) -> None:
        """Who was silent too long is away, then offline."""
        await self._repeat_full("worker_age_presence", self._away, self._offline)

    async def expire_turns(self) -> None:
        """Turns that are past their deadline and that no model works on end with `timeout`."""
        while await self._database.value("worker_expire_turn", DEADLINE_GRACE):
            pass

    async def abandon_turns(self) -> None:
        """Turns of a model that nobody runs end with `error`, when that was so for long enough before our eyes."""
        if time.monotonic() - self._watching_since < self._abandon.total_seconds():
            return
        try:
            while await self._database.value("worker_abandon_turn", self._abandon):
                pass
        except DatabaseUnavailable:
            # The models, too, could not say that they are there.
            self._watching_since = time.monotonic()
            raise

    async def purge_typing(self) -> None:
        """Of who has stopped typing nothing needs to be known."""
        await self._repeat_full("worker_purge_typing")

    async def purge_keys(self) -> None:
        """An Idempotency-Key is good for a day."""
        await self._repeat_full("worker_purge_keys", DAY)

    async def purge_sessions(self) -> None:
        """Sessions that ended a day ago."""
        await self._repeat_full("worker_purge_sessions", DAY)

    async def purge_api_keys(self) -> None:
        """API keys that ended a month ago, and use of limits that wore off."""
        await self._repeat_full("worker_purge_api_keys", MONTH)
        await self._repeat_full("worker_purge_api_usage", DAY)

    async def prune_events(self) -> None:
        """One walk over all channels: events past retention go from their low ends."""
        after: str | None = str(FIRST)
        while after is not None:
            page = orjson.loads(
                await self._database.value(
                    "worker_channels_to_prune", UUID(after), self._keep, self._max_events, CHANNELS_A_PAGE
                )
            )
            for channel_id in page["channel_ids"]:
                await self._prune_channel(UUID(channel_id))
            after = page["after"]

    async def _prune_channel(self, channel_id: UUID) -> None:
        pruned = self._prune_batch
        while pruned == self._prune_batch:
            pruned = await self._database.value(
                "worker_prune_channel", channel_id, self._keep, self._max_events, self._prune_batch
            )
            if pruned:
                self._on_pruned(pruned)

    async def purge_conversations(self) -> None:
        """Conversations that were deleted before retention go for good."""
        while await self._database.value("worker_purge_conversation", self._keep, self._prune_batch):
            pass

    async def purge_answers(self) -> None:
        """Stored answers that are older than they are kept."""
        await self._repeat_full("worker_purge_responses", self._keep_answers)

    async def _repeat_full(self, query: str, *args: object) -> None:
        """Repeats a query that works off up to BATCH rows, until it finds fewer."""
        while await self._database.value(query, *args, BATCH) == BATCH:
            pass


async def _repeat(work: Callable[[], Awaitable[None]], period_seconds: float) -> None:
    is_waiting = False
    while True:
        try:
            await work()
            is_waiting = False
        except DatabaseUnavailable:
            if not is_waiting:
                logger.warning("%s waits for the database", work.__name__)
            is_waiting = True
        except asyncpg.PostgresError:
            # A fault is logged, not let end the work: nobody would start it again.
            logger.exception("%s failed; it is tried again", work.__name__)
        await asyncio.sleep(period_seconds)
