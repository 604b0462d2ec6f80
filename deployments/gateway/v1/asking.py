"""The Gateway's way to the models: answers that are not stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.config import Llm
from deployments.gateway.v1.answer import Answer
from deployments.gateway.v1.errors import ApiError, from_refused
from deployments.gateway.v1.shared_reader import SharedReader
from deployments.gateway.v1.unanswered import starting, unreachable
from deployments.generation import Ask, Embedded, Refused, Tokenized
from deployments.messages import MODEL_DEPLOYMENT, model_app

VALIDATE_SECONDS = 1.0

# Of texts to embed, in one call: characters, or tokens.
PORTION_TEXTS = 16
PORTION_LENGTH = 8_000


class Asking:
    """Asks models of this cluster. `start_seconds` is how long a request waits for a model that is not up."""

    def __init__(self, llm: Llm, start_seconds: float) -> None:
        self._names = llm.served()
        self._start_seconds = start_seconds
        self._handles: dict[str, DeploymentHandle] = {}
        self._readers: dict[str, SharedReader] = {}

    async def ask(self, model_id: str, ask: Ask) -> Answer:
        """Returns when a replica has taken the request. Raises ApiError."""
        handle = self._handle(model_id)
        if model_id not in self._readers:
            self._readers[model_id] = SharedReader(handle)
        answer = Answer(handle, self._readers[model_id], ask, self._start_seconds)
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
