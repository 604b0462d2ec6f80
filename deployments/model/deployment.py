"""The Model deployment: one for each configured model, any number of replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import ray
from ray import serve

from db.actor import connect_database
from deployments.config import Settings, database_access, home
from deployments.generation import Ask, Embedded, Parcels, Refused, ReturnPath, SentBatch, Tokenized
from deployments.loopback import keep_replica_on_loopback
from deployments.messages import MODEL_DEPLOYMENT, ModelDescription, TurnOffer
from deployments.model import asks
from deployments.model.announcer import Announcer
from deployments.model.crash_log import CrashLog
from deployments.model.engine.verification.verifier import NothingRuns
from deployments.model.engine_report import report
from deployments.model.live_engine import LiveEngine
from deployments.model.loading import LoadedModel, Loader
from deployments.model.owner import own_name
from deployments.model.shared_streams import SharedStreams
from deployments.model.tuning_adoption import TuningAdoption
from deployments.model.turn_refuser import TurnRefuser
from deployments.model.turn_runner import TurnRunner
from deployments.model.warm_prefixes import WarmPrefixes
from deployments.observability.logs import configure_logs, failure_logged

logger = logging.getLogger(__name__)

REFUSAL = "The model cannot run on this machine. Ask an operator to look at its state, or choose another model."


@serve.deployment(name=MODEL_DEPLOYMENT)
class ModelDeployment:
    """Generates for everyone at once and writes durable turns to the log.

    A replica is made when its engine has itself computed right. Where no way to run the model does, it is made all the
    same, without an engine, and refuses each request with the reason: it would come back no different.
    """

    @failure_logged("the replica cannot start")
    async def __init__(self, settings: Settings, model_id: str) -> None:
        configure_logs(settings.logging, MODEL_DEPLOYMENT)
        keep_replica_on_loopback()
        self._model_id = model_id
        self._model = settings.llm.models[model_id]
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._live: LiveEngine | None = None
        self._tuning: TuningAdoption | None = None
        self._announcer: Announcer | None = None
        self._step = ""
        crashes = CrashLog(home() / "crashes", model_id, own_name())
        loop = asyncio.get_running_loop()

        def say(step: str) -> None:
            loop.call_soon_threadsafe(self._say, step)

        loader = Loader(settings.llm, self._model, _session(), crashes, say)
        # The database may still be starting, too.
        connecting = asyncio.create_task(self._begin_announcing(settings))
        try:
            loaded = await asyncio.to_thread(loader.load)
        except NothingRuns as error:
            self._refuse_everything(settings, await connecting, str(error))
        else:
            await self._serve(settings, await connecting, loader, loaded)

    async def _begin_announcing(self, settings: Settings) -> Announcer:
        """Connects to the database, and has this replica announced there from now on: as starting."""
        self._database = await connect_database(database_access(settings), "worker")
        self._announcer = Announcer(self._database, self._model_id, self._replica)
        self._announcer.say("starting", self._step)
        self._tasks = [asyncio.create_task(self._announcer.run())]
        return self._announcer

    def _say(self, step: str) -> None:
        logger.info("model %s: %s", self._model_id, step)
        self._step = step
        if self._announcer and self._live is None:
            self._announcer.say("starting", step)

    async def _serve(self, settings: Settings, announcer: Announcer, loader: Loader, loaded: LoadedModel) -> None:
        model = self._model
        live = self._live = LiveEngine(loaded.engine)
        announcer.alive = lambda: live.current.alive
        self._runner = TurnRunner(self._database, live, self._model_id, model, settings.turn, own_name())
        self._shared_streams = SharedStreams(self._replica, lambda: live.current.running)
        self._tuning = TuningAdoption(self._model_id, settings.llm, model, loader, loaded, live)
        prefixes = WarmPrefixes(live, home() / "prefixes" / f"{self._model_id}.kv", model.warm_prefix_bytes)
        await asyncio.to_thread(prefixes.load)
        self._tasks += [
            asyncio.create_task(self._runner.serve()),
            asyncio.create_task(report(live, self._model_id)),
            asyncio.create_task(prefixes.keep()),
            asyncio.create_task(self._tuning.run()),
        ]
        announcer.say("ready")

    def _refuse_everything(self, settings: Settings, announcer: Announcer, reason: str) -> None:
        logger.error("model %s: %s", self._model_id, reason)
        self._runner = TurnRefuser(self._database, self._model_id, settings.turn, own_name(), REFUSAL)
        self._tasks.append(asyncio.create_task(self._runner.serve()))
        announcer.say("unusable", reason)

    async def __del__(self) -> None:
        """Serve calls this when it ends a replica in order, be it before it was made."""
        if tuning := getattr(self, "_tuning", None):
            tuning.close()
        if announcer := getattr(self, "_announcer", None):
            await announcer.depart()

    async def run_turn(self, offer: TurnOffer) -> None:
        """Writes the answer that `offer` names, unless somebody else has begun to. Returns at its end."""
        await self._runner.run_turn(offer.message_id)

    async def generate(self, ask: Ask, path: ReturnPath) -> AsyncIterator[SentBatch]:
        """A stateless answer, in batches of items; generation.py says which. A caller that leaves cancels it."""
        if self._live is None:
            yield [self._refused()]
            return
        with self._live.use() as engine:
            batches = asks.generate(engine, self._model, ask)
            async for batch in self._shared_streams.send(batches, path):
                yield batch

    async def carry(self, replica: str, name: str, opening: int) -> AsyncIterator[Parcels]:
        """The shared stream of this name, which carries answers of `generate`, if this is that replica."""
        if replica == self._replica and self._live is not None:
            async for parcels in self._shared_streams.carry(name, opening):
                yield parcels

    async def embed(self, texts: tuple[str | tuple[int, ...], ...]) -> Embedded | Refused:
        """A vector for each text."""
        if self._live is None:
            return self._refused()
        with self._live.use() as engine:
            return await asks.embed(engine, texts)

    async def tokenize(self, ask: Ask) -> Tokenized | Refused:
        """The tokens of the prompt that `ask` makes, be it a chat or a text."""
        if self._live is None:
            return self._refused()
        with self._live.use() as engine:
            return await asks.tokenized(engine, self._model, ask)

    async def validate(self, ask: Ask) -> Refused | None:
        """Why `ask` cannot be answered, if so, before it is stored."""
        if self._live is None:
            return self._refused()
        with self._live.use() as engine:
            return await asks.refused(engine, self._model, ask)

    def _refused(self) -> Refused:
        return Refused("unusable", REFUSAL)

    async def describe(self) -> ModelDescription | None:
        """What this replica runs, for the operator; None: nothing runs here, and the announcement says why."""
        if self._live is None or self._tuning is None:
            return None
        return await asyncio.to_thread(self._tuning.describe)

    @failure_logged("the replica is not well and is replaced")
    async def check_health(self) -> None:
        """Serve replaces a replica whose background work has stopped."""
        if self._live is not None and not self._live.current.alive:
            raise RuntimeError(f"the engine of {self._model_id} has stopped")
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"background work of {self._model_id} has stopped") from task.exception()


def _session() -> str:
    """Names the present start of Ray on this machine."""
    return ray.get_runtime_context().get_node_id()
