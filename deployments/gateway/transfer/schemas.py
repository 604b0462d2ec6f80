"""What stands in the file of a conversation, whichever format it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StringConstraints, model_validator

from deployments.gateway.conversations.schemas import NewConversation, Role
from deployments.gateway.schemas import STORABLE, Body, Title

FORMAT = "rustygpt.conversation"
MOST_MESSAGES = 100_000
LONGEST_SAID = 100_000  # characters of what a person writes, here as everywhere
LONGEST_ANSWER = 1_000_000


def _past(instant: datetime) -> datetime:
    # A day's grace: the clocks of two machines differ.
    if not datetime(1970, 1, 1, tzinfo=UTC) <= instant <= datetime.now(UTC) + timedelta(days=1):
        raise ValueError("must lie between 1970 and now")
    return instant


Instant = Annotated[AwareDatetime, AfterValidator(_past)]
PersonName = Annotated[str, StringConstraints(min_length=1, max_length=128), STORABLE]


class FileConversation(NewConversation):
    """Title and settings. When it was made is told, and not taken over."""

    created_at: AwareDatetime | None = None


class FileParticipant(Body):
    """Who took part. Told, and not taken over: names are no accounts."""

    name: PersonName
    role: Role


class FileMessage(Body):
    """A message. A deleted one keeps its place and has no content."""

    role: Literal["user", "assistant", "system", "tool"]
    author: PersonName | None = None
    title: Title | None = None
    content: Annotated[str, StringConstraints(max_length=LONGEST_ANSWER), STORABLE]
    created_at: Instant
    edited_at: Instant | None = None
    deleted: bool = False
    finish_reason: Literal["stop", "length", "cancelled", "timeout", "error"] | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> FileMessage:
        if (self.role == "user") != (self.author is not None):
            raise ValueError("a message of a person has an author, and no other has one")
        if self.deleted and self.content:
            raise ValueError("a deleted message has no content")
        if self.role == "user" and not self.deleted and not self.content.strip():
            raise ValueError("what a person wrote must not be empty")
        if self.role == "user" and len(self.content) > LONGEST_SAID:
            raise ValueError(f"what a person wrote has at most {LONGEST_SAID} characters")
        return self


class PlacedMessage(FileMessage):
    """A message of a list in depth-first order; `depth` is 1 for what begins a thread."""

    depth: int = Field(ge=1)


class LinkedMessage(FileMessage):
    """A message that names the one it answers. Ids tie the file together; imported messages get new ones."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    parent_id: str | None


class FileHead(Body):
    """What both formats begin with."""

    format: Literal["rustygpt.conversation"]
    version: Literal[1]
    exported_at: AwareDatetime | None = None
    participants: list[FileParticipant] = Field(default=[])


class JsonFile(FileHead):
    """The whole of a JSON file. Messages stand after the ones they answer."""

    conversation: FileConversation
    messages: Annotated[list[LinkedMessage], Field(max_length=MOST_MESSAGES)]


class Imported(BaseModel):
    """The new conversation, and what could not be taken over as it was."""

    conversation_id: UUID
    cursor: str
    message_count: int
    warnings: list[str]
