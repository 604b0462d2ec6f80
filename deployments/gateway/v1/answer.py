"""One answer of a model that is not stored, whatever happens to the replica that makes it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from deployments.gateway.v1.errors import from_refused
from deployments.gateway.v1.shared_reader import SharedReader, split
from deployments.gateway.v1.unanswered import starting, unreachable
from deployments.generation import Ask, Ended, Item, Piece, Refused, SentBatch, Started

logger = logging.getLogger(__name__)

Batch = list[Item]

# Replicas that may die of one request without a token between them: it may be what kills them, so it gets no third one.
MOST_DEATHS = 2


class Answer:
    """An async iterator of batches: Started first, for each index at last one Ended. A replica that dies is hidden:
    another one goes on after the last token that arrived (where n is 1). Closing it cancels the generation."""

    def __init__(self, handle: DeploymentHandle, reader: SharedReader, ask: Ask, start_seconds: float) -> None:
        self._handle = handle.options(stream=True)
        self._reader = reader
        self._ask = ask
        self._start_seconds = start_seconds
        self._stream: DeploymentResponseGenerator | None = None
        self._inbox = reader.inbox()
        self._first: SentBatch = []
        self._produced: list[int] = []
        self._deaths = 0
        self._ended = 0

    async def open(self) -> None:
        """Returns when a replica has taken the request. Raises ApiError."""
        try:
            await self._open()
        except BaseException:
            self.cancel()
            raise

    async def _open(self) -> None:
        while True:
            stream = self._handle.generate.remote(self._ask, self._inbox.path)
            assert isinstance(stream, DeploymentResponseGenerator), "the handle streams"
            self._stream = stream
            try:
                async with asyncio.timeout(self._start_seconds):
                    self._first = await anext(stream)
                break
            except TimeoutError:
                raise starting() from None
            except (RayError, RayServeException) as error:
                self._survive(error)
        begun = self._first[0]
        if isinstance(begun, Refused):
            raise from_refused(begun)
        assert isinstance(begun, Started)
        self._reader.read(begun.replica)

    def cancel(self) -> None:
        """Ends the generation of an answer that nobody has begun to read, or reads any more."""
        if self._stream is not None:
            self._stream.cancel()
        self._reader.close(self._inbox)

    def _survive(self, error: Exception) -> None:
        self._deaths += 1
        # A replica that has failed but lives would fail again.
        is_final = isinstance(error, BackPressureError | RequestCancelledError | RayTaskError)
        if is_final or self._deaths >= MOST_DEATHS:
            raise unreachable(error) from None
        logger.warning("a model's replica was lost: %s", type(error).__name__)
        self.cancel()  # where only the shared stream is lost
        self._inbox = self._reader.inbox()

    async def __aiter__(self) -> AsyncGenerator[Batch, None]:
        is_resumed = False
        try:
            while True:
                try:
                    async for batch in self._batches(is_resumed):
                        self._note(batch)
                        yield batch
                    return
                except (RayError, RayServeException) as error:
                    if self._ended == self._ask.n:
                        return
                    if self._ask.n > 1:
                        raise unreachable(error) from None
                    self._survive(error)
                produced = (*self._ask.produced_token_ids, *self._produced)
                self._ask = dataclasses.replace(self._ask, produced_token_ids=produced)
                self._produced.clear()
                is_resumed = True
                await self.open()
        finally:
            self.cancel()

    async def _batches(self, is_resumed: bool) -> AsyncGenerator[Batch, None]:
        """Of the replica that has taken the request, without what comes first where another one has told that."""
        assert self._stream is not None
        batch, switch = split(self._first)
        if not is_resumed:
            yield batch
        while True:
            if switch:
                async for batch in self._inbox.batches(switch):
                    yield batch
            try:
                batch, switch = split(await anext(self._stream))
            except StopAsyncIteration:
                return
            if batch:
                yield batch

    def _note(self, batch: Batch) -> None:
        """What came is not made again by another replica."""
        for item in batch:
            if isinstance(item, Piece) and item.token_ids:
                self._produced += item.token_ids
                self._deaths = 0
            self._ended += isinstance(item, Ended)
