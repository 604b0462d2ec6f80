"""The Model deployment: one for each configured model, any number of replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from ray import serve

from db.actor import connect_database
from deployments.config import Settings, database_access, home
from deployments.generation import Ask, Embedded, Parcels, Refused, ReturnPath, SentBatch, Tokenized
from deployments.loopback import keep_replica_on_loopback
from deployments.messages import MODEL_DEPLOYMENT, ModelDescription, TurnOffer
from deployments.model import asks
from deployments.model.engine_report import report
from deployments.model.loading import load
from deployments.model.owner import own_name
from deployments.model.shared_streams import SharedStreams
from deployments.model.turn_runner import TurnRunner
from deployments.model.warm_prefixes import WarmPrefixes
from deployments.observability.logs import configure_logs

logger = logging.getLogger(__name__)


@serve.deployment(name=MODEL_DEPLOYMENT)
class ModelDeployment:
    """Generates for everyone at once and writes durable turns to the log."""

    async def __init__(self, settings: Settings, model_id: str) -> None:
        configure_logs(settings.logging)
        keep_replica_on_loopback()
        self._model_id = model_id
        model = settings.llm.models[model_id]
        self._loaded, self._database = await asyncio.gather(
            asyncio.to_thread(load, settings.llm, model),
            connect_database(database_access(settings), "worker"),
        )
        engine = self._loaded.engine
        self._runner = TurnRunner(self._database, engine, model_id, model, settings.turn, own_name())
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._shared_streams = SharedStreams(self._replica, lambda: engine.running)
        prefixes = WarmPrefixes(engine, home() / "prefixes" / f"{model_id}.kv", model.warm_prefix_bytes)
        await asyncio.to_thread(prefixes.load)
        self._tasks = [
            asyncio.create_task(self._runner.serve()),
            asyncio.create_task(report(engine, model_id)),
            asyncio.create_task(prefixes.keep()),
        ]

    async def run_turn(self, offer: TurnOffer) -> None:
        """Writes the answer that `offer` names, unless somebody else has begun to. Returns at its end."""
        await self._runner.run_turn(offer.message_id)

    async def generate(self, ask: Ask, path: ReturnPath) -> AsyncIterator[SentBatch]:
        """A stateless answer, in batches of items; generation.py says which. A caller that leaves cancels it."""
        batches = asks.generate(self._loaded.engine, self._loaded.model, ask)
        async for batch in self._shared_streams.send(batches, path):
            yield batch

    async def carry(self, replica: str, name: str, opening: int) -> AsyncIterator[Parcels]:
        """The shared stream of this name, which carries answers of `generate`, if this is that replica."""
        if replica == self._replica:
            async for parcels in self._shared_streams.carry(name, opening):
                yield parcels

    async def embed(self, texts: tuple[str | tuple[int, ...], ...]) -> Embedded | Refused:
        """A vector for each text."""
        return await asks.embed(self._loaded.engine, texts)

    async def tokenize(self, ask: Ask) -> Tokenized | Refused:
        """The tokens of the prompt that `ask` makes, be it a chat or a text."""
        return await asks.tokenized(self._loaded.engine, self._loaded.model, ask)

    async def validate(self, ask: Ask) -> Refused | None:
        """Why `ask` cannot be answered, if so, before it is stored."""
        return await asks.refused(self._loaded.engine, self._loaded.model, ask)

    async def describe(self) -> ModelDescription:
        """What this replica runs, for the operator."""
        return await asyncio.to_thread(self._loaded.describe, self._model_id)

    def check_health(self) -> None:
        """Serve replaces a replica whose background work has stopped."""
        if not self._loaded.engine.alive:
            raise RuntimeError(f"the engine of {self._model_id} has stopped")
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"background work of {self._model_id} has stopped") from task.exception()
