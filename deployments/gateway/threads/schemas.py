"""Bodies of threads and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from deployments.gateway.schemas import Body, Content, Title


class NewMessage(Body):
    """What a person says."""

    content: Content


class ThreadTitle(Body):
    """A thread's title; null leaves it to the model."""

    title: Title | None


class Posted(BaseModel):
    """The message, and the answer that is being written to it, if the assistant answers, by which model; follow the
    stream after `cursor`."""

    message_id: UUID
    root_id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    depth: int
    assistant_message_id: UUID | None
    model: str | None
    cursor: str


class Message(BaseModel):
    """A message; of an answer that is being written, the text so far; of a deleted one, no text. `seq` numbers the
    conversation's messages in the order of making; `title` is the thread's, at its root."""

    id: UUID
    root_id: UUID
    parent_id: UUID | None
    conversation_id: UUID
    author_id: UUID | None
    author_name: str | None
    role: Literal["user", "assistant", "system", "tool"]
    state: Literal["queued", "streaming", "done"]
    title: str | None
    content: str
    path: list[int]
    depth: int
    seq: int
    finish_reason: Literal["stop", "length", "cancelled", "timeout", "error"] | None
    usage: dict[str, Any] | None
    created_at: datetime
    edited_at: datetime | None
    deleted_at: datetime | None


class Tree(BaseModel):
    """A thread, depth first in order of making; as of `cursor`. `next_after` (sent as `after`) asks for the next page,
    `previous_before` (sent as `before`) for the one before; each is null where there is none."""

    root_id: UUID
    conversation_id: UUID
    messages: list[Message]
    next_after: UUID | None
    previous_before: UUID | None
    cursor: str


class Thread(BaseModel):
    """A thread in a list."""

    root_id: UUID
    title: str | None
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
