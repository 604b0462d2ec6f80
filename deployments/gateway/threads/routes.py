"""Threads of messages, and the answers to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response

from deployments.gateway.services import Services, ServicesOf, SessionOf, json_answer
from deployments.gateway.threads.schemas import Cancelled, NewMessage, Posted, Threads, Tree
from deployments.problems import ProblemError

router = APIRouter(tags=["Threads"])


@router.post("/api/threads/{conversation_id}/root", response_model=Posted, status_code=201)
async def post_root(conversation_id: UUID, body: NewMessage, services: ServicesOf, session: SessionOf) -> Response:
    """Begins a thread. The assistant answers."""
    return await _post(services, "post_root", session, conversation_id, body.content)


@router.post("/api/messages/{message_id}/reply", response_model=Posted, status_code=201)
async def reply(message_id: UUID, body: NewMessage, services: ServicesOf, session: SessionOf) -> Response:
    """Goes on after a message, or branches off where it has replies already. The assistant answers."""
    return await _post(services, "reply", session, message_id, body.content)


async def _post(services: Services, query: str, session: bytes, target: UUID, content: str) -> Response:
    model = services.settings.llm.default_model
    deadline = timedelta(seconds=services.settings.turn.deadline_seconds)
    posted = await services.database.value(query, session, services.idle, target, content, model, deadline)
    services.turns.hand_over(UUID(orjson.loads(posted)["assistant_message_id"]), model)
    return json_answer(posted, 201)


@router.get("/api/conversations/{conversation_id}/threads", response_model=Threads)
async def list_threads(
    conversation_id: UUID,
    services: ServicesOf,
    session: SessionOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Threads of a conversation, the latest activity first."""
    at, root_id = _before(before) if before else (None, None)
    return json_answer(await services.database.value("list_threads", session, conversation_id, at, root_id, limit))


@router.get("/api/threads/{root_id}/tree", response_model=Tree)
async def get_tree(
    root_id: UUID,
    services: ServicesOf,
    session: SessionOf,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
    after: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Messages of a thread."""
    path = _path(after) if after else None
    return json_answer(await services.database.value("get_tree", session, root_id, path, limit))


@router.post("/api/messages/{message_id}/cancel", response_model=Cancelled, status_code=202)
async def cancel(message_id: UUID, services: ServicesOf, session: SessionOf) -> Response:
    """Stops an answer; what was shown stays. Any member may, from any device."""
    return json_answer(await services.database.value("cancel", session, message_id), 202)


def _before(text: str) -> tuple[datetime, UUID]:
    at, _, root_id = text.partition(",")
    try:
        instant = datetime.fromisoformat(at)
        if instant.tzinfo is None:
            raise ValueError
        return instant.astimezone(UTC), UUID(root_id)
    except (ValueError, OverflowError):
        raise ProblemError(
            400, "RGP.VALIDATION", "`before` is no page mark. Send `next_before` of the page that you have."
        ) from None


def _path(text: str) -> list[int]:
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() and 0 < len(part) < 10 for part in parts):
        raise ProblemError(
            400, "RGP.VALIDATION", "`after` is no page mark. Send `next_after` of the page that you have."
        )
    return [int(part) for part in parts]
