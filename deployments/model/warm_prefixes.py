"""Keeps the prefixes used last on disk, so that a restarted replica need not compute them again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from deployments.model.engine import Engine, EngineError
from deployments.model.live_engine import LiveEngine

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 15.0


class WarmPrefixes:
    """One file for a model and a machine. What is lost with it is time only."""

    def __init__(self, live: LiveEngine, path: Path, limit_bytes: int) -> None:
        self._live = live
        self._path = path
        self._limit_bytes = limit_bytes

    def load(self) -> None:
        """Takes back what the last replica kept."""
        if self._limit_bytes and (count := self._live.current.load_prefixes(self._path)):
            logger.info("%d warm prefixes taken back", count)

    async def keep(self) -> None:
        """Until cancelled: writes them whenever the engine has worked and then rests. A replica that is killed has
        thus lost little."""
        saved = self._worked()
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            engine, stats = self._live.current, self._live.current.stats()
            if not self._limit_bytes or self._worked() == saved or stats.running or stats.waiting:
                continue
            saved = self._worked()
            try:
                await asyncio.to_thread(engine.save_prefixes, self._path, self._limit_bytes)
            except (OSError, EngineError) as error:
                logger.warning("warm prefixes cannot be kept: %s", error)

    def _worked(self) -> tuple[Engine, int]:
        """Changes with each answer that the engine ends, and with the engine."""
        return self._live.current, self._live.current.stats().finished_total
