"""A process's connections to Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from db.errors import CONNECTION_ERRORS, DatabaseUnavailable, refusal
from db.queries import QUERIES


@dataclass(frozen=True)
class Grant:
    """What the access actor hands a process: a restricted role's address and its share of connections."""

    dsn: str
    max_connections: int


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """No query of the product leaves anything behind in its session; to reset it would be a second round trip for each.
    (A transaction left open is rolled back before this.)"""


class Database:
    """Runs named queries. Safe for concurrent use by the tasks of one event loop."""

    def __init__(self, pool: asyncpg.Pool, grant: Grant) -> None:
        self._pool = pool
        self._grant = grant

    @classmethod
    async def connect(cls, grant: Grant, statement_timeout_seconds: float = 10.0) -> Database:
        """Opens the pool. Raises DatabaseUnavailable when the server cannot be reached."""
        try:
            pool = await asyncpg.create_pool(
                grant.dsn,
                min_size=1,
                max_size=grant.max_connections,
                command_timeout=statement_timeout_seconds,
                reset=_nothing_to_reset,
                server_settings={"application_name": "rustygpt"},
            )
        except CONNECTION_ERRORS as error:
            raise DatabaseUnavailable("the database cannot be reached") from error
        return cls(pool, grant)

    async def close(self) -> None:
        """Drops all connections without waiting for queries."""
        self._pool.terminate()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except CONNECTION_ERRORS as error:
            raise DatabaseUnavailable("the database cannot be reached") from error
        except asyncpg.PostgresError as error:
            refused = refusal(error)
            if refused is not None:
                raise refused from None
            raise

    async def value(self, name: str, *args: Any, timeout_seconds: float | None = None) -> Any:
        """The single value of a query, which may take the statement time-out, or what is given here.

        Raises RefusedError, DatabaseUnavailable.
        """
        async with self._translated():
            return await self._pool.fetchval(QUERIES[name], *args, timeout=timeout_seconds)

    async def rows(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of a query. Raises RefusedError, DatabaseUnavailable."""
        async with self._translated():
            return await self._pool.fetch(QUERIES[name], *args)

    async def snapshot(self, name: str, *args: Any, batch: int = 50) -> AsyncGenerator[asyncpg.Record, None]:
        """The rows of a query one by one, all of one instant, however many: a batch of them is in memory at a time.

        Holds a connection until it is exhausted or closed. Raises RefusedError, DatabaseUnavailable.
        """
        async with (
            self._translated(),
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            async for row in connection.cursor(QUERIES[name], *args, prefetch=batch):
                yield row

    async def listen(
        self,
        channel: str,
        on_payload: Callable[[str], None],
        on_connected: Callable[[], None],
        retry_seconds: float = 0.5,
    ) -> None:
        """Listens until cancelled, over a connection of its own, and connects again when it is lost.

        `on_connected` runs after each LISTEN took effect: what was committed before it must be read then,
        because notifications sent while no connection listened are lost.
        """
        while True:
            try:
                connection = await asyncpg.connect(self._grant.dsn)
            except CONNECTION_ERRORS:
                await asyncio.sleep(retry_seconds)
                continue
            lost = asyncio.Event()
            connection.add_termination_listener(lambda *_, lost=lost: lost.set())
            try:
                await connection.add_listener(channel, lambda *args: on_payload(str(args[3])))
                on_connected()
                await lost.wait()
            except CONNECTION_ERRORS:
                await asyncio.sleep(retry_seconds)
            finally:
                connection.terminate()
