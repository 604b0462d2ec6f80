"""Bodies of conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, StringConstraints

from deployments.gateway.schemas import Body, Text

Role = Literal["owner", "admin", "member", "viewer"]


class NewConversation(Body):
    """`is_group`: meant for several people."""

    title: Annotated[Text, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
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
