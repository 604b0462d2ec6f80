"""Who asks under /v1: the holder of an API key, somebody with a session, or, where that is allowed, anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from fastapi import Depends, Request

from deployments.gateway.auth.cookies import require_csrf
from deployments.gateway.keys.key_format import MARK
from deployments.gateway.v1.errors import ApiError, LimitReached
from deployments.sessions import SESSION_COOKIE, token_hash

if TYPE_CHECKING:
    # Services have a part that knows callers.
    from deployments.gateway.services import Services

READ = "v1.read"
WRITE = "v1.write"
LIMIT_HEADERS = "rustygpt.limit_headers"
"""Where in a request's ASGI scope the headers lie that its answer is to have."""


@dataclass(frozen=True)
class Caller:
    """`credential` is the hash that api_* functions take for a session's. All but `scopes` are None for an anonymous
    caller, who may not have anything stored."""

    user_id: UUID | None
    credential: bytes | None
    key_id: UUID | None
    scopes: frozenset[str]


ANYBODY = Caller(None, None, None, frozenset({READ, WRITE}))


async def reader(request: Request) -> Caller:
    """Whoever may read (scope v1.read). Raises ApiError 401, 403, 429; the request counts towards the limit."""
    return await _admitted(request, READ)


async def _writer(request: Request) -> Caller:
    return await _admitted(request, WRITE)


ReaderOf = Annotated[Caller, Depends(reader)]
WriterOf = Annotated[Caller, Depends(_writer)]
"""Whoever may have something generated (scope v1.write). Raises ApiError 401, 403, 429; the request counts."""


async def _admitted(request: Request, scope: str) -> Caller:
    services: Services = request.app.state.services
    caller = await _caller(request, services)
    if scope not in caller.scopes:
        raise ApiError(
            403,
            "permission_error",
            "insufficient_scope",
            f"This API key has not the scope {scope}. Use one that has it.",
        )
    try:
        request.scope[LIMIT_HEADERS] = services.limits.admit(caller)
    except LimitReached as refused:
        request.scope[LIMIT_HEADERS] = refused.headers
        raise
    return caller


async def _caller(request: Request, services: Services) -> Caller:
    allows_anybody = services.settings.api.anonymous
    key = _presented_key(request)
    # Clients that insist on a key send some word where none is needed.
    if key is not None and (key.startswith(MARK) or not allows_anybody):
        return await services.keys.holder(key)
    if session := request.cookies.get(SESSION_COOKIE):
        await require_csrf(request)
        credential = token_hash(session)
        user_id = await services.database.value("session_user", credential, services.idle)
        return Caller(user_id, credential, None, frozenset({READ, WRITE}))
    if allows_anybody:
        return ANYBODY
    raise ApiError(
        401,
        "authentication_error",
        "missing_api_key",
        "Send an API key in the header `Authorization: Bearer rgpt_…`. You make one at /api/keys.",
    )


def _presented_key(request: Request) -> str | None:
    """From `Authorization: Bearer`, as OpenAI's clients send it, or `x-api-key`, as Anthropic's do."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("x-api-key")
