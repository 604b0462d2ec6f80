"""A Gateway's round trip of every second: whether a key has changed, when keys were used, what is used of limits."""

from __future__ import annotations

import asyncio
import contextvars
import time
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.gateway.v1.known_keys import KnownKeys
from deployments.gateway.v1.limits import Limits, Used

PERIOD_SECONDS = 1.0
# So long after the last request it goes on: a Gateway that nobody asks asks nobody.
IDLE_SECONDS = 60.0
# How late it is stored when a key was used.
LAST_USED_SECONDS = 60.0
# A poll that takes longer has told nothing in time.
POLL_SECONDS = 5.0


class KeySync:
    """Runs while the API is in use. While the database is away nothing is confirmed: requests ask it themselves."""

    def __init__(self, database: Database, known: KnownKeys, limits: Limits) -> None:
        self._database = database
        self._known = known
        self._limits = limits
        self._used_at = 0.0
        self._last_used: dict[UUID, float] = {}
        self._stored_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """The API is in use."""
        self._used_at = time.monotonic()
        if self._task is None:
            # A context of its own: Serve ties what is begun in a request's context to the life of the request.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    def note_use(self, key_id: UUID) -> None:
        """A key was used now."""
        self.wake()
        self._last_used[key_id] = self._used_at

    async def _run(self) -> None:
        try:
            while self._is_in_use() or self._last_used:
                started = time.monotonic()
                await self.poll()
                await asyncio.sleep(max(0.0, started + PERIOD_SECONDS - time.monotonic()))
        finally:
            self._task = None

    def _is_in_use(self) -> bool:
        return time.monotonic() - self._used_at < IDLE_SECONDS

    async def poll(self) -> None:
        """One round trip. If the database is away, what was to be told is told by a later one."""
        started = time.monotonic()
        last_used: dict[UUID, float] = {}
        if started - self._stored_at >= LAST_USED_SECONDS or not self._is_in_use():
            last_used, self._last_used = self._last_used, {}
        used = self._limits.take_usage()
        try:
            async with asyncio.timeout(POLL_SECONDS):
                text = await self._database.value(
                    "sync_keys",
                    list(last_used),
                    [started - at for at in last_used.values()],
                    [one.subject_id for one in used],
                    [one.requests for one in used],
                    [one.tokens for one in used],
                    *self._limits.rates,
                )
        except (DatabaseUnavailable, TimeoutError):
            self._limits.put_back(used)
            self._last_used = last_used | self._last_used
            return
        if last_used:
            self._stored_at = started
        answer = orjson.loads(text)
        self._known.confirm(answer["version"], started)
        self._limits.learn(Used(UUID(subject), requests, tokens) for subject, requests, tokens in answer["usage"])
