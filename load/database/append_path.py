"""Group commit alone: the real writer on a real database, fed with text that no model has made."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import cast
from uuid import UUID

import orjson

from db.pool import Database
from deployments.model.append_writer import AppendWriter, OpenTurn
from deployments.model.claim import Claim
from deployments.model.engine import TokenDelta
from load.database.asked_questions import MODEL, Asker
from load.database.metered import MeteredDatabase
from load.database.own_postgres import OwnPostgres, percentile

LEASE = timedelta(seconds=5)


class AppendPath:
    """Measures the writer at several concurrencies."""

    def __init__(self, postgres: OwnPostgres, worker: Database, asker: Asker) -> None:
        self._postgres = postgres
        self._database = MeteredDatabase(worker)
        self._asker = asker

    async def measure(self, turns: int, tokens_per_second: float | None, seconds: float) -> dict[str, float]:
        """All turns get a token at a time, as from a step of the engine: so many a second each, or (None) as soon as
        all have the last one committed. Raises AssertionError when the log is not what was written."""
        writer = AppendWriter(cast(Database, self._database), LEASE)
        answers = [await self._asker.ask(f"Question {i}?") for i in range(turns)]
        opened = [writer.open(await self._claim(answer)) for answer in answers]
        running = asyncio.create_task(writer.run())
        try:
            await self._feed(writer, opened, tokens_per_second, 0.3, 0)
            self._database.reset()
            before = await self._counters()
            fed = await self._feed(writer, opened, tokens_per_second, seconds, 1000)
            after = await self._counters()
        finally:
            running.cancel()
        await self._check(opened, fed)
        elapsed, transactions, postgres, own = (b - a for a, b in zip(before, after, strict=True))
        database = self._database
        return {
            "appends_per_second": database.appends / elapsed,
            "events_per_second": database.events / elapsed,
            "tokens_per_second": database.tokens / elapsed,
            "transactions_per_token": transactions / database.tokens,
            "late_ms_p50": percentile(database.late_seconds, 0.5) * 1000,
            "late_ms_p99": percentile(database.late_seconds, 0.99) * 1000,
            "postgres_ms_per_1000_tokens": postgres / database.tokens * 1e6,
            "writer_ms_per_1000_tokens": own / database.tokens * 1e6,
        }

    async def _claim(self, answer: UUID) -> Claim:
        claimed = await self._database.value("worker_claim", MODEL, "bench", LEASE, 1, answer, timedelta(0))
        return Claim.from_json(orjson.loads(claimed)[0])

    async def _counters(self) -> tuple[float, int, float, float]:
        transactions = await self._postgres.written_transactions()
        return time.perf_counter(), transactions, self._postgres.cpu_seconds(), time.process_time()

    async def _feed(
        self, writer: AppendWriter, turns: list[OpenTurn], tokens_per_second: float | None, seconds: float, first: int
    ) -> int:
        """Returns the number after the last token's."""
        token, began = first, time.perf_counter()
        while time.perf_counter() < began + seconds:
            for turn in turns:
                self._database.made(turn.claim.message_id)
                writer.add(turn, TokenDelta((token,), f" {token}"))
            token += 1
            if tokens_per_second:
                await asyncio.sleep(began + (token - first) / tokens_per_second - time.perf_counter())
            else:
                await asyncio.gather(*(writer.settle(turn) for turn in turns))
        await asyncio.gather(*(writer.settle(turn) for turn in turns))
        return token

    async def _check(self, turns: list[OpenTurn], fed: int) -> None:
        for turn in turns:
            claim = turn.claim
            assert await self._database.value("worker_finish", claim.message_id, claim.epoch, "stop", "{}", None)
            text, end = await self._asker.read(claim.message_id)
            assert text.endswith(f" 1000 {' '.join(map(str, range(1001, fed)))}"), "the log is not what was written"
            assert end == "stop"
