"""What one has not read yet."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.gateway.unread.schemas import ReadUpTo, ThreadRead, UnreadThreads

router = APIRouter(tags=["Unread"])


@router.post("/api/threads/{root_id}/read", response_model=ThreadRead)
async def mark_read(root_id: UUID, services: ServicesOf, session: SessionOf, body: ReadUpTo | None = None) -> Response:
    """Marks a thread as read up to a message. A mark never goes back."""
    message_id = body.message_id if body else None
    return json_answer(await services.database.value("mark_read", session, root_id, message_id))


@router.get("/api/conversations/{conversation_id}/unread", response_model=UnreadThreads)
async def list_unread(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Threads of a conversation with something unread: messages of others since one takes part."""
    return json_answer(await services.database.value("list_unread", session, conversation_id))
