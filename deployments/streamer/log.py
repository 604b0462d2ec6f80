"""Reading the event log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.streamer.wire import Cursor, Frame, frame

logger = logging.getLogger(__name__)

# Of one channel, in one read; at least one event, however long it is.
PAGE_EVENTS = 500
PAGE_BYTES = 256 << 10
RETRY_SECONDS = 0.2
# After one of these somebody may have lost the right to read.
RIGHTS = frozenset({"membership.changed", "conversation.updated"})


@dataclass(frozen=True)
class Page:
    """Events of a channel in order, and where its log begins and ends, all of one instant."""

    epoch: int
    first_offset: int
    last_offset: int
    frames: list[Frame] = field(default_factory=list)

    @property
    def rights_change(self) -> int:
        """How many frames there are up to the first that may have ended somebody's right to read, it included; 0:
        there is none."""
        return next((place for place, item in enumerate(self.frames, 1) if item.type in RIGHTS), 0)

    def follows(self, offset: int) -> bool:
        """Whether it holds what comes after `offset` without a gap, or there is nothing after it."""
        if not self.frames:
            return self.first_offset - 1 <= offset == self.last_offset
        first, last = self.frames[0].offset, self.frames[-1].offset
        return first == offset + 1 and last - first + 1 == len(self.frames)


class Log:
    """The log of all channels. Safe for concurrent use by the tasks of one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, places: Sequence[tuple[UUID, int]]) -> dict[UUID, Page]:
        """What follows each channel's offset. A channel that is gone has no page.

        Waits while the database cannot be reached.
        """
        ids, offsets = [i for i, _ in places], [offset for _, offset in places]
        is_waiting = False
        while True:
            try:
                rows = await self._database.rows("stream_read", ids, offsets, PAGE_EVENTS, PAGE_BYTES)
                break
            except DatabaseUnavailable:
                if not is_waiting:
                    logger.warning("the database cannot be reached; streams wait for it")
                is_waiting = True
                await asyncio.sleep(RETRY_SECONDS)
        pages: dict[UUID, Page] = {}
        for row in rows:
            page = pages.get(row["channel_id"])
            if page is None:
                page = pages[row["channel_id"]] = Page(row["epoch"], row["first_offset"], row["last_offset"])
            if row["offset"] is not None:
                page.frames.append(frame(Cursor(page.epoch, row["offset"]), row["type"], row["payload"]))
        return pages
