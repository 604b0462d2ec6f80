"""Keeps the prefixes used last on disk, so that a restarted replica need not compute them again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from deployments.model.engine import Engine, EngineError

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 15.0


class WarmPrefixes:
    """One file for a model and a machine. What is lost with it is time only."""

    def __init__(self, engine: Engine, path: Path, limit_bytes: int) -> None:
        self._engine = engine
        self._path = path
        self._limit_bytes = limit_bytes

    def load(self) -> None:
        """Takes back what the last replica kept."""
        if self._limit_bytes and (count := self._engine.load_prefixes(self._path)):
            logger.info("%d warm prefixes taken back", count)

    async def keep(self) -> None:
        """Until cancelled: writes them whenever the engine has worked and then rests. A replica that is killed has
        thus lost little."""
        saved = self._engine.stats().finished_total
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            stats = self._engine.stats()
            if not self._limit_bytes or stats.finished_total == saved or stats.running or stats.waiting:
                continue
            saved = stats.finished_total
            try:
                await asyncio.to_thread(self._engine.save_prefixes, self._path, self._limit_bytes)
            except (OSError, EngineError) as error:
                logger.warning("warm prefixes cannot be kept: %s", error)
