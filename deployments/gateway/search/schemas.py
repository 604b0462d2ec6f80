"""What a search finds."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel


class Result(BaseModel):
    """A message. In `snippet`, what was found stands between U+E000 and U+E001, which it holds nowhere else; all of
    it is text, none of it is markup."""

    message_id: UUID
    root_id: UUID
    conversation_id: UUID
    conversation_title: str
    thread_title: str | None
    author_id: UUID | None
    author_name: str | None
    role: Literal["user", "assistant", "system", "tool"]
    created_at: datetime
    rank: float
    snippet: str


class Results(BaseModel):
    """The best first, of equals the newest; `next_after` asks for the next page."""

    results: list[Result]
    next_after: str | None
