"""The engine that answers now. Another can take its place while answers are being written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.model.engine import Engine

logger = logging.getLogger(__name__)


class LiveEngine:
    """Lends the engine out. For one event loop.

    An answer keeps the engine that it began with to its end; who comes after `replace` gets the new one. The old one is
    closed when its last user has left: nothing is lost, and nobody waits.
    """

    def __init__(self, engine: Engine) -> None:
        self.current = engine
        self.when_used: list[Callable[[], None]] = []
        """Called at once, before anything is computed, when somebody comes to an engine that nobody used."""
        self._users: Counter[Engine] = Counter()
        self._idle_since = time.monotonic()
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def use(self) -> Iterator[Engine]:
        """The engine, for as long as the block lasts."""
        engine = self.current
        if not self._users.total():
            for tell in self.when_used:
                tell()
        self._users[engine] += 1
        try:
            yield engine
        finally:
            self._users[engine] -= 1
            if not self._users.total():
                self._idle_since = time.monotonic()
            if engine is not self.current and not self._users[engine]:
                self._close(engine)

    @property
    def idle_seconds(self) -> float:
        """For how long nobody has used it; 0 while somebody does."""
        return 0.0 if self._users.total() else time.monotonic() - self._idle_since

    def replace(self, engine: Engine) -> None:
        """Gives `engine` to everybody who comes from now on."""
        old, self.current = self.current, engine
        if not self._users[old]:
            self._close(old)

    def _close(self, engine: Engine) -> None:
        # In a thread: it waits for the engine's own thread.
        task = asyncio.create_task(asyncio.to_thread(engine.close))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        del self._users[engine]
