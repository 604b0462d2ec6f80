"""From which event on a reader of a stored answer wants to have them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query

from deployments.gateway.v1.errors import ApiError

LONGEST_NUMBER = 9  # digits


async def last_event_id_of(
    last_event_id: Annotated[
        str | None, Header(description="of a stored answer: the `id` of the last event had")
    ] = None,
) -> int | None:
    """The number of the last event that the reader has; None: it wants all. Raises ApiError 400 for what is none."""
    if last_event_id is None:
        return None
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= LONGEST_NUMBER):
        raise ApiError(
            status=400,
            type="invalid_request_error",
            code="invalid_value",
            message="Last-Event-ID is the `id` of an event of this stream, a number. Send that, or none.",
            param="Last-Event-ID",
        )
    return int(last_event_id)


LastEventIdOf = Annotated[int | None, Depends(last_event_id_of)]


async def after_of(
    last_event_id: LastEventIdOf,
    starting_after: Annotated[int | None, Query(ge=0, description="events after the one with this number")] = None,
) -> int | None:
    """The same, where `starting_after` may say it, too, and goes first."""
    return last_event_id if starting_after is None else starting_after


AfterOf = Annotated[int | None, Depends(after_of)]
