"""Hands new turns to Model replicas."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from uuid import UUID

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.messages import MODEL_DEPLOYMENT, TurnOffer, model_app
from deployments.prefixes import Prefix

logger = logging.getLogger(__name__)


class TurnDispatcher:
    """Fire and forget: a turn whose hand-over fails is found in the database by the model's replicas."""

    def __init__(self) -> None:
        self._handles: dict[str, DeploymentHandle] = {}
        self._offers: set[asyncio.Task[None]] = set()

    def hand_over(self, message_id: UUID, model_id: str, prefix: Prefix) -> None:
        """Returns at once. `prefix` is what the turn's prompt begins with."""
        # A context of its own: Serve ties calls made in a request's context to the life of the request.
        offering = self._offer(TurnOffer(message_id, prefix), model_id)
        task = asyncio.get_running_loop().create_task(offering, context=contextvars.Context())
        self._offers.add(task)
        task.add_done_callback(self._offers.discard)

    async def _offer(self, offer: TurnOffer, model_id: str) -> None:
        if model_id not in self._handles:
            self._handles[model_id] = serve.get_deployment_handle(MODEL_DEPLOYMENT, model_app(model_id))
        try:
            await self._handles[model_id].run_turn.remote(offer)
        except (RayError, RayServeException) as error:
            logger.warning("turn %s was not taken: %s", offer.message_id, type(error).__name__)
