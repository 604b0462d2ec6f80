"""Conversations and who takes part in them."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from deployments.gateway.conversations.schemas import (
    Conversation,
    ConversationChanges,
    ConversationDetail,
    Conversations,
    Created,
    NewConversation,
    NewParticipant,
    Participant,
    Participants,
    RoleChange,
)
from deployments.gateway.once import OnceOf
from deployments.gateway.pages import instant_mark
from deployments.gateway.schemas import Text
from deployments.gateway.services import Services, ServicesOf, SessionOf, json_answer
from deployments.problems import ProblemError

router = APIRouter(tags=["Conversations"])
ARCHIVED = {"true": True, "false": False, "all": None}


@router.post("/api/conversations", response_model=Created, status_code=201)
async def create_conversation(
    body: NewConversation, services: ServicesOf, session: SessionOf, once: OnceOf
) -> Response:
    """Opens a conversation that the caller owns."""
    _require_model(services, body.model)
    settings = body.model_dump_json(include={"model", "system_prompt", "temperature", "reply_mode"})
    created = await services.database.value("create_conversation", session, once, body.title, body.is_group, settings)
    return json_answer(created, 201)


@router.get("/api/conversations", response_model=Conversations)
async def list_conversations(
    services: ServicesOf,
    session: SessionOf,
    query: Annotated[Text, Query(max_length=256, description="part of the title")] = "",
    archived: Literal["true", "false", "all"] = "false",
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    before: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """The caller's conversations, the latest activity first."""
    at, last = instant_mark("before", before) if before else (None, None)
    return json_answer(
        await services.database.value(
            "list_conversations", session, query.strip() or None, ARCHIVED[archived], at, last, limit
        )
    )


@router.get("/api/conversations/{conversation_id}", response_model=ConversationDetail)
async def get_conversation(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """One conversation with its participants."""
    return json_answer(await services.database.value("get_conversation", session, conversation_id))


@router.patch("/api/conversations/{conversation_id}", response_model=Conversation)
async def change_conversation(
    conversation_id: UUID, body: ConversationChanges, services: ServicesOf, session: SessionOf
) -> Response:
    """Renames a conversation (role member), archives it or changes its settings (role admin)."""
    _require_model(services, body.model)
    changes = body.model_dump_json(exclude_unset=True)
    return json_answer(await services.database.value("change_conversation", session, conversation_id, changes))


@router.delete("/api/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Deletes a conversation for everybody (role owner). Answers that are being written are stopped."""
    await services.database.value("delete_conversation", session, conversation_id)
    return Response(status_code=204)


@router.get("/api/conversations/{conversation_id}/participants", response_model=Participants)
async def list_participants(conversation_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Who takes part."""
    return json_answer(await services.database.value("list_participants", session, conversation_id))


@router.post("/api/conversations/{conversation_id}/participants", status_code=204)
async def add_participant(
    conversation_id: UUID, body: NewParticipant, services: ServicesOf, session: SessionOf, once: OnceOf
) -> Response:
    """Adds somebody. Needs the role admin; to make an owner, owner."""
    await services.database.value("add_participant", session, once, conversation_id, body.user_id, body.role)
    return Response(status_code=204)


@router.patch("/api/conversations/{conversation_id}/participants/{user_id}", response_model=Participant)
async def change_role(
    conversation_id: UUID, user_id: UUID, body: RoleChange, services: ServicesOf, session: SessionOf
) -> Response:
    """Changes somebody's role. Needs the role admin; where an owner is concerned or is to be one, owner."""
    return json_answer(await services.database.value("change_role", session, conversation_id, user_id, body.role))


@router.delete("/api/conversations/{conversation_id}/participants/{user_id}", status_code=204)
async def remove_participant(
    conversation_id: UUID, user_id: UUID, services: ServicesOf, session: SessionOf
) -> Response:
    """Removes somebody (role admin; an owner: role owner), or oneself."""
    await services.database.value("remove_participant", session, conversation_id, user_id)
    return Response(status_code=204)


def _require_model(services: Services, model: str | None) -> None:
    served = services.settings.llm.served()
    if model is not None and model not in served:
        raise ProblemError(400, "RGP.LLM.CONFIG", f"There is no model {model!r}. There are: {', '.join(served)}.")
