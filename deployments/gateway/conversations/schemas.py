"""Bodies of conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, model_validator

from deployments.gateway.schemas import NOT_BLANK, STORABLE, Body, Title

Role = Literal["owner", "admin", "member", "viewer"]
ReplyMode = Literal["always", "mentioned", "never"]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=128), STORABLE]
SystemPrompt = Annotated[str, StringConstraints(max_length=20_000), NOT_BLANK, STORABLE]
Temperature = Annotated[float, Field(ge=0, le=2)]


class AssistantSettings(Body):
    """How the assistant answers. Null: as the default model does by itself.

    `reply_mode`: to every message of a person, to those that mention @assistant, or never.
    """

    model: ModelId | None = None
    system_prompt: SystemPrompt | None = None
    temperature: Temperature | None = None
    reply_mode: ReplyMode = "always"


class NewConversation(AssistantSettings):
    """`is_group`: meant for several people."""

    title: Title
    is_group: bool = False


class ConversationChanges(Body):
    """What is to change; the rest stays. Null takes model, system prompt and temperature back."""

    title: Title | None = None
    archived: bool | None = None
    is_group: bool | None = None
    model: ModelId | None = None
    system_prompt: SystemPrompt | None = None
    temperature: Temperature | None = None
    reply_mode: ReplyMode | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ConversationChanges:
        if not self.model_fields_set:
            raise ValueError("name at least one thing to change")
        for name in sorted(self.model_fields_set & {"title", "archived", "is_group", "reply_mode"}):
            if getattr(self, name) is None:
                raise ValueError(f"{name} must not be null; leave it out to keep it")
        return self


class Created(BaseModel):
    """The new conversation, and the cursor from which to follow it."""

    conversation_id: UUID
    cursor: str


class Conversation(BaseModel):
    """A conversation as the caller has it. `unread`: messages in all its threads."""

    id: UUID
    title: str
    is_group: bool
    role: Role
    unread: int
    archived_at: datetime | None
    imported_at: datetime | None
    model: str | None
    system_prompt: str | None
    temperature: float | None
    reply_mode: ReplyMode
    created_at: datetime
    updated_at: datetime


class Conversations(BaseModel):
    """Mine, the latest activity first, as of `cursor` of the caller's inbox. `next_before` asks for the next page."""

    conversations: list[Conversation]
    next_before: str | None
    cursor: str


class Participant(BaseModel):
    """Somebody who takes part."""

    user_id: UUID
    username: str
    display_name: str | None
    role: Role
    joined_at: datetime


class Participants(BaseModel):
    """All who take part, in order of joining, as of `cursor`."""

    participants: list[Participant]
    cursor: str


class ConversationDetail(Conversation, Participants):
    """A conversation with its people, as of `cursor`."""


class NewParticipant(Body):
    """Whom to add."""

    user_id: UUID
    role: Role = "member"


class RoleChange(Body):
    """What somebody is to be."""

    role: Role
