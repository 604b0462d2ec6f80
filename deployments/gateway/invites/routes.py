"""Invitations to conversations, by e-mail address."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from deployments.gateway.invites.schemas import Acceptance, Accepted, Invites, InviteToken, NewInvite
from deployments.gateway.invites.tokens import new_token
from deployments.gateway.once import OnceOf
from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.problems import ProblemError
from deployments.sessions import SESSION_COOKIE, token_hash

router = APIRouter(tags=["Invitations"])


@router.post("/api/conversations/{conversation_id}/invites", response_model=InviteToken, status_code=201)
async def create_invite(
    conversation_id: UUID, body: NewInvite, request: Request, services: ServicesOf, session: SessionOf, once: OnceOf
) -> Response:
    """Invites whoever has an e-mail address (role admin). The token is told here and never again."""
    token = new_token(request.cookies[SESSION_COOKIE], once)
    lifetime = timedelta(seconds=body.ttl_seconds)
    created = orjson.loads(
        await services.database.value(
            "create_invite", session, once, conversation_id, body.email, body.role, token_hash(token), lifetime
        )
    )
    if bytes.fromhex(created.pop("token_hash")) != token_hash(token):
        raise ProblemError(
            409,
            "RGP.CONFLICT",
            "This invitation was made in an earlier session; its token cannot be told again. "
            "Revoke it and make another one.",
        )
    return json_answer(orjson.dumps(created | {"token": token}).decode(), 201)


@router.get("/api/conversations/{conversation_id}/invites", response_model=Invites)
async def list_invites(
    conversation_id: UUID,
    services: ServicesOf,
    session: SessionOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    before: UUID | None = None,
) -> Response:
    """All invitations of a conversation, the latest first (role admin)."""
    return json_answer(await services.database.value("list_invites", session, conversation_id, before, limit))


@router.delete("/api/conversations/{conversation_id}/invites/{invite_id}", status_code=204)
async def revoke_invite(conversation_id: UUID, invite_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Takes an invitation back (role admin)."""
    await services.database.value("revoke_invite", session, conversation_id, invite_id, None)
    return Response(status_code=204)


@router.post("/api/invites/accept", response_model=Accepted)
async def accept_invite(body: Acceptance, services: ServicesOf, session: SessionOf, once: OnceOf) -> Response:
    """Takes part, once, as whoever has the invited e-mail address."""
    return json_answer(await services.database.value("accept_invite", session, once, token_hash(body.token)))


@router.post("/api/invites/{token}/revoke", status_code=204)
async def revoke_invite_token(
    token: Annotated[str, Path(max_length=128)], services: ServicesOf, session: SessionOf
) -> Response:
    """Takes an invitation back by its token (role admin)."""
    await services.database.value("revoke_invite", session, None, None, token_hash(token))
    return Response(status_code=204)
