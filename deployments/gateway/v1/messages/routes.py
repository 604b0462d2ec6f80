"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from deployments.gateway.services import ServicesOf
from deployments.gateway.v1.callers import ReaderOf, WriterOf
from deployments.gateway.v1.errors import ApiError, anthropic_body
from deployments.gateway.v1.json_text import json_bytes
from deployments.gateway.v1.messages.encode import Frame, MessageFold
from deployments.gateway.v1.messages.prompt import ask_of, messages_of, tools_in
from deployments.gateway.v1.messages.schemas import MEANINGFUL, CountRequest, MessagesRequest
from deployments.gateway.v1.metered import metered
from deployments.gateway.v1.sse import EventStream, event
from deployments.generation import Ask, Item

router = APIRouter(tags=["Anthropic API"])


class TokensCount(BaseModel):
    """Tokens of a prompt."""

    input_tokens: int


@router.post("/v1/messages")
async def create_message(body: MessagesRequest, request: Request, services: ServicesOf, caller: WriterOf) -> Response:
    """The answer to a conversation, whole or as a stream of events. Nothing of it is stored."""
    ask = ask_of(body, str(caller.user_id or ""), services.settings.turn.deadline_seconds)
    frame = Frame(
        id=f"msg_{secrets.token_hex(16)}",
        model=body.model,
        tool_names=tuple(function.name for function in ask.tools.functions) if ask.tools else (),
        parallel=ask.tools is None or ask.tools.parallel,
        thinking=body.thinking is None or body.thinking.type != "disabled",
        request_id=request.headers.get("x-request-id", ""),
        warnings=tuple(body.warnings(MEANINGFUL)),
    )
    answer = await services.asking.ask(body.model, ask)
    items = metered(services.limits, caller, answer)
    fold = MessageFold(frame)
    headers = {"request-id": frame.request_id}  # where Anthropic's clients look for it
    if body.stream:
        return EventStream(_events(items, fold, frame.request_id), services.settings.sse.heartbeat_seconds, headers)
    async with aclosing(items):
        async for batch in items:
            fold.feed(batch)
    return Response(json_bytes(fold.whole()), headers=headers, media_type="application/json")


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: CountRequest, services: ServicesOf, _: ReaderOf) -> TokensCount:
    """How many tokens the prompt of such a message has: `input_tokens`, those from the cache included."""
    body.warnings(MEANINGFUL)
    ask = Ask(messages=tuple(messages_of(body)), tools=tools_in(body))
    return TokensCount(input_tokens=len((await services.asking.tokenize(body.model, ask)).token_ids))


async def _events(
    items: AsyncGenerator[list[Item], None], fold: MessageFold, request_id: str
) -> AsyncGenerator[bytes, None]:
    """One write for each batch."""
    async with aclosing(items):
        try:
            async for batch in items:
                if made := fold.feed(batch):
                    yield b"".join(event(json_bytes(item), item["type"]) for item in made)
        except ApiError as error:
            yield event(json_bytes(anthropic_body(error, request_id)), "error")
