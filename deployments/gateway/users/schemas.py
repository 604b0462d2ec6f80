"""Bodies of user administration."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, Field

from deployments.gateway.schemas import Body, Email, Name, Password, Text


class NewUser(Body):
    """An account that an administrator makes."""

    username: Name
    email: Email
    password: Password
    display_name: Text | None = Field(None, max_length=128)
    is_admin: bool = False


class Person(BaseModel):
    """A user as others see them."""

    id: UUID
    username: str
    display_name: str | None


class People(BaseModel):
    """Found users, at most 20."""

    users: list[Person]
