"""The heartbeat of one replica: which state it is in, for whoever asks whether its model is ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

from db.errors import DatabaseUnavailable
from db.pool import Database

ReplicaState = Literal["starting", "ready", "unusable"]
"""What each means and which follows which: db/schema/0013_model_replicas.sql."""

# model_readiness (db/functions/31_replicas.sql) counts a replica that has announced itself within three of these.
ANNOUNCE_SECONDS = 1.0


class Announcer:
    """Announces the replica `replica` of a model in the database once a second, and each change of its state at once.

    `alive` says whether the replica can still answer: it falls silent while that is false. Set it as soon as there is
    an engine to ask. Belongs to one event loop.
    """

    def __init__(
        self, database: Database, model_id: str, replica: str, alive: Callable[[], bool] = lambda: True
    ) -> None:
        self.alive = alive
        self._database = database
        self._names = (model_id, replica)
        self._state: ReplicaState = "starting"
        self._detail = ""
        self._changed = asyncio.Event()
        self._has_departed = False
        # One statement at a time: an announcement that is on its way must not come after the departure.
        self._speaking = asyncio.Lock()

    def say(self, state: ReplicaState, detail: str = "") -> None:
        """Changes what is announced. `detail` is shown to operators: which step of starting, or why it is unusable."""
        self._state, self._detail = state, detail
        self._changed.set()

    async def run(self) -> None:
        """Announces until cancelled. A database that is away hears the next announcement when it is back."""
        while True:
            self._changed.clear()
            with contextlib.suppress(DatabaseUnavailable):
                await self._announce()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    await self._changed.wait()

    async def depart(self) -> None:
        """Announces nothing from now on, and takes back what was announced, so that nobody waits for it to grow old.
        Without a database it grows old."""
        self._has_departed = True
        async with self._speaking:
            with contextlib.suppress(DatabaseUnavailable):
                await self._database.value("worker_depart", *self._names)

    async def _announce(self) -> None:
        async with self._speaking:
            if self.alive() and not self._has_departed:
                await self._database.value("worker_announce", *self._names, self._state, self._detail)
