"""Bodies of API keys."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints, model_validator

from deployments.gateway.schemas import STORABLE, Body

KeyScope = Literal["v1.read", "v1.write", "admin.limits"]
YEAR_SECONDS = 365 * 86_400


class NewKey(Body):
    """`v1.read` may look, `v1.write` may have something generated, `admin.limits` is for administrators and opens
    nothing yet. Without `expires_in_seconds` or `expires_at` (one of them) the key lives until it is revoked."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), STORABLE]
    scopes: list[KeyScope] = Field(["v1.read", "v1.write"], min_length=1, max_length=3)
    expires_in_seconds: int | None = Field(None, ge=1, le=10 * YEAR_SECONDS)
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_end(self) -> NewKey:
        if self.expires_in_seconds is not None and self.expires_at is not None:
            raise ValueError("send expires_in_seconds or expires_at, not both")
        if len(set(self.scopes)) < len(self.scopes):
            raise ValueError("scopes must not contain a scope twice")
        return self


class KeyMade(BaseModel):
    """A new key. `key` itself is told once; `prefix` is how it begins."""

    id: UUID
    name: str
    key: str
    prefix: str
    scopes: list[KeyScope]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None


class Key(BaseModel):
    """A key as its user sees it later. `last_used_at` may be a minute late."""

    id: UUID
    name: str
    prefix: str
    scopes: list[KeyScope]
    state: Literal["live", "expired", "revoked"]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class Keys(BaseModel):
    """One's keys, the latest first; `next_before` asks for the next page."""

    keys: list[Key]
    next_before: UUID | None
