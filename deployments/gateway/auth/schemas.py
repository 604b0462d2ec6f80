"""Bodies of setup and sign-in."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from deployments.gateway.schemas import Body, Email, Name, Password, Text


class SetupState(BaseModel):
    """Whether the first account exists."""

    is_setup: bool


class Setup(Body):
    """The first account."""

    username: Name
    email: Email
    password: Password


class Login(Body):
    """`email` may be a username."""

    email: Text = Field(min_length=1, max_length=254)
    password: Text = Field(min_length=1, max_length=1024)


class Account(BaseModel):
    """A user as they see themself."""

    id: UUID
    email: str
    username: str
    display_name: str | None
    roles: list[str]


class SetupDone(BaseModel):
    """The account just made."""

    user: Account


class SessionTimes(BaseModel):
    """When a session began and will end."""

    issued_at: datetime
    expires_at: datetime
    absolute_expires_at: datetime


class SignedIn(BaseModel):
    """Who is signed in, and the token that changes need in X-CSRF-TOKEN."""

    user: Account
    session: SessionTimes
    csrf_token: str
