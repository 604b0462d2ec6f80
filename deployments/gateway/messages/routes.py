"""What may be done with a message: change it, take it away, bring it back, answer it anew, stop the answer."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from deployments.gateway.messages.schemas import Cancelled, Edit, Versions
from deployments.gateway.once import OnceOf
from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.gateway.threads.routes import post
from deployments.gateway.threads.schemas import Message, NewMessage, Posted

router = APIRouter(prefix="/api/messages/{message_id}", tags=["Messages"])


@router.post("/edit", response_model=Message)
async def edit(message_id: UUID, body: Edit, services: ServicesOf, session: SessionOf) -> Response:
    """Changes what a person said: the author, or an admin. What it said before is kept as a version."""
    return json_answer(
        await services.database.value("edit", session, services.idle, message_id, body.content, body.reason)
    )


@router.get("/versions", response_model=Versions)
async def list_versions(message_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """What the message said before each of its edits."""
    return json_answer(await services.database.value("list_versions", session, message_id))


@router.post("/delete", status_code=204)
async def delete(message_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Takes the content from everybody's sight and from later prompts: the author, or an admin. Replies stay."""
    await services.database.value("delete_message", session, services.idle, message_id)
    return Response(status_code=204)


@router.post("/restore", response_model=Message)
async def restore(message_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Brings a deleted message back. Admins."""
    return json_answer(await services.database.value("restore", session, services.idle, message_id))


@router.post("/regenerate", response_model=Posted, status_code=201)
async def regenerate(message_id: UUID, services: ServicesOf, session: SessionOf, once: OnceOf) -> Response:
    """Another answer beside this one; for a person's message an answer, whatever the reply mode says."""
    return await post(services, "regenerate", session, once, message_id)


@router.post("/branch", response_model=Posted, status_code=201)
async def branch(
    message_id: UUID, body: NewMessage, services: ServicesOf, session: SessionOf, once: OnceOf
) -> Response:
    """Says a person's message anew, beside the one that was: a branch from there, or a new thread at a root."""
    return await post(services, "branch", session, once, message_id, body.content)


@router.post("/cancel", response_model=Cancelled, status_code=202)
async def cancel(message_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Stops an answer; what was shown stays. Any member may, from any device."""
    return json_answer(await services.database.value("cancel", session, message_id), 202)
