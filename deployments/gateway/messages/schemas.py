"""Bodies of what may be done with a message."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, StringConstraints

from deployments.gateway.schemas import STORABLE, Body, Content

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500), STORABLE]


class Edit(Body):
    """What the message says from now on, and why, if there is a reason to give."""

    content: Content
    reason: Reason | None = None


class Version(BaseModel):
    """What a message said until somebody changed it."""

    version: int
    content: str
    edited_by: UUID
    reason: str | None
    replaced_at: datetime


class Versions(BaseModel):
    """A message's past, the oldest first; none for a message that was deleted."""

    message_id: UUID
    versions: list[Version]


class Cancelled(BaseModel):
    """What became of the answer: cancelled, still being stopped, or complete before."""

    message_id: UUID
    status: Literal["cancelled", "cancelling", "completed"]
