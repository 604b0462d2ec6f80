"""What the append path does, seen from between the writer and the database."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any
from uuid import UUID

from db.pool import Database


class MeteredDatabase:
    """Passes calls on, and notes of `worker_append` how many there were, what they stored, and how late it was."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[UUID, deque[float]] = defaultdict(deque)
        self.reset()

    def reset(self) -> None:
        """Begins to count anew."""
        self.calls = 0
        self.appends = 0
        self.events = 0
        self.tokens = 0
        self.late_seconds: list[float] = []
        self._waiting.clear()

    def made(self, message_id: UUID) -> None:
        """A token of this answer was handed to the writer now."""
        self._waiting[message_id].append(time.perf_counter())

    async def value(self, name: str, *args: Any) -> Any:
        """As Database.value."""
        answer = await self._database.value(name, *args)
        self.calls += 1
        if name == "worker_append":
            self._note(args[0], args[4])
        return answer

    def _note(self, message_ids: list[UUID], token_ids: list[str | None]) -> None:
        now = time.perf_counter()
        self.appends += 1
        for message_id, stored in zip(message_ids, token_ids, strict=True):
            if stored is None:
                continue
            count = stored.count(",") + 1
            self.events += 1
            self.tokens += count
            waiting = self._waiting[message_id]
            self.late_seconds += [now - waiting.popleft() for _ in range(min(count, len(waiting)))]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)
