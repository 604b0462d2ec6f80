"""What a durable turn takes from the engine: the same answers through the turn runner and straight from `generate`."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from db.pool import Database
from deployments.config import Llm, Model, Turn
from deployments.model.engine import Engine, Finish, Generation, GenerationRequest
from deployments.model.live_engine import LiveEngine
from deployments.model.prompt import fit
from deployments.model.turn_runner import TurnRunner
from load.database.asked_questions import MODEL, Asker
from load.database.metered import MeteredDatabase
from load.database.own_postgres import OwnPostgres
from load.measured import load_measured

CONCURRENCY = 8


class WholeAnswers:
    """An engine whose answers all have the length that was asked for: the model cannot end them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def generate(self, request: GenerationRequest) -> Generation:
        """As Engine.generate."""
        return self._engine.generate(dataclasses.replace(request, ignore_eos=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@dataclasses.dataclass(frozen=True)
class Wave:
    """One wave of answers, and what the database had to do for it."""

    tokens_per_second: float
    appends_per_second: float = 0.0
    events_per_second: float = 0.0
    transactions_per_token: float = 0.0
    postgres_ms_per_1000_tokens: float = 0.0


class DurableCost:
    """Both ways in one process, on one engine, which never works for both at once."""

    def __init__(self, postgres: OwnPostgres, worker: Database, asker: Asker, answer_tokens: int) -> None:
        self._postgres = postgres
        self._database = MeteredDatabase(worker)
        self._asker = asker
        self._model = Model(max_tokens=answer_tokens)
        # Measured once a machine, not once a run.
        tuning_folder = str(Path(tempfile.gettempdir()) / "rustygpt-tuning")
        self._loaded = load_measured(Llm(models={MODEL: self._model}, tuning_folder=tuning_folder), self._model)
        self._engine = cast(Engine, WholeAnswers(self._loaded.engine))
        # A title is an answer of its own, which the plain way does not make.
        turn = Turn(titles=False)
        self._runner = TurnRunner(
            cast(Database, self._database), LiveEngine(self._engine), MODEL, self._model, turn, "bench"
        )
        self._asked = 0

    async def measure(self, rounds: int, report: Callable[[str], None]) -> list[tuple[Wave, Wave]]:
        """Pairs of waves (plain, durable); which comes first alternates."""
        serving = asyncio.create_task(self._runner.serve())
        pairs: list[tuple[Wave, Wave]] = []
        try:
            for wave in (self._plain, self._durable):
                await wave()  # the engine learns how long its steps take
            for number in range(rounds):
                first, second = (self._plain, self._durable) if number % 2 == 0 else (self._durable, self._plain)
                done = [await first(), await second()]
                plain, durable = done if number % 2 == 0 else reversed(done)
                pairs.append((plain, durable))
                report(
                    f"round {number + 1}: plain {plain.tokens_per_second:.1f}, durable {durable.tokens_per_second:.1f}"
                )
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            self._loaded.engine.close()
        return pairs

    def _questions(self) -> list[str]:
        """New ones each time, all of about the same length: no answer finds another one's prefix."""
        self._asked += CONCURRENCY
        return [
            f"{n} sailors meet in a harbour. Tell their story." for n in range(self._asked, self._asked + CONCURRENCY)
        ]

    async def _plain(self) -> Wave:
        seconds = await _timed(self._generate(question) for question in self._questions())
        return Wave(CONCURRENCY * self._model.max_tokens / seconds)

    async def _generate(self, question: str) -> None:
        engine, model = self._engine, self._model
        room = engine.max_sequence_tokens - model.max_tokens
        history = [{"role": "user", "content": question}]
        prompt = await asyncio.to_thread(fit, model.system_prompt, history, engine.render_chat, room)
        sampling = model.model_dump(include={"max_tokens", "temperature", "top_p", "top_k", "repeat_penalty"})
        async for item in engine.generate(GenerationRequest(tuple(prompt), user=question, **sampling)):
            if isinstance(item, Finish):
                assert (item.reason, item.completion_tokens) == ("length", model.max_tokens), item

    async def _durable(self) -> Wave:
        answers = [await self._asker.ask(question) for question in self._questions()]
        self._database.reset()
        transactions, used = await self._postgres.written_transactions(), self._postgres.cpu_seconds()
        seconds = await _timed(self._runner.run_turn(answer) for answer in answers)
        used = self._postgres.cpu_seconds() - used
        transactions = await self._postgres.written_transactions() - transactions
        for answer in answers:
            text, end = await self._asker.read(answer)
            assert text, "an answer is empty"
            assert end == "length", f"an answer ended with {end}"
        tokens = CONCURRENCY * self._model.max_tokens
        return Wave(
            tokens / seconds,
            self._database.appends / seconds,
            self._database.events / seconds,
            transactions / tokens,
            used / tokens * 1e6,
        )


async def _timed(work: Any) -> float:
    began = time.perf_counter()
    await asyncio.gather(*work)
    return time.perf_counter() - began
