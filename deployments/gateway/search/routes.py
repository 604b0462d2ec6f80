"""Full-text search."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from deployments.gateway.pages import rank_mark
from deployments.gateway.schemas import Text
from deployments.gateway.search.schemas import Results
from deployments.gateway.services import ServicesOf, SessionOf, json_answer

router = APIRouter(tags=["Search"])


@router.get("/api/search", response_model=Results)
async def search(
    services: ServicesOf,
    session: SessionOf,
    query: Annotated[
        Text, Query(max_length=512, description='words, "a phrase", or, -without; the last word may be incomplete')
    ],
    conversation_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=120)] = None,
) -> Response:
    """Messages of the caller's conversations, or of one of them."""
    mark = rank_mark("after", after) if after else (None, None, None)
    return json_answer(await services.database.value("search", session, query, conversation_id, *mark, limit))
