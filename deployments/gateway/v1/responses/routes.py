"""/v1/responses: answers of the OpenAI Responses API, which are stored unless the request says otherwise."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from deployments.gateway.once import OnceOf
from deployments.gateway.services import Services, ServicesOf
from deployments.gateway.v1.callers import Caller, ReaderOf, WriterOf
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.fields import invalid
from deployments.gateway.v1.json_text import json_response
from deployments.gateway.v1.metered import metered
from deployments.gateway.v1.responses.events import ResponseFold
from deployments.gateway.v1.responses.input_items import page_of
from deployments.gateway.v1.responses.items import listed
from deployments.gateway.v1.responses.prompt import ask_of, echo_of, history_of, warnings_of
from deployments.gateway.v1.responses.schemas import ResponseRequest
from deployments.gateway.v1.responses.shape import PREFIX, Shape, deleted
from deployments.gateway.v1.responses.telling import awaited, ended_response, fold_of, live, resumable
from deployments.gateway.v1.sse import EventStream
from deployments.gateway.v1.stored.answer import StoredAnswer
from deployments.gateway.v1.stored.resume import AfterOf, LastEventIdOf
from deployments.gateway.v1.stored.store import expired
from deployments.generation import Ask, Json, Started

router = APIRouter(prefix="/v1/responses", tags=["OpenAI API"])


@router.post("")
async def create_response(
    body: ResponseRequest,
    services: ServicesOf,
    caller: WriterOf,
    once: OnceOf,
    after: LastEventIdOf,
) -> Response:
    """An answer, whole or as a stream of events. Stored, it is written to its end whoever leaves; sent again with its
    Idempotency-Key, the request gets the same one. With `store`: false it is cancelled when its client leaves."""
    warnings = warnings_of(body)
    is_stored = caller.credential is not None if body.store is None else body.store
    if body.background and not is_stored:
        raise invalid("background", "A response in the background must be stored, and this one is not to be.")
    if is_stored and (answer := await services.store.repeated(caller, once)):
        return await _told(body, services, answer, after)
    services.asking.check(body.model)
    before = await _history(services, caller, body.previous_response_id) if body.previous_response_id else []
    ask = ask_of(body, before, str(caller.user_id or ""), services.settings.turn.deadline_seconds)
    echo = echo_of(body, services.settings.llm.models[body.model], is_stored, warnings)
    if not is_stored:
        return await _stateless(body, services, caller, ask, echo)
    shown = echo | {"input": listed(body.input)}
    await services.asking.validate(body.model, ask)
    answer = await services.store.create(caller, "response", body.model, ask, shown, once, bool(body.background))
    return await _told(body, services, answer, after)


@router.get("/{response_id}")
async def get_response(
    response_id: str,
    services: ServicesOf,
    caller: ReaderOf,
    after: AfterOf,
    stream: bool = False,
) -> Response:
    """A stored response as it stands, or all its events, those to come included."""
    answer = await services.store.get(caller, "response", response_id)
    if stream:
        return _resumed(services, answer, after)
    if after is not None:
        raise invalid("starting_after", "`starting_after` is for streams: add `stream=true`.")
    return json_response(await _current(services, answer))


@router.post("/{response_id}/cancel")
async def cancel_response(response_id: str, services: ServicesOf, caller: WriterOf) -> Response:
    """Stops a stored response; what was written stays. One that has ended stays as it is."""
    answer = await services.store.cancel(caller, "response", response_id)
    return json_response(await _current(services, answer))


@router.delete("/{response_id}")
async def delete_response(response_id: str, services: ServicesOf, caller: WriterOf) -> Response:
    """Deletes a stored response for good, even while it is written. Responses that follow it stay."""
    await services.store.delete(caller, "response", response_id)
    return json_response(deleted(response_id))


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    services: ServicesOf,
    caller: ReaderOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """What a stored response was asked; not what its previous responses were."""
    answer = await services.store.get(caller, "response", response_id)
    return json_response(page_of(response_id, answer.shown["input"], after, limit, order))


async def _stateless(body: ResponseRequest, services: Services, caller: Caller, ask: Ask, echo: Json) -> Response:
    shape = Shape(PREFIX + secrets.token_hex(16), int(time.time()), body.model, echo)
    answer = await services.asking.ask(body.model, ask)
    batches, fold = metered(services.limits, caller, answer), ResponseFold(shape, ask)
    if body.stream:
        return EventStream(live(batches, fold), services.settings.sse.heartbeat_seconds)
    return json_response(await awaited(batches, fold))


async def _told(body: ResponseRequest, services: Services, answer: StoredAnswer, after: int | None) -> Response:
    if body.stream:
        return _resumed(services, answer, after)
    if answer.background:
        return json_response(await _current(services, answer))
    return json_response(await awaited(services.store.follow(answer), fold_of(answer)))


def _resumed(services: Services, answer: StoredAnswer, after: int | None) -> Response:
    if after is not None and not answer.events_kept:
        raise expired(answer.public_id)
    batches = services.store.follow(answer)
    events = resumable(batches, fold_of(answer), -1 if after is None else after)
    return EventStream(events, services.settings.sse.heartbeat_seconds)


async def _current(services: Services, answer: StoredAnswer) -> Json:
    """As it stands. Log-probabilities are in the log, as long as that is kept."""
    if answer.ended is None:
        fold = fold_of(answer)
        if answer.begun:
            fold.feed([Started(0)])
        return fold.response
    if answer.events_kept and answer.ask.sampling.top_logprobs is not None:
        return await awaited(services.store.follow(answer), fold_of(answer))
    return ended_response(answer)


async def _history(services: Services, caller: Caller, response_id: str) -> list[Json]:
    """The messages that a new response goes on from. Raises ApiError."""
    param = "previous_response_id"
    try:
        answer = await services.store.get(caller, "response", response_id)
    except ApiError as error:
        if error.status != 404:
            raise
        message = f"There is no stored response {response_id!r} of yours. It may have been deleted."
        raise ApiError(400, "invalid_request_error", "previous_response_not_found", message, param) from None
    if answer.ended is None:
        raise invalid(param, f"{response_id} is still being written. Wait for its end, or cancel it.")
    response = ended_response(answer)
    if response["status"] not in ("completed", "incomplete"):
        raise invalid(param, f"{response_id} has no answer to go on from: it is {response['status']}.")
    return history_of(answer.ask, answer.shown, response["output"])
