"""Who asks under /v1: the holder of an API key, somebody with a session, or, where that is allowed, anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from deployments.gateway.auth.cookies import require_csrf
from deployments.gateway.v1.errors import ApiError
from deployments.sessions import SESSION_COOKIE, token_hash

READ = "v1.read"
WRITE = "v1.write"


@dataclass(frozen=True)
class Caller:
    """`credential` is the hash that api_* functions take for a session's. All but `scopes` are None for an anonymous
    caller, who may not have anything stored."""

    user_id: UUID | None
    credential: bytes | None
    key_id: UUID | None
    scopes: frozenset[str]


async def _reader(request: Request) -> Caller:
    return await _session(request, READ)


async def _writer(request: Request) -> Caller:
    return await _session(request, WRITE)


async def _session(request: Request, _scope: str) -> Caller:
    token = request.cookies.get(SESSION_COOKIE)
    if not token:
        raise ApiError(
            401, "authentication_error", "missing_api_key", "Send an API key: `Authorization: Bearer rgpt_…`."
        )
    await require_csrf(request)
    services = request.app.state.services
    credential = token_hash(token)
    user_id = await services.database.value("session_user", credential, services.idle)
    return Caller(user_id, credential, None, frozenset({READ, WRITE}))


ReaderOf = Annotated[Caller, Depends(_reader)]
"""Whoever may read (scope v1.read). Raises ApiError 401, 403, 429; the request counts towards the limit."""
WriterOf = Annotated[Caller, Depends(_writer)]
"""Whoever may have something generated (scope v1.write). Raises ApiError 401, 403, 429; the request counts."""
