"""Bodies of unread counts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from deployments.gateway.schemas import Body


class ReadUpTo(Body):
    """The last message that was read; null: everything that is finished now."""

    message_id: UUID | None = None


class ThreadRead(BaseModel):
    """What is left unread of a thread."""

    root_id: UUID
    unread: int


class UnreadThread(ThreadRead):
    """A thread with something unread; `last_read_seq` is the `seq` of the last message read, 0 for none."""

    last_read_seq: int
    last_activity_at: datetime


class UnreadThreads(BaseModel):
    """Threads with something unread, latest activity first. `unread.update` events of one's inbox after `cursor`
    keep it true."""

    threads: list[UnreadThread]
    cursor: str
