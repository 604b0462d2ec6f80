"""Responses told as they are written, or read as they stand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.responses.events import Event, ResponseFold
from deployments.gateway.v1.responses.shape import Shape
from deployments.gateway.v1.stored.answer import StoredAnswer
from deployments.generation import Item, Json, Piece, Started

Batches = AsyncGenerator[list[Item], None]


def fold_of(answer: StoredAnswer) -> ResponseFold:
    """The fold of a stored response, at its beginning."""
    echo = {name: value for name, value in answer.shown.items() if name != "input"}
    return ResponseFold(Shape(answer.public_id, answer.created_at, answer.model_id, echo), answer.ask)


def ended_response(answer: StoredAnswer) -> Json:
    """A stored response that has ended, from its text. Its log-probabilities are in its events only."""
    assert answer.ended is not None
    fold = fold_of(answer)
    fold.feed([Started(0), Piece(0, answer.text), answer.ended])
    return fold.response


async def awaited(batches: Batches, fold: ResponseFold) -> Json:
    """The response at its end. Raises what `batches` raise."""
    async with aclosing(batches):
        async for batch in batches:
            fold.feed(batch)
    return fold.response


async def live(batches: Batches, fold: ResponseFold) -> AsyncGenerator[bytes, None]:
    """The events of a response that is not stored; one write for each batch. A model that is lost on the way is told
    by the last events."""
    yield _encoded(fold.begin(), with_id=False)
    async with aclosing(batches):
        try:
            async for batch in batches:
                if events := fold.feed(batch):
                    yield _encoded(events, with_id=False)
        except ApiError as error:
            code = "rate_limit_exceeded" if error.status == 429 else "server_error"
            yield _encoded(fold.fail(code, error.message), with_id=False)


async def resumable(batches: Batches, fold: ResponseFold, after: int) -> AsyncGenerator[bytes, None]:
    """The events of a stored response that come after the one with this number; -1: all."""
    async with aclosing(batches):
        if events := _later(fold.begin(), after):
            yield _encoded(events, with_id=True)
        try:
            async for batch in batches:
                if events := _later(fold.feed(batch), after):
                    yield _encoded(events, with_id=True)
        except ApiError as error:
            # It is gone, or may not be read any more: nothing to go on after, hence no id.
            yield _encoded(fold.break_off(error.code, error.message), with_id=False)


def _later(events: Sequence[Event], after: int) -> list[Event]:
    return [event for event in events if event.number > after]


def _encoded(events: Sequence[Event], with_id: bool) -> bytes:
    return b"".join(event.encoded(with_id) for event in events)
