"""Durable turns: claim, generate, append, finish; and take over those whose replica died.

queued --claim--> running --finish--> done          (worker_claim, worker_finish)
running --lease expired, or its holder known to be dead; claim with epoch + 1--> running
running --"lost": somebody claimed it after us--> (no longer ours; nothing is written)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.config import Model, Turn
from deployments.generation import Ask
from deployments.model import asks
from deployments.model.append_writer import AppendWriter, OpenTurn
from deployments.model.claim import Claim
from deployments.model.engine import (
    Engine,
    EngineError,
    Finish,
    Generation,
    GenerationRequest,
    InvalidRequest,
    PromptRefused,
    PromptTooLong,
    QueueFull,
    TokenDelta,
)
from deployments.model.live_engine import LiveEngine
from deployments.model.owner import is_dead
from deployments.model.prompt import attributed, fit
from deployments.model.titles import write_title
from deployments.observability.metrics import FIRST_TOKEN_SECONDS, TURNS

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
# Between two attempts to get a place in the engine's queue.
MOST_WAIT_SECONDS = 1.0


class TurnRunner:
    """Runs the turns of one replica. `owner` names the replica in the leases."""

    def __init__(
        self, database: Database, live: LiveEngine, model_id: str, model: Model, turn: Turn, owner: str
    ) -> None:
        self._database = database
        self._live = live
        self._model_id = model_id
        self._model = model
        self._owner = owner
        self._makes_titles = turn.titles
        self._lease = timedelta(seconds=turn.lease_seconds)
        self._patience = timedelta(seconds=turn.patience_seconds)
        self._writer = AppendWriter(database, self._lease)
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Writes, listens for cancels and sweeps until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            group.create_task(self._sweep())
            # A cancel whose notification is lost comes back with the next append.
            group.create_task(self._database.listen("rustygpt_cancels", self._stop, lambda: None))

    def _stop(self, message_id: str) -> None:
        if turn := self._writer.find(UUID(message_id)):
            turn.stop()

    async def run_turn(self, message_id: UUID) -> None:
        """Returns when the turn has ended here, or at once when another replica has it.

        A cancelled caller does not cancel the turn.
        """
        for claim in await self._claim(1, message_id):
            await asyncio.shield(self._start(claim))

    async def _sweep(self) -> None:
        while True:
            room = max(0, 2 * self._live.current.options.max_slots - len(self._running))
            try:
                await self._release_the_dead()
                for claim in await self._claim(room, None):
                    logger.info("taking over turn %s, epoch %d", claim.message_id, claim.epoch)
                    self._start(claim)
            except DatabaseUnavailable:
                pass
            await asyncio.sleep(SWEEP_SECONDS)

    async def _release_the_dead(self) -> None:
        owners = orjson.loads(await self._database.value("worker_owners", self._model_id))
        if dead := [owner for owner in owners if is_dead(owner)]:
            await self._database.value("worker_release", self._model_id, dead)

    async def _claim(self, limit: int, only: UUID | None) -> list[Claim]:
        answer = await self._database.value(
            "worker_claim", self._model_id, self._owner, self._lease, limit, only, self._patience
        )
        return [Claim.from_json(item) for item in orjson.loads(answer)]

    def _start(self, claim: Claim) -> asyncio.Task[None]:
        task = asyncio.create_task(self._write(claim))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _write(self, claim: Claim) -> None:
        turn = self._writer.open(claim)
        try:
            with self._live.use() as engine:
                finish = await self._generate(engine, turn)
                await self._writer.settle(turn)
                if not turn.lost:
                    await self._finish(claim, finish)
                    if self._makes_titles and claim.needs_title and finish.reason in ("stop", "length"):
                        await self._give_title(engine, claim)
        except Exception:
            # The lease runs out and the turn is tried again, at most five times without getting on.
            logger.exception("turn %s failed", claim.message_id)
        finally:
            self._writer.close(turn)

    async def _generate(self, engine: Engine, turn: OpenTurn) -> Finish:
        claim = turn.claim
        try:
            request = await self._request(engine, claim)
            generation = await self._begin(engine, turn, request)
        except PromptTooLong as error:
            if claim.parent_id is None:
                return Finish("error", error.prompt_tokens, 0, 0, f"The model cannot answer: {error}.")
            message = (
                f"This message is too long for the model: with the answer it has {error.prompt_tokens} tokens, "
                f"and at most {error.limit_tokens} fit. Shorten it and ask again."
            )
            return Finish("error", error.prompt_tokens, 0, 0, message)
        except (PromptRefused, InvalidRequest) as error:
            return Finish("error", 0, 0, 0, f"The model cannot answer here: {error}.")
        except QueueFull:
            return Finish("error", 0, 0, 0, "Too many answers are being written. Ask again in a moment.")
        except EngineError:
            logger.exception("turn %s was refused by the engine", claim.message_id)
            return Finish("error", 0, 0, 0, "The model cannot answer now. Ask again in a moment.")
        if generation is None:
            return Finish("cancelled" if turn.cancelled else "timeout", 0, 0, 0)
        turn.generation = generation
        if turn.cancelled:
            generation.cancel()
        # Of conversations, too: without the mark it would not be known afterwards what of the text was thought.
        opened = asks.opening(engine, claim.ask or Ask(), request) if claim.delta_count == 0 else ""
        if opened:
            self._writer.add(turn, TokenDelta((), opened))
        started, first = time.perf_counter(), True
        async for item in generation:
            if isinstance(item, Finish):
                return item
            if first:
                FIRST_TOKEN_SECONDS.observe(time.perf_counter() - started, tags={"model": self._model_id})
                first = False
            self._writer.add(turn, item, asks.logprobs_of(engine, item.logprobs))
        raise AssertionError("a generation ends with a Finish")

    async def _begin(self, engine: Engine, turn: OpenTurn, request: GenerationRequest) -> Generation | None:
        """The generation. A stored answer to /v1 waits for room where there is none: who asked may have gone, trusting
        that it is kept. None: it was stopped meanwhile, or its time is over. Raises EngineError."""
        assert request.deadline is not None
        while True:
            try:
                return engine.generate(request)
            except QueueFull as full:
                if turn.claim.ask is None:
                    raise
                if turn.cancelled or time.monotonic() > request.deadline:
                    return None
                await asyncio.sleep(min(MOST_WAIT_SECONDS, full.retry_after_seconds))

    async def _request(self, engine: Engine, claim: Claim) -> GenerationRequest:
        ask = claim.ask or Ask(user=str(claim.conversation_id))
        ask = replace(ask, produced_token_ids=claim.token_ids, seconds=claim.seconds_left)
        if claim.parent_id is not None:
            ask = await self._of_thread(engine, claim, ask)
        return await asyncio.to_thread(asks.prepare, engine, self._model, ask)

    async def _of_thread(self, engine: Engine, claim: Claim, ask: Ask) -> Ask:
        """With the history as its prompt, and the conversation's settings for what it leaves open."""
        model, sampling = self._model, ask.sampling
        room = asks.room_of(engine, model, sampling)
        system = model.system_prompt if claim.system_prompt is None else claim.system_prompt
        history = attributed(claim.history)
        prompt = await asyncio.to_thread(fit, system, history, engine.render_chat, room)
        if len(prompt) > room:
            raise PromptTooLong(len(prompt), room)
        if sampling.temperature is None:
            sampling = replace(sampling, temperature=claim.temperature)
        # The messages tell that it is a chat, in which the marks of thinking are shown; the prompt is made of them.
        return replace(ask, messages=tuple(history), token_ids=tuple(prompt), sampling=sampling)

    async def _give_title(self, engine: Engine, claim: Claim) -> None:
        # Lost with the replica, if it dies now: then the thread's next answer brings the title.
        with contextlib.suppress(EngineError, DatabaseUnavailable):
            if title := await write_title(engine, attributed(claim.history), str(claim.conversation_id)):
                await self._database.value("worker_set_title", claim.root_id, title)

    async def _finish(self, claim: Claim, finish: Finish) -> None:
        usage = {
            "prompt_tokens": finish.prompt_tokens,
            "completion_tokens": finish.completion_tokens,
            "total_tokens": finish.prompt_tokens + finish.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": finish.cached_tokens},
        }
        message = finish.message or {"timeout": "The answer took longer than allowed."}.get(finish.reason)
        while True:
            try:
                ended = await self._database.value(
                    "worker_finish",
                    claim.message_id,
                    claim.epoch,
                    finish.reason,
                    orjson.dumps(usage).decode(),
                    message or None,
                )
                break
            except DatabaseUnavailable:
                await asyncio.sleep(0.2)
        if ended:
            TURNS.inc(tags={"model": self._model_id, "finish_reason": finish.reason})
