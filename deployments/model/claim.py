"""A turn that this replica may write: its lease and what is needed to go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from deployments.generation import ASK, Ask


@dataclass(frozen=True)
class Claim:
    """`epoch` fences: appends with an older one are refused. `token_ids` were committed by earlier holders,
    in `delta_count` deltas. `history` are the ancestors, root first, {"role", "content", "name"} each; `name` is set
    where several people speak. `system_prompt` and `temperature` are the conversation's; None: the model's.

    `ask` is what was asked over /v1; None: an answer as conversations have them. With a parent the ask stands in a
    thread: it says how to answer, and the history what to. Without one it says all."""

    message_id: UUID
    conversation_id: UUID
    root_id: UUID
    parent_id: UUID | None
    depth: int
    epoch: int
    delta_count: int
    seconds_left: float
    token_ids: tuple[int, ...]
    history: tuple[dict[str, str | None], ...]
    system_prompt: str | None
    temperature: float | None
    needs_title: bool
    ask: Ask | None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """From what worker_claim returns."""
        return cls(
            message_id=UUID(value["message_id"]),
            conversation_id=UUID(value["conversation_id"]),
            root_id=UUID(value["root_id"]),
            parent_id=UUID(value["parent_id"]) if value["parent_id"] else None,
            depth=value["depth"],
            epoch=value["epoch"],
            delta_count=value["delta_count"],
            seconds_left=float(value["seconds_left"]),
            token_ids=tuple(value["token_ids"]),
            history=tuple(value["history"] or ()),
            system_prompt=value["system_prompt"],
            temperature=value["temperature"],
            needs_title=value["needs_title"],
            ask=ASK.validate_python(value["request"]) if value["request"] else None,
        )
