"""The Gateway's way to the models: answers that are not stored."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.config import Llm
from deployments.gateway.v1.errors import ApiError, from_refused
from deployments.generation import Ask, Embedded, Item, Piece, Refused, Tokenized
from deployments.messages import MODEL_DEPLOYMENT, model_app

logger = logging.getLogger(__name__)

Batch = list[Item]

VALIDATE_SECONDS = 1.0

# Of texts to embed, in one call: characters, or tokens.
PORTION_TEXTS = 16
PORTION_LENGTH = 8_000

# Replicas that may die of one request without a token between them: it may be what kills them, so it gets no third one.
MOST_DEATHS = 2


class Asking:
    """Asks models of this cluster. `start_seconds` is how long a request waits for a model that is not up."""

    def __init__(self, llm: Llm, start_seconds: float) -> None:
        self._names = llm.served()
        self._start_seconds = start_seconds
        self._handles: dict[str, DeploymentHandle] = {}

    async def ask(self, model_id: str, ask: Ask) -> Answer:
        """Returns when a replica has taken the request. Raises ApiError."""
        answer = Answer(self._handle(model_id), ask, self._start_seconds)
        await answer.open()
        return answer

    async def embed(self, model_id: str, texts: Sequence[str | tuple[int, ...]]) -> Embedded:
        """A vector for each text. Raises ApiError."""
        vectors: list[tuple[float, ...]] = []
        tokens = 0
        for portion in portions(texts):
            made: Embedded = await self._call(self._handle(model_id).embed.remote(portion))
            vectors += made.vectors
            tokens += made.tokens
        return Embedded(tuple(vectors), tokens)

    async def tokenize(self, model_id: str, ask: Ask) -> Tokenized:
        """The prompt that an Ask makes. Raises ApiError."""
        return await self._call(self._handle(model_id).tokenize.remote(ask))

    async def validate(self, model_id: str, ask: Ask) -> None:
        """Raises ApiError for what the model would not take, so that it need not be stored first. Where no replica can
        say so within a second nothing is raised: a stored answer waits for its model."""
        try:
            async with asyncio.timeout(VALIDATE_SECONDS):
                await self._call(self._handle(model_id).validate.remote(ask))
        except TimeoutError:
            return
        except ApiError as error:
            if error.status < 429:
                raise

    def _handle(self, model_id: str) -> DeploymentHandle:
        self.check(model_id)
        if model_id not in self._handles:
            handle = serve.get_deployment_handle(MODEL_DEPLOYMENT, model_app(model_id))
            # Batches of items take a third of the time that they take with Serve's default, cloudpickle.
            self._handles[model_id] = handle.options(request_serialization="pickle", response_serialization="pickle")
        return self._handles[model_id]

    def check(self, model_id: str) -> None:
        """Raises ApiError 404 unless there is such a model."""
        if model_id not in self._names:
            names = ", ".join(self._names)
            message = f"There is no model {model_id!r}. There are: {names}."
            raise ApiError(404, "invalid_request_error", "model_not_found", message, "model")

    async def _call(self, response: DeploymentResponse[Any] | DeploymentResponseGenerator[Any]) -> Any:
        assert not isinstance(response, DeploymentResponseGenerator), "the handle does not stream"
        try:
            async with asyncio.timeout(self._start_seconds):
                made = await response
        except TimeoutError:
            response.cancel()
            raise starting() from None
        except asyncio.CancelledError:
            response.cancel()
            raise
        except (RayError, RayServeException) as error:
            raise unreachable(error) from None
        if isinstance(made, Refused):
            raise from_refused(made)
        return made


class Answer:
    """An async iterator of batches: Started first, for each index at last one Ended. A replica that dies is hidden:
    another one goes on after the last token that arrived (where n is 1). Closing it cancels the generation."""

    def __init__(self, handle: DeploymentHandle, ask: Ask, start_seconds: float) -> None:
        self._handle = handle.options(stream=True)
        self._ask = ask
        self._start_seconds = start_seconds
        self._stream: DeploymentResponseGenerator | None = None
        self._first: Batch = []
        self._produced: list[int] = []
        self._deaths = 0

    async def open(self) -> None:
        """Returns when a replica has taken the request. Raises ApiError."""
        while True:
            stream = self._handle.generate.remote(self._ask)
            assert isinstance(stream, DeploymentResponseGenerator), "the handle streams"
            self._stream = stream
            try:
                async with asyncio.timeout(self._start_seconds):
                    self._first = await anext(stream)
                break
            except TimeoutError:
                stream.cancel()
                raise starting() from None
            except asyncio.CancelledError:
                stream.cancel()
                raise
            except (RayError, RayServeException) as error:
                self._survive(error)
        refused = self._first[0]
        if isinstance(refused, Refused):
            raise from_refused(refused)

    def cancel(self) -> None:
        """Ends the generation of an answer that nobody has begun to read."""
        assert self._stream is not None
        self._stream.cancel()

    def _survive(self, error: Exception) -> None:
        self._deaths += 1
        # A replica that has failed but lives would fail again.
        is_final = isinstance(error, BackPressureError | RequestCancelledError | RayTaskError)
        if is_final or self._deaths >= MOST_DEATHS:
            raise unreachable(error) from None
        logger.warning("a model's replica was lost: %s", type(error).__name__)

    async def __aiter__(self) -> AsyncGenerator[Batch, None]:
        assert self._stream is not None
        try:
            yield self._first
            while True:
                try:
                    async for batch in self._stream:
                        self._note(batch)
                        yield batch
                    return
                except (RayError, RayServeException) as error:
                    if self._ask.n > 1:
                        raise unreachable(error) from None
                    self._survive(error)
                produced = (*self._ask.produced_token_ids, *self._produced)
                self._ask = dataclasses.replace(self._ask, produced_token_ids=produced)
                self._produced.clear()
                await self.open()  # what comes first has come before
        finally:
            self._stream.cancel()

    def _note(self, batch: Batch) -> None:
        """What came is not made again by another replica."""
        for item in batch:
            if isinstance(item, Piece) and item.token_ids:
                self._produced += item.token_ids
                self._deaths = 0


def portions(texts: Sequence[str | tuple[int, ...]]) -> Iterator[tuple[str | tuple[int, ...], ...]]:
    """The texts in their order, a few at a time: so many take no longer than a model may take to answer, and nobody
    computes the rest for a client that has left."""
    portion: list[str | tuple[int, ...]] = []
    for text in texts:
        if portion and (len(portion) == PORTION_TEXTS or sum(map(len, portion)) + len(text) > PORTION_LENGTH):
            yield tuple(portion)
            portion = []
        portion.append(text)
    if portion:
        yield tuple(portion)


def starting() -> ApiError:
    """The model is not up, or has no room to take a request in time."""
    message = "The model is starting, or every replica of it is full. Try again in a few seconds."
    return ApiError(503, "server_error", "model_starting", message, retry_after_seconds=5)


def unreachable(error: Exception) -> ApiError:
    """No replica could be asked, or the one that was asked has failed."""
    if isinstance(error, BackPressureError):
        message = "Too many requests wait for this model. Try again in a moment."
        return ApiError(429, "rate_limit_error", "queue_full", message, retry_after_seconds=1)
    if isinstance(error, RayTaskError):
        # The replica's own log has the traceback.
        logger.error("a model's replica failed: %s", type(error.cause).__name__)
        message = "The model failed while it worked on this request. The same request is likely to fail again."
        return ApiError(500, "server_error", "generation_failed", message)
    logger.warning("a model cannot be asked: %s", type(error).__name__)
    message = "The model cannot be reached right now. Try again in a moment."
    return ApiError(503, "server_error", "model_unavailable", message, retry_after_seconds=1)
