"""Bodies of conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from deployments.gateway.schemas import Body, Title

Role = Literal["owner", "admin", "member", "viewer"]


class NewConversation(Body):
    """`is_group`: meant for several people."""

    title: Title
    is_group: bool = False


class Created(BaseModel):
    """The new conversation, and the cursor from which to follow it."""

    conversation_id: UUID
    cursor: str


class Conversation(BaseModel):
    """A conversation in a list; `role` is the caller's."""

    id: UUID
    title: str
    is_group: bool
    role: Role
    created_at: datetime
    updated_at: datetime


class Conversations(BaseModel):
    """Mine, the latest first."""

    conversations: list[Conversation]


class Participant(BaseModel):
    """Somebody who takes part."""

    user_id: UUID
    username: str
    display_name: str | None
    role: Role


class ConversationDetail(Conversation):
    """A conversation with its people, as of `cursor`."""

    participants: list[Participant]
    cursor: str


class NewParticipant(Body):
    """Whom to add."""

    user_id: UUID
    role: Role = "member"
