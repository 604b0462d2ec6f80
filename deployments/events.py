"""What events say: the contract between the log, which stored functions write, and everybody who reads streams.

Each class below is the payload of one type of event, exactly: no field more, no field less. On the wire an event's
`data` is `{"type": …, "payload": …}`. Published as JSON Schema at GET /api/stream/schema, told in docs/events.md.
"""

from __future__ import annotations

from datetime import datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

Role = Literal["owner", "admin", "member", "viewer"]
FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]
Instant = Annotated[datetime, Field(description="RFC 3339, in UTC")]


class Part(BaseModel):
    """JSON of exactly these fields, each of exactly this type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PromptDetails(Part):
    """How the prompt's tokens came about."""

    cached_tokens: int = Field(ge=0, description="computed for an earlier request")


class Usage(Part):
    """Tokens of one answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)
    prompt_tokens_details: PromptDetails


class Message(Part):
    """A message, as trees show it, too."""

    id: UUID
    root_id: UUID = Field(description="the message that began the thread")
    parent_id: UUID | None
    conversation_id: UUID
    author_id: UUID | None = Field(description="null for what no person wrote")
    author_name: str | None
    role: Literal["user", "assistant", "system", "tool"]
    state: Literal["queued", "streaming", "done"]
    title: str | None = Field(description="of a thread, at its root")
    content: str = Field(description="empty while queued and when deleted; while streaming, the text so far")
    path: list[int] = Field(min_length=1, description="ordinals from the root down: array order is reading order")
    depth: int = Field(ge=1)
    seq: int = Field(ge=1, description="the conversation's messages in the order in which they were made")
    finish_reason: FinishReason | None
    usage: Usage | None
    created_at: Instant
    edited_at: Instant | None
    deleted_at: Instant | None


class ThreadSummary(Part):
    """A thread, as the list of threads shows it."""

    root_id: UUID
    title: str | None
    root_excerpt: str = Field(max_length=240)
    root_author: UUID | None
    created_at: Instant
    last_activity_at: Instant
    message_count: int = Field(ge=1)
    participant_count: int = Field(ge=0)


class Conversation(Part):
    """A conversation, as all its participants see it."""

    id: UUID
    title: str
    is_group: bool
    archived_at: Instant | None
    deleted_at: Instant | None
    model: str | None = Field(description="null: the default model")
    system_prompt: str | None = Field(description="null: the model's own")
    temperature: float | None = Field(description="null: the model's own")
    reply_mode: Literal["always", "mentioned", "never"]
    updated_at: Instant


class ThreadNew(Part):
    """A thread was begun. Its root follows as message.created."""

    conversation_id: UUID
    root_id: UUID
    summary: ThreadSummary


class ThreadActivity(Part):
    """Something was said in a thread: it moves to the top of the list."""

    conversation_id: UUID
    root_id: UUID
    last_activity_at: Instant


class MessageCreated(Part):
    """A message is there: a person's, or the assistant's, which is queued and has no text yet."""

    message: Message


class MessageUpdated(Part):
    """A message is another now: edited, restored, or given a title. It takes the place of the one before."""

    message: Message


class MessageDeleted(Part):
    """A message lost its content and stays in its place."""

    message_id: UUID
    root_id: UUID
    conversation_id: UUID
    deleted_at: Instant


class DeltaText(Part):
    """What is added to the text."""

    role: Literal["assistant"] = Field(default="assistant", description="in the first delta of a message only")
    content: str


class Alternative(Part):
    """A token that the model might have chosen."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(Alternative):
    """A token that the model chose, and the likeliest ones in its place."""

    top_logprobs: list[Alternative]


class DeltaLogprobs(Part):
    """Of the tokens of one delta."""

    content: list[TokenLogprob]


class DeltaChoice(Part):
    """The one choice, as OpenAI's chunks have it."""

    index: Literal[0]
    delta: DeltaText
    logprobs: DeltaLogprobs | None = Field(default=None, description="where a request over /v1 asked for them")
    finish_reason: None


class MessageDelta(Part):
    """More of an answer's text. A message's deltas come in order; their contents, joined, are its text."""

    id: str = Field(
        pattern=r"^[0-9a-f-]{36}:[0-9]+$",
        description="message id and number of the delta, from 0; of merged deltas the last one's",
    )
    object: Literal["chat.completion.chunk"]
    message_id: UUID
    root_id: UUID
    conversation_id: UUID
    parent_id: UUID
    depth: int = Field(ge=2)
    choices: list[DeltaChoice] = Field(min_length=1, max_length=1)


class MessageDone(Part):
    """An answer has ended: the one terminal event of its turn. `usage` is null where the model counted nothing."""

    message_id: UUID
    root_id: UUID
    conversation_id: UUID
    finish_reason: FinishReason
    usage: Usage | None


class ConversationUpdated(Part):
    """A conversation is another now: renamed, archived, deleted, or other settings. In inboxes, too."""

    conversation: Conversation


class MembershipChanged(Part):
    """Somebody came, went, or has another role. In that person's inbox, too."""

    conversation_id: UUID
    user_id: UUID
    role: Role | None = Field(default=None, description="absent or null when removed")
    action: Literal["added", "removed", "role_updated"]


class PresenceUpdate(Part):
    """Somebody came online, went away or offline."""

    user_id: UUID
    status: Literal["online", "away", "offline"]
    last_seen_at: Instant


class TypingUpdate(Part):
    """Somebody is writing until `expires_at`; when that has passed, no more. `root_id` null: at a new thread."""

    conversation_id: UUID
    root_id: UUID | None
    user_id: UUID
    expires_at: Instant


class UnreadUpdate(Part):
    """In an inbox: how many messages of a thread its owner has not read."""

    conversation_id: UUID
    root_id: UUID
    unread: int = Field(ge=0)
    last_activity_at: Instant


class Error(Part):
    """Why an answer failed; after its message.done."""

    code: Literal["assistant_timeout", "assistant_stream_error"]
    message: str = Field(description="a sentence for people")
    message_id: UUID


class StreamReset(Part):
    """Without an id. The cursor is of no use any more: fetch what you show anew, and go on from the cursor there."""

    reason: Literal["cursor_out_of_range", "log_replaced"]


class StreamReconnect(Part):
    """Without an id. The connection ends here: connect again with the last id."""

    reason: Literal["connection_age"]


PAYLOADS: dict[str, type[Part]] = {
    "thread.new": ThreadNew,
    "thread.activity": ThreadActivity,
    "message.created": MessageCreated,
    "message.updated": MessageUpdated,
    "message.deleted": MessageDeleted,
    "message.delta": MessageDelta,
    "message.done": MessageDone,
    "conversation.updated": ConversationUpdated,
    "membership.changed": MembershipChanged,
    "presence.update": PresenceUpdate,
    "typing.update": TypingUpdate,
    "unread.update": UnreadUpdate,
    "error": Error,
    "stream.reset": StreamReset,
    "stream.reconnect": StreamReconnect,
}


def _envelope(kind: str, payload: type[Part]) -> Any:
    fields: dict[str, Any] = {"type": (Literal[kind], ...), "payload": (payload, ...)}
    return create_model(f"{payload.__name__}Event", __base__=Part, __doc__=payload.__doc__, **fields)


_EVENTS: Any = reduce(or_, (_envelope(kind, payload) for kind, payload in PAYLOADS.items()))
# The union is made when the module is loaded, from PAYLOADS: a type checker cannot read it.
EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[_EVENTS, Field(discriminator="type")])  # pyright: ignore


def validate(data: str | bytes) -> None:
    """An event's `data`, as it stands on the wire. Raises pydantic.ValidationError for anything else."""
    EVENT.validate_json(data)


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of an event's `data`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event of a RustyGPT stream",
        "description": "The JSON in `data` of a server-sent event of /api/stream.",
    } | EVENT.json_schema()
