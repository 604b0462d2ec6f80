"""POST /v1/completions."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

from fastapi import APIRouter, Response

from deployments.gateway.services import Services, ServicesOf
from deployments.gateway.v1.answer import Answer
from deployments.gateway.v1.callers import Caller, WriterOf
from deployments.gateway.v1.chunks import answered
from deployments.gateway.v1.completions.encode import CompletionFold
from deployments.gateway.v1.completions.schemas import MEANINGFUL, CompletionRequest
from deployments.gateway.v1.fields import invalid, schema_of
from deployments.gateway.v1.metered import metered
from deployments.generation import Ask, Ended, Item, Piece

router = APIRouter(tags=["OpenAI API"])


@router.post("/v1/completions")
async def complete(body: CompletionRequest, services: ServicesOf, caller: WriterOf) -> Response:
    """Goes on with each prompt as it stands, without the chat template."""
    warnings = body.warnings(MEANINGFUL)
    asks = asks_of(body, caller, services.settings.turn.deadline_seconds)
    head = {
        "id": f"cmpl-{secrets.token_hex(16)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
    }
    echoes = [await _echo(services, body.model, ask) if body.echo else "" for ask in asks]
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    fold = CompletionFold(head, echoes, body.n or 1, body.logprobs is not None, include_usage, warnings)
    sources = [metered(services.limits, caller, answer) for answer in await _ask_all(services, body.model, asks)]
    items = joined(sources, body.n or 1)
    return await answered(items, fold, bool(body.stream), services.settings.sse.heartbeat_seconds)


async def _ask_all(services: Services, model_id: str, asks: Sequence[Ask]) -> list[Answer]:
    answers: list[Answer] = []
    try:
        for ask in asks:
            answers.append(await services.asking.ask(model_id, ask))  # noqa: PERF401 those made are needed if one fails
    except BaseException:
        for answer in answers:
            answer.cancel()
        raise
    return answers


def asks_of(body: CompletionRequest, caller: Caller, seconds: float) -> list[Ask]:
    """One for each prompt. Raises ApiError."""
    schema = schema_of(body.response_format)
    if body.grammar is not None and schema is not None:
        raise invalid("grammar", "Give either `grammar` or `response_format`.")
    common = Ask(
        json_schema=schema,
        grammar=body.grammar,
        sampling=body.sampling(body.max_tokens, body.logprobs),
        n=body.n or 1,
        user=str(caller.user_id or ""),
        seconds=seconds,
    )
    return [
        dataclasses.replace(common, text=prompt)
        if isinstance(prompt, str)
        else dataclasses.replace(common, token_ids=tuple(prompt))
        for prompt in body.prompt
    ]


async def _echo(services: Services, model_id: str, ask: Ask) -> str:
    if ask.text is not None:
        return ask.text
    tokens = await services.asking.tokenize(model_id, ask)
    return b"".join(tokens.pieces).decode("utf-8", "replace")


async def joined(sources: list[AsyncGenerator[list[Item], None]], n: int) -> AsyncGenerator[list[Item], None]:
    """The items of several answers as they come; the first prompt's have the indices 0 to n - 1, and so on."""
    made: asyncio.Queue[list[Item] | Exception | None] = asyncio.Queue()

    async def pass_on(place: int, source: AsyncGenerator[list[Item], None]) -> None:
        async with aclosing(source):
            try:
                async for batch in source:
                    made.put_nowait([_moved(item, place * n) for item in batch])
                made.put_nowait(None)
            except Exception as error:  # noqa: BLE001 whatever it is, it is raised below
                made.put_nowait(error)

    async with AsyncExitStack() as stack:
        for numbered in enumerate(sources):
            task = asyncio.create_task(pass_on(*numbered))
            stack.push_async_callback(asyncio.wait, {task})
            stack.callback(task.cancel)
        running = len(sources)
        while running:
            batch = await made.get()
            if isinstance(batch, Exception):
                raise batch
            if batch is None:
                running -= 1
            else:
                yield batch


def _moved(item: Item, by: int) -> Item:
    if by and isinstance(item, Piece | Ended):
        return dataclasses.replace(item, index=item.index + by)
    return item
