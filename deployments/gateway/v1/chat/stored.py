"""Chat completions that are kept: each stored by itself, or an answer in a thread of a conversation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from deployments.gateway.services import Services
from deployments.gateway.v1.callers import Caller
from deployments.gateway.v1.chat.encode import ChatFold, Frame
from deployments.gateway.v1.chat.prompt import ask_of
from deployments.gateway.v1.chat.schemas import MEANINGFUL, ChatRequest
from deployments.gateway.v1.chunks import DONE
from deployments.gateway.v1.errors import ApiError, error_body
from deployments.gateway.v1.fields import Metadata, invalid, unsupported
from deployments.gateway.v1.json_text import json_bytes
from deployments.gateway.v1.sse import EventStream, event
from deployments.gateway.v1.stored.answer import StoredAnswer
from deployments.gateway.v1.stored.store import Place, credential_of, expired
from deployments.generation import Ask, Item, Json, Piece, Started

LONGEST_MESSAGE = 100_000  # characters, as for every message of a conversation
METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)
THREAD = "rustygpt"


class Thread(BaseModel):
    """Where in a conversation to go on: `metadata.rustygpt`."""

    model_config = ConfigDict(extra="forbid")
    conversation_id: UUID
    parent_message_id: UUID


def is_stored(body: ChatRequest) -> bool:
    """Whether the answer is to be kept. One in a thread is, in any case."""
    return bool(body.store) or THREAD in (body.metadata or {})


async def begin(body: ChatRequest, services: Services, caller: Caller, once: list[str] | None) -> StoredAnswer:
    """The answer, queued; the same as before for a request that is sent again. Raises ApiError."""
    credential_of(caller)
    if before := await services.store.repeated(caller, once):
        return before
    services.asking.check(body.model)
    if (body.n or 1) > 1:
        raise invalid("n", "One answer at a time can be stored: leave out `n`, or `store`.")
    warnings = body.warnings(MEANINGFUL)
    ask = ask_of(body, str(caller.user_id), services.settings.turn.deadline_seconds)
    shown: Json = {
        "metadata": _metadata(body),
        "include_usage": bool(body.stream_options and body.stream_options.include_usage),
        "warnings": warnings,
    }
    if THREAD not in (body.metadata or {}):
        await services.asking.validate(body.model, ask)
        return await services.store.create(caller, "chat", body.model, ask, shown, once, False)
    place, ask = _in_thread(body, ask)
    if len(body.messages) > 1:
        warnings.append("of messages only the newest of the user was read: what is before it stands in the thread")
    await services.asking.validate(body.model, ask)
    return await services.store.create_in_thread(caller, body.model, place, ask, shown, once)


def _metadata(body: ChatRequest) -> dict[str, str]:
    """Those to be kept. Raises ApiError for others than OpenAI allows."""
    given = {name: value for name, value in (body.metadata or {}).items() if name != THREAD}
    try:
        return METADATA.validate_python(given)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(step) for step in ("metadata", *fault["loc"]) if step != "[key]")
        raise invalid(place, f"{place}: {fault['msg']}") from None


def _in_thread(body: ChatRequest, ask: Ask) -> tuple[Place, Ask]:
    assert body.metadata is not None
    try:
        thread = Thread.model_validate(body.metadata[THREAD])
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(step) for step in ("metadata", THREAD, *fault["loc"]))
        raise invalid(place, f"{place}: {fault['msg']}") from None
    if ask.tools is not None:
        raise unsupported(
            "tools", "In a conversation nobody could run them: leave out `tools`, or `metadata.rustygpt`."
        )
    said = [message for message in ask.messages if message["role"] == "user" and message["content"].strip()]
    if not said:
        raise invalid("messages", "There is no message of the user to put into the conversation.")
    content = said[-1]["content"]
    if len(content) > LONGEST_MESSAGE:
        raise invalid("messages", f"A message of a conversation has at most {LONGEST_MESSAGE} characters.")
    asked = Ask(
        messages=(said[-1],),
        json_schema=ask.json_schema,
        grammar=ask.grammar,
        sampling=ask.sampling,
        user=ask.user,
        seconds=ask.seconds,
    )
    return Place(thread.conversation_id, thread.parent_message_id, content), asked


def fold_of(answer: StoredAnswer) -> ChatFold:
    """The fold of a stored completion, at its beginning."""
    tools = answer.ask.tools
    return ChatFold(
        Frame(
            id=answer.public_id,
            created=answer.created_at,
            model=answer.model_id,
            tool_names=tuple(function.name for function in tools.functions) if tools else (),
            parallel=tools.parallel if tools else True,
            logprobs=answer.ask.sampling.top_logprobs is not None,
            include_usage=answer.shown["include_usage"],
            warnings=tuple(answer.shown["warnings"]),
            metadata=answer.shown["metadata"],
        )
    )


def streamed(services: Services, answer: StoredAnswer, after: int | None) -> Response:
    """All events of the answer with their numbers, or those after the one with a number; to its end, live. Raises
    ApiError 410 where that number says nothing any more."""
    if after is not None and not answer.events_kept:
        raise expired(answer.public_id)
    events = _events(services.store.follow(answer), fold_of(answer), -1 if after is None else after)
    return EventStream(events, services.settings.sse.heartbeat_seconds)


async def _events(batches: AsyncGenerator[list[Item], None], fold: ChatFold, after: int) -> AsyncGenerator[bytes, None]:
    """One write for each batch. Each chunk is an event; the mark of the end has no number, since nothing follows it."""
    number, is_failed = -1, False
    async with aclosing(batches):
        try:
            async for batch in batches:
                writes: list[bytes] = []
                for chunk in fold.feed(batch):
                    number += 1
                    is_failed = "error" in chunk
                    if number > after:
                        writes.append(event(json_bytes(chunk), number=number))
                if writes:
                    yield b"".join(writes)
        except ApiError as error:
            # Not of the answer, hence without a number: it is gone, or may not be read any more.
            yield event(json_bytes(error_body(error)))
            return
    if not is_failed:
        yield DONE


async def whole(services: Services, answer: StoredAnswer) -> Json:
    """The completion, at its end. Raises ApiError where it failed."""
    fold = fold_of(answer)
    # Log-probabilities are in the log only, as long as that is kept.
    if answer.ended is not None and not (answer.events_kept and answer.ask.sampling.top_logprobs is not None):
        fold.feed([Started(0), Piece(0, answer.text), answer.ended])
        return fold.whole()
    async with aclosing(services.store.follow(answer)) as batches:
        async for batch in batches:
            fold.feed(batch)
    return fold.whole()
