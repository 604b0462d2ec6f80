"""Bodies of threads and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from deployments.gateway.schemas import Body, Content


class NewMessage(Body):
    """What a person says."""

    content: Content


class Posted(BaseModel):
    """The message and the answer that is being written to it; follow the stream after `cursor`."""

    message_id: UUID
    root_id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    depth: int
    assistant_message_id: UUID
    cursor: str


class Message(BaseModel):
    """A message; of an answer that is being written, the text so far."""

    id: UUID
    root_id: UUID
    parent_id: UUID | None
    conversation_id: UUID
    author_id: UUID | None
    author_name: str | None
    role: Literal["user", "assistant", "system", "tool"]
    state: Literal["queued", "streaming", "done"]
    content: str
    path: list[int]
    depth: int
    finish_reason: Literal["stop", "length", "cancelled", "timeout", "error"] | None
    usage: dict[str, Any] | None
    created_at: datetime


class Tree(BaseModel):
    """A thread, depth first in order of making; as of `cursor`. `next_after` asks for the next page."""

    root_id: UUID
    conversation_id: UUID
    messages: list[Message]
    next_after: str | None
    cursor: str


class Thread(BaseModel):
    """A thread in a list."""

    root_id: UUID
    root_excerpt: str
    root_author: UUID | None
    created_at: datetime
    last_activity_at: datetime
    message_count: int
    participant_count: int


class Threads(BaseModel):
    """Threads by latest activity; `next_before` asks for the next page."""

    threads: list[Thread]
    next_before: str | None
    cursor: str


class Cancelled(BaseModel):
    """What became of the answer: cancelled, still being stopped, or complete before."""

    message_id: UUID
    status: Literal["cancelled", "cancelling", "completed"]
