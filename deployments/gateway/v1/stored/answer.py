"""An answer that is kept: what was asked, how it is shown, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self
from uuid import UUID

from deployments.generation import ASK, Ask, Ended, Json

Kind = Literal["chat", "response"]
PREFIXES: dict[Kind, str] = {"chat": "chatcmpl-", "response": "resp_"}


@dataclass(frozen=True)
class StoredAnswer:
    """As it stood when it was read. What a formatter may go by: this row and the items of `Store.follow`, nothing else.

    `shown` is what the formatter echoes: metadata, instructions and the like. `created_at` is in Unix seconds. `ended`
    is None while the answer is being written; after it `text` has all of it. `events_kept`: every piece is still in the
    log; else `follow` gives the text in one piece, hence numbers its events anew. `begun`: a piece was written.
    `credential` is its reader's.
    """

    public_id: str
    kind: Kind
    message_id: UUID
    conversation_id: UUID
    model_id: str
    ask: Ask
    shown: Json
    background: bool
    created_at: int
    ended: Ended | None
    text: str
    events_kept: bool
    begun: bool
    credential: bytes = field(repr=False)

    @classmethod
    def from_row(cls, row: dict[str, Any], credential: bytes) -> Self:
        """From what stored functions return of an answer."""
        message_id = UUID(row["message_id"])
        return cls(
            public_id=public_id(row["kind"], message_id),
            kind=row["kind"],
            message_id=message_id,
            conversation_id=UUID(row["conversation_id"]),
            model_id=row["model"],
            ask=ASK.validate_python(row["request"]),
            shown=row["shown"],
            background=row["background"],
            created_at=row["created_at"],
            ended=ended_of(row["ended"], row["tokens"]) if row["ended"] else None,
            text=row["text"],
            events_kept=row["events_kept"],
            begun=row["begun"],
            credential=credential,
        )


def ended_of(end: dict[str, Any], tokens: int) -> Ended:
    """How a turn ended: {"reason", "usage", "error"}. `tokens` are those that came before: what counts where no model
    was there at the end to count."""
    usage = end["usage"] or {}
    return Ended(
        index=0,
        reason=end["reason"],
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", tokens),
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        message=end["error"] or "",
    )


def public_id(kind: Kind, message_id: UUID) -> str:
    """As clients know it."""
    return PREFIXES[kind] + message_id.hex


def message_id_of(kind: Kind, text: str) -> UUID | None:
    """The message of a public id; None for what is none of this kind."""
    digits = text.removeprefix(PREFIXES[kind])
    if text != PREFIXES[kind] + digits or len(digits) != 32:
        return None
    try:
        message_id = UUID(hex=digits)
    except ValueError:
        return None
    return message_id if message_id.hex == digits else None
