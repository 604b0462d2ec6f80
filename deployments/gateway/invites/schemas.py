"""Bodies of invitations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from deployments.gateway.schemas import STORABLE, Body, Email

InvitedRole = Literal["admin", "member", "viewer"]
DAY_SECONDS = 86_400


class NewInvite(Body):
    """Whom to invite, as what, and for how long: a minute to 30 days."""

    email: Email
    role: InvitedRole = "member"
    ttl_seconds: int = Field(DAY_SECONDS, ge=60, le=30 * DAY_SECONDS)


class InviteToken(BaseModel):
    """What the invited person sends to accept. It is told once."""

    invite_id: UUID
    token: str
    expires_at: datetime


class Invite(BaseModel):
    """An invitation, without its token."""

    id: UUID
    email: str
    role: InvitedRole
    invited_by: UUID
    state: Literal["live", "expired", "accepted", "revoked"]
    created_at: datetime
    expires_at: datetime


class Invites(BaseModel):
    """Invitations, the latest first; `next_before` asks for the next page."""

    invites: list[Invite]
    next_before: UUID | None


class Acceptance(Body):
    """The token that was received."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=128), STORABLE]


class Accepted(BaseModel):
    """The conversation that the caller takes part in now."""

    conversation_id: UUID
