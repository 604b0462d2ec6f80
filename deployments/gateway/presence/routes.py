"""Who is there and who types."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from deployments.gateway.presence.schemas import Heartbeat, PresenceList, TypingList, TypingNotice
from deployments.gateway.services import ServicesOf, SessionOf, json_answer

router = APIRouter(tags=["Presence"])


@router.post("/api/presence/heartbeat", status_code=204)
async def heartbeat(services: ServicesOf, session: SessionOf, body: Heartbeat | None = None) -> Response:
    """Says that one is there. Without it one counts as away after a while, and then as offline."""
    await services.database.value("heartbeat", session, (body or Heartbeat()).status)
    return Response(status_code=204)


@router.get("/api/presence", response_model=PresenceList)
async def list_presence(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Presence of everybody who takes part in a conversation."""
    return json_answer(await services.database.value("list_presence", session, conversation_id))


@router.post("/api/typing", status_code=204)
async def set_typing(body: TypingNotice, services: ServicesOf, session: SessionOf) -> Response:
    """Says that one types. Members and above."""
    longest = services.settings.presence.typing_max_seconds
    await services.database.value("set_typing", session, body.conversation_id, body.root_id, body.seconds, longest)
    return Response(status_code=204)


@router.get("/api/conversations/{conversation_id}/typing", response_model=TypingList)
async def list_typing(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Who types in a conversation right now."""
    return json_answer(await services.database.value("list_typing", session, conversation_id))
