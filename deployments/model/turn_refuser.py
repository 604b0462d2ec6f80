"""Durable turns of a model that cannot be run: each ends at once with an error that says so."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.config import Turn
from deployments.model.claim import Claim

SWEEP_SECONDS = 1.0
AT_ONCE = 16


class TurnRefuser:
    """Stands in for TurnRunner in a replica without an engine. `message` is for the person who asked."""

    def __init__(self, database: Database, model_id: str, turn: Turn, owner: str, message: str) -> None:
        self._database = database
        self._model_id = model_id
        self._owner = owner
        self._message = message
        self._lease = timedelta(seconds=turn.lease_seconds)
        self._patience = timedelta(seconds=turn.patience_seconds)

    async def serve(self) -> None:
        """Ends turns that nobody has taken, until cancelled. Another replica of the model, which may run elsewhere, has
        the time of `turn.patience_seconds` to take them."""
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await self._refuse(AT_ONCE, None)
            await asyncio.sleep(SWEEP_SECONDS)

    async def run_turn(self, message_id: UUID) -> None:
        """Ends the turn, unless somebody else has begun to write it."""
        await self._refuse(1, message_id)

    async def _refuse(self, limit: int, only: UUID | None) -> None:
        answer = await self._database.value(
            "worker_claim", self._model_id, self._owner, self._lease, limit, only, self._patience
        )
        for claim in map(Claim.from_json, orjson.loads(answer)):
            await self._database.value("worker_finish", claim.message_id, claim.epoch, "error", None, self._message)
