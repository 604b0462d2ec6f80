"""Conversations and who takes part in them."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from deployments.gateway.conversations.schemas import (
    ConversationDetail,
    Conversations,
    Created,
    NewConversation,
    NewParticipant,
)
from deployments.gateway.services import ServicesOf, SessionOf, json_answer

router = APIRouter(tags=["Conversations"])


@router.post("/api/conversations", response_model=Created, status_code=201)
async def create_conversation(body: NewConversation, services: ServicesOf, session: SessionOf) -> Response:
    """Opens a conversation that the caller owns."""
    created = await services.database.value("create_conversation", session, body.title, body.is_group)
    return json_answer(created, 201)


@router.get("/api/conversations", response_model=Conversations)
async def list_conversations(services: ServicesOf, session: SessionOf) -> Response:
    """The caller's conversations."""
    return json_answer(await services.database.value("list_conversations", session))


@router.get("/api/conversations/{conversation_id}", response_model=ConversationDetail)
async def get_conversation(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """One conversation with its participants."""
    return json_answer(await services.database.value("get_conversation", session, conversation_id))


@router.post("/api/conversations/{conversation_id}/participants", status_code=204)
async def add_participant(
    conversation_id: UUID, body: NewParticipant, services: ServicesOf, session: SessionOf
) -> Response:
    """Adds somebody. Needs the role admin; to make an owner, owner."""
    await services.database.value("add_participant", session, conversation_id, body.user_id, body.role)
    return Response(status_code=204)


@router.delete("/api/conversations/{conversation_id}/participants/{user_id}", status_code=204)
async def remove_participant(
    conversation_id: UUID, user_id: UUID, services: ServicesOf, session: SessionOf
) -> Response:
    """Removes somebody (role admin), or oneself."""
    await services.database.value("remove_participant", session, conversation_id, user_id)
    return Response(status_code=204)
