"""Bodies of presence and typing."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from deployments.gateway.schemas import Body

Status = Literal["online", "away", "offline"]


class Heartbeat(Body):
    """What the client knows of its person: at it, away from it, or gone."""

    status: Status = "online"


class PersonPresence(BaseModel):
    """Somebody's presence; `last_seen_at` is null when there was never a sign."""

    user_id: UUID
    status: Status
    last_seen_at: datetime | None


class PresenceList(BaseModel):
    """A conversation's participants. `presence.update` events of one's inbox after `cursor` keep it true."""

    presence: list[PersonPresence]
    cursor: str


class TypingNotice(Body):
    """`root_id`: the thread, null for the first message of a new one. `seconds`: until it is said again; 0 ends it."""

    conversation_id: UUID
    root_id: UUID | None = None
    seconds: Annotated[float, Field(ge=-86_400, le=86_400, allow_inf_nan=False)]


class PersonTyping(BaseModel):
    """Somebody who types, as far as is known."""

    root_id: UUID | None
    user_id: UUID
    expires_at: datetime


class TypingList(BaseModel):
    """Who types in a conversation. Its `typing.update` events after `cursor` keep it true."""

    typing: list[PersonTyping]
    cursor: str
