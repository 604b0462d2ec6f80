"""A Gateway's application as clients of /v1 reach it, in this process: the real routes on the real database."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from db.pool import Database, Grant
from deployments.config import Settings
from deployments.gateway.app import build_app
from deployments.gateway.services import Services


class Counted(Database):
    """Counts what is asked of it."""

    def __init__(self, pool: asyncpg.Pool, grant: Grant) -> None:
        super().__init__(pool, grant)
        self.calls: Counter[str] = Counter()

    async def value(self, name: str, *args: Any, timeout_seconds: float | None = None) -> Any:
        """As of every database."""
        self.calls[name] += 1
        return await super().value(name, *args, timeout_seconds=timeout_seconds)


@asynccontextmanager
async def gateway(database: Database, **api: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A Gateway of its own with these settings of the section `api`; a client without any credential."""
    defaults = Settings()
    settings = defaults.model_copy(update={"api": defaults.api.model_copy(update=api)})
    async with served(Services.build(settings, database)) as http:
        yield http


@asynccontextmanager
async def served(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A Gateway with these services; a client without any credential."""
    app = build_app(services)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield http


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}
