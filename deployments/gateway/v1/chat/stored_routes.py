"""/v1/chat/completions/{id}: completions that were stored."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from deployments.gateway.schemas import Body
from deployments.gateway.services import Services, ServicesOf
from deployments.gateway.v1.callers import ReaderOf, WriterOf
from deployments.gateway.v1.chat.stored import streamed, whole
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.fields import Metadata, Text, invalid
from deployments.gateway.v1.json_text import json_response
from deployments.gateway.v1.stored.answer import StoredAnswer
from deployments.gateway.v1.stored.resume import AfterOf
from deployments.generation import Json

router = APIRouter(prefix="/v1/chat/completions", tags=["OpenAI API"])

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
Mark = Annotated[str | None, Query(max_length=100, description="the last id of the page before")]
MOST_PAIRS = 16


class NewMetadata(Body):
    """What takes the place of a completion's metadata; null: nothing."""

    metadata: Metadata | None


@router.get("")
async def list_completions(
    request: Request,
    services: ServicesOf,
    caller: ReaderOf,
    after: Mark = None,
    limit: Limit = 20,
    order: Order = "asc",
    model: Annotated[Text | None, Query(max_length=128)] = None,
) -> Response:
    """One's own stored completions that came to their end, the oldest first. `metadata[key]=value`: those with it."""
    page, has_more = await services.store.page(
        caller, "chat", after, limit, order == "asc", model, _wanted_metadata(request)
    )
    shown = [await _unless_gone(services, answer) for answer in page]
    return _page([completion for completion in shown if completion is not None], has_more)


@router.get("/{completion_id}")
async def get_completion(
    completion_id: str, services: ServicesOf, caller: ReaderOf, after: AfterOf, stream: bool = False
) -> Response:
    """A stored completion, at its end; or all its events (those after a number), to come ones included."""
    answer = await services.store.get(caller, "chat", completion_id)
    if stream:
        return streamed(services, answer, after)
    if after is not None:
        raise invalid("starting_after", "`starting_after` is for streams: add `stream=true`.")
    return json_response(await whole(services, answer))


@router.post("/{completion_id}")
async def change_completion(completion_id: str, body: NewMetadata, services: ServicesOf, caller: WriterOf) -> Response:
    """Gives a stored completion other metadata."""
    return json_response(
        await whole(services, await services.store.change(caller, "chat", completion_id, body.metadata or {}))
    )


@router.delete("/{completion_id}")
async def delete_completion(completion_id: str, services: ServicesOf, caller: WriterOf) -> Response:
    """Deletes a stored completion for good, even while it is written. What stands in a conversation stays there."""
    await services.store.delete(caller, "chat", completion_id)
    return json_response({"id": completion_id, "object": "chat.completion.deleted", "deleted": True})


@router.post("/{completion_id}/cancel")
async def cancel_completion(completion_id: str, services: ServicesOf, caller: WriterOf) -> Response:
    """Stops a stored completion; what was written stays. One that has ended stays as it is. (Not in OpenAI's API, whose
    chat completions end with their connections.)"""
    answer = await services.store.cancel(caller, "chat", completion_id)
    return json_response({"id": completion_id, "object": "chat.completion", "finish_reason": _reason(answer)})


@router.get("/{completion_id}/messages")
async def list_messages(
    completion_id: str,
    services: ServicesOf,
    caller: ReaderOf,
    after: Mark = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> Response:
    """What a stored completion was asked."""
    answer = await services.store.get(caller, "chat", completion_id)
    messages = [
        {**message, "id": f"{completion_id}-{place}", "content_parts": None}
        for place, message in enumerate(answer.ask.messages)
    ]
    if order == "desc":
        messages.reverse()
    places = {message["id"]: place for place, message in enumerate(messages, 1)}
    if after is not None and after not in places:
        raise invalid("after", f"There is no message {after!r} in this completion.")
    begin = places[after] if after is not None else 0
    return _page(messages[begin : begin + limit], begin + limit < len(messages))


async def _unless_gone(services: Services, answer: StoredAnswer) -> Json | None:
    """The completion, or None where it was deleted since the page was read."""
    try:
        return await whole(services, answer)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _reason(answer: StoredAnswer) -> str | None:
    return answer.ended.reason if answer.ended else None


def _wanted_metadata(request: Request) -> dict[str, str] | None:
    """`metadata[key]=value`, as OpenAI's clients send it."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if found := re.fullmatch(r"metadata\[(.{1,64})\]", name):
            wanted[found[1]] = value
    if len(wanted) > MOST_PAIRS:
        raise invalid("metadata", f"At most {MOST_PAIRS} pairs can be asked for.")
    return wanted or None


def _page(shown: list[Json], has_more: bool) -> Response:
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return json_response({"object": "list", "data": shown, **ends, "has_more": has_more})
