"""API keys: made, listed and revoked by people who are signed in."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response

from deployments.gateway.keys.key_format import key_hash, key_prefix, new_key
from deployments.gateway.keys.schemas import KeyMade, Keys, NewKey
from deployments.gateway.once import OnceOf
from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.problems import ProblemError
from deployments.sessions import SESSION_COOKIE

router = APIRouter(tags=["API keys"])


@router.post("/api/keys", response_model=KeyMade, status_code=201)
async def create_key(
    body: NewKey, request: Request, services: ServicesOf, session: SessionOf, once: OnceOf
) -> Response:
    """Makes an API key for the caller. The key is told here and never again."""
    key = new_key(request.cookies[SESSION_COOKIE], once)
    lifetime = timedelta(seconds=body.expires_in_seconds) if body.expires_in_seconds is not None else None
    made = orjson.loads(
        await services.database.value(
            "create_key",
            session,
            once,
            body.name,
            key_prefix(key),
            key_hash(key),
            body.scopes,
            lifetime,
            body.expires_at,
        )
    )
    if bytes.fromhex(made.pop("key_hash")) != key_hash(key):
        raise ProblemError(
            409,
            "RGP.CONFLICT",
            "This API key was made in an earlier session; it cannot be told again. Revoke it and make another one.",
        )
    return json_answer(orjson.dumps(made | {"key": key}).decode(), 201)


@router.get("/api/keys", response_model=Keys)
async def list_keys(
    services: ServicesOf,
    session: SessionOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    before: UUID | None = None,
) -> Response:
    """The caller's API keys, the latest first: what they are called and how they begin, never themselves."""
    return json_answer(await services.database.value("list_keys", session, before, limit))


@router.delete("/api/keys/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Takes a key back. It stops working everywhere within 2 seconds."""
    await services.database.value("revoke_key", session, key_id)
    return Response(status_code=204)
