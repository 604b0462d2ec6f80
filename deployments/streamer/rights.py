"""Whether those who read may still do so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.streamer.reader import SILENT, Reader

# In one statement, so that it stays short.
CHUNK = 500
RETRY_SECONDS = 0.2


class Rights:
    """Ends the streams of readers whose session or membership has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def recheck(self, readers: Sequence[Reader]) -> None:
        """Returns when each of them is known to have the right or was told to end. Waits while the database cannot be
        reached."""
        for start in range(0, len(readers), CHUNK):
            chunk = readers[start : start + CHUNK]
            for place in orjson.loads(await self._revoked(chunk)):
                chunk[place - 1].end(SILENT)

    async def _revoked(self, readers: Sequence[Reader]) -> str:
        sessions, channels = [r.session for r in readers], [r.channel.id for r in readers]
        while True:
            try:
                return await self._database.value("stream_recheck", sessions, channels)
            except DatabaseUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
