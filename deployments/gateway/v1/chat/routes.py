"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time

from fastapi import APIRouter, Response

from deployments.gateway.once import OnceOf
from deployments.gateway.services import ServicesOf
from deployments.gateway.v1.callers import WriterOf
from deployments.gateway.v1.chat import stored, stored_routes
from deployments.gateway.v1.chat.encode import ChatFold, Frame
from deployments.gateway.v1.chat.prompt import ask_of
from deployments.gateway.v1.chat.schemas import MEANINGFUL, ChatRequest
from deployments.gateway.v1.chunks import answered
from deployments.gateway.v1.json_text import json_response
from deployments.gateway.v1.metered import metered
from deployments.gateway.v1.stored.resume import LastEventIdOf

router = APIRouter(tags=["OpenAI API"])
router.include_router(stored_routes.router)


@router.post("/v1/chat/completions")
async def complete_chat(
    body: ChatRequest, services: ServicesOf, caller: WriterOf, once: OnceOf, after: LastEventIdOf
) -> Response:
    """An answer to a conversation, whole or as a stream of chunks.

    With `store`: true, or in a thread (`metadata.rustygpt`), it is written to its end whoever leaves, and its events
    have numbers to go on after. Such a request, sent again with its Idempotency-Key, gets the same answer.
    """
    if stored.is_stored(body):
        kept = await stored.begin(body, services, caller, once)
        if body.stream:
            return stored.streamed(services, kept, after)
        return json_response(await stored.whole(services, kept))
    frame = frame_of(body, f"chatcmpl-{secrets.token_hex(16)}", int(time.time()))
    ask = ask_of(body, str(caller.user_id or ""), services.settings.turn.deadline_seconds)
    answer = await services.asking.ask(body.model, ask)
    items = metered(services.limits, caller, answer)
    return await answered(items, ChatFold(frame), bool(body.stream), services.settings.sse.heartbeat_seconds)


def frame_of(body: ChatRequest, answer_id: str, created: int) -> Frame:
    """What all chunks share. Raises ApiError for fields that must not be ignored."""
    return Frame(
        id=answer_id,
        created=created,
        model=body.model,
        tool_names=tool_names(body),
        parallel=body.parallel_tool_calls is not False,
        n=body.n or 1,
        logprobs=bool(body.logprobs),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        warnings=tuple(body.warnings(MEANINGFUL)),
    )


def tool_names(body: ChatRequest) -> tuple[str, ...]:
    """Functions that the answer may call."""
    return () if body.tool_choice == "none" else tuple(tool.function.name for tool in body.tools or ())
