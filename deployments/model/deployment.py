"""The Model deployment: one for each configured model, any number of replicas."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from ray import serve

from db.actor import connect_database
from deployments.config import Settings, database_access
from deployments.loopback import keep_replica_on_loopback
from deployments.messages import MODEL_DEPLOYMENT, TurnOffer
from deployments.model.engine import Engine, EngineOptions
from deployments.model.turn_runner import TurnRunner
from deployments.observability.logs import configure_logs
from deployments.observability.metrics import (
    ACTIVE_SEQUENCES,
    CACHED_TOKENS,
    GENERATED_TOKENS,
    KV_USED_TOKENS,
    PROMPT_TOKENS,
    WAITING_REQUESTS,
)

logger = logging.getLogger(__name__)


@serve.deployment(name=MODEL_DEPLOYMENT)
class ModelDeployment:
    """Generates for everyone at once and writes durable turns to the log."""

    async def __init__(self, settings: Settings, model_id: str) -> None:
        configure_logs(settings.logging)
        keep_replica_on_loopback()
        self._model_id = model_id
        model = settings.llm.models[model_id]
        options = EngineOptions(
            n_ctx=model.n_ctx,
            max_sequence_tokens=model.max_sequence_tokens,
            max_slots=model.max_slots,
            n_gpu_layers=model.n_gpu_layers,
            **({"n_threads": model.n_threads} if model.n_threads else {}),
        )
        self._engine, self._database = await asyncio.gather(
            asyncio.to_thread(Engine, model.file(), options),
            connect_database(database_access(settings.db), "worker"),
        )
        owner = f"{socket.gethostname()}:{os.getpid()}"
        self._runner = TurnRunner(self._database, self._engine, model_id, model, settings.turn, owner)
        self._tasks = [asyncio.create_task(self._runner.serve()), asyncio.create_task(self._report())]

    async def run_turn(self, offer: TurnOffer) -> None:
        """Writes the answer that `offer` names, unless somebody else has begun to. Returns at its end."""
        await self._runner.run_turn(offer.message_id)

    def check_health(self) -> None:
        """Serve replaces a replica whose background work has stopped."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"background work of {self._model_id} has stopped") from task.exception()

    async def _report(self, period_seconds: float = 1.0) -> None:
        tags = {"model": self._model_id}
        before = self._engine.stats()
        while True:
            await asyncio.sleep(period_seconds)
            now = self._engine.stats()
            ACTIVE_SEQUENCES.set(now.running, tags=tags)
            WAITING_REQUESTS.set(now.waiting, tags=tags)
            KV_USED_TOKENS.set(now.kv_used_tokens, tags=tags)
            for counter, grown in (
                (GENERATED_TOKENS, now.decode_tokens_total - before.decode_tokens_total),
                (PROMPT_TOKENS, now.prefill_tokens_total - before.prefill_tokens_total),
                (CACHED_TOKENS, now.cached_tokens_total - before.cached_tokens_total),
            ):
                if grown > 0:
                    counter.inc(grown, tags=tags)
            before = now
