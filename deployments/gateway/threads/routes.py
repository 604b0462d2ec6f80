"""Threads of messages."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response

from deployments.gateway.once import OnceOf
from deployments.gateway.pages import instant_mark
from deployments.gateway.services import Services, ServicesOf, SessionOf, json_answer
from deployments.gateway.threads.schemas import NewMessage, Posted, Thread, Threads, ThreadTitle, Tree
from deployments.prefixes import Prefix

router = APIRouter(tags=["Threads"])


@router.post("/api/threads/{conversation_id}/root", response_model=Posted, status_code=201)
async def post_root(
    conversation_id: UUID, body: NewMessage, services: ServicesOf, session: SessionOf, once: OnceOf
) -> Response:
    """Begins a thread. The assistant answers as the conversation's reply mode says."""
    return await post(services, "post_root", session, once, conversation_id, body.content)


@router.post("/api/messages/{message_id}/reply", response_model=Posted, status_code=201)
async def reply(message_id: UUID, body: NewMessage, services: ServicesOf, session: SessionOf, once: OnceOf) -> Response:
    """Goes on after a message, or branches off where it has replies already."""
    return await post(services, "reply", session, once, message_id, body.content)


async def post(services: Services, query: str, session: bytes, once: list[str] | None, *what: object) -> Response:
    """Runs a query that may ask for an answer, and hands the turn to a model that is to write it."""
    deadline = timedelta(seconds=services.settings.turn.deadline_seconds)
    models = services.settings.llm.served()
    text = await services.database.value(query, session, services.idle, once, *what, models, deadline)
    posted = orjson.loads(text)
    if answer := posted["assistant_message_id"]:
        services.turns.hand_over(UUID(answer), posted["model"], Prefix.of_thread(UUID(posted["root_id"])))
    return json_answer(text, 201)


@router.patch("/api/threads/{root_id}", response_model=Thread)
async def rename_thread(root_id: UUID, body: ThreadTitle, services: ServicesOf, session: SessionOf) -> Response:
    """Gives a thread a title. Without one it gets the model's, after its next answer."""
    return json_answer(await services.database.value("rename_thread", session, services.idle, root_id, body.title), 200)


@router.get("/api/conversations/{conversation_id}/threads", response_model=Threads)
async def list_threads(
    conversation_id: UUID,
    services: ServicesOf,
    session: SessionOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Threads of a conversation, the latest activity first."""
    at, root_id = instant_mark("before", before) if before else (None, None)
    return json_answer(await services.database.value("list_threads", session, conversation_id, at, root_id, limit))


@router.get("/api/threads/{root_id}/tree", response_model=Tree)
async def get_tree(
    root_id: UUID,
    services: ServicesOf,
    session: SessionOf,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
    after: UUID | None = None,
    before: UUID | None = None,
) -> Response:
    """Messages of a thread: the first, those just after `after`, or those just before `before`."""
    return json_answer(await services.database.value("get_tree", session, root_id, after, before, limit))
