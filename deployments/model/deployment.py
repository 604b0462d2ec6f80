"""The Model deployment: one for each configured model, any number of replicas."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

from ray import serve

from db.actor import connect_database
from deployments.config import Model, Settings, database_access, home
from deployments.loopback import keep_replica_on_loopback
from deployments.messages import MODEL_DEPLOYMENT, TurnOffer
from deployments.model.engine import Engine, EngineOptions
from deployments.model.engine_report import report
from deployments.model.turn_runner import TurnRunner
from deployments.model.warm_prefixes import WarmPrefixes
from deployments.observability.logs import configure_logs

logger = logging.getLogger(__name__)


def engine_options(model: Model) -> EngineOptions:
    """What the configuration says of how to run a model."""
    threads = {"n_threads": model.n_threads} if model.n_threads else {}
    return EngineOptions(
        max_sequence_tokens=model.max_sequence_tokens,
        max_slots=model.max_slots,
        max_queue=model.max_queue,
        n_gpu_layers=model.n_gpu_layers,
        prefix_cache_bytes=model.prefix_cache_bytes,
        draft_tokens=model.draft_tokens,
        lora=tuple((Path(adapter.path).expanduser(), adapter.scale) for adapter in model.lora),
        **threads,
    )


@serve.deployment(name=MODEL_DEPLOYMENT)
class ModelDeployment:
    """Generates for everyone at once and writes durable turns to the log."""

    async def __init__(self, settings: Settings, model_id: str) -> None:
        configure_logs(settings.logging)
        keep_replica_on_loopback()
        self._model_id = model_id
        model = settings.llm.models[model_id]
        self._engine, self._database = await asyncio.gather(
            asyncio.to_thread(Engine, model.file(), engine_options(model)),
            connect_database(database_access(settings.db), "worker"),
        )
        owner = f"{socket.gethostname()}:{os.getpid()}"
        self._runner = TurnRunner(self._database, self._engine, model_id, model, settings.turn, owner)
        prefixes = WarmPrefixes(self._engine, home() / "prefixes" / f"{model_id}.kv", model.warm_prefix_bytes)
        await asyncio.to_thread(prefixes.load)
        self._tasks = [
            asyncio.create_task(self._runner.serve()),
            asyncio.create_task(report(self._engine, model_id)),
            asyncio.create_task(prefixes.keep()),
        ]

    async def run_turn(self, offer: TurnOffer) -> None:
        """Writes the answer that `offer` names, unless somebody else has begun to. Returns at its end."""
        await self._runner.run_turn(offer.message_id)

    def check_health(self) -> None:
        """Serve replaces a replica whose background work has stopped."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"background work of {self._model_id} has stopped") from task.exception()
