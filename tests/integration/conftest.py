"""A migrated database with two people, as the stored functions see it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from db.migrate import migrate
from db.pool import Database
from tests.conftest import connect

HOUR = timedelta(hours=1)


class Store:
    """The database through its two restricted roles."""

    def __init__(self, app: Database, worker: Database) -> None:
        self.app = app
        self.worker = worker
        self.sessions: dict[str, bytes] = {}

    async def call(self, name: str, *args: Any) -> Any:
        """A function of the app role; its JSON, decoded."""
        value = await self.app.value(name, *args)
        return orjson.loads(value) if isinstance(value, str) else value

    async def person(self, name: str) -> bytes:
        """Makes an account (the first is the administrator) and returns its session."""
        if not self.sessions:
            made = (await self.call("setup", name, f"{name}@example.org", "no hash"))["user"]
        else:
            admin = next(iter(self.sessions.values()))
            made = await self.call("create_user", admin, name, f"{name}@example.org", "no hash", None, False)
        session = hashlib.sha256(name.encode()).digest()
        await self.call("open_session", UUID(made["id"]), session, "csrf", HOUR, HOUR, 5)
        self.sessions[name] = session
        return session

    async def user_id(self, session: bytes) -> UUID:
        """Whose session it is."""
        return UUID((await self.call("me", session, HOUR))["user"]["id"])

    async def conversation(self, session: bytes) -> UUID:
        """A new conversation."""
        return UUID((await self.call("create_conversation", session, "Tests", False))["conversation_id"])

    async def ask(self, session: bytes, conversation: UUID, model: str = "default") -> dict[str, Any]:
        """A root message and the turn that answers it."""
        return await self.call("post_root", session, HOUR, conversation, "Hello?", model, HOUR)

    async def claim(
        self, owner: str, only: str | None = None, lease: timedelta = HOUR, model: str = "default"
    ) -> list[dict[str, Any]]:
        """Turns that a Model replica takes."""
        wanted = UUID(only) if only else None
        return orjson.loads(await self.worker.value("worker_claim", model, owner, lease, 100, wanted, timedelta(0)))

    async def append(
        self, claim: dict[str, Any], number: int, text: str | None, lease: timedelta = HOUR, tokens: str = "1"
    ) -> list[list[str]]:
        """One delta; what the replica is told."""
        payload = None
        if text is not None:
            payload = orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).decode()
        turn = UUID(claim["message_id"])
        answer = await self.worker.value(
            "worker_append", [turn], [claim["epoch"]], [number], [payload], [tokens if text else None], lease
        )
        return orjson.loads(answer)

    async def finish(self, claim: dict[str, Any], reason: str = "stop") -> bool:
        """The end of a turn."""
        turn = UUID(claim["message_id"])
        return await self.worker.value("worker_finish", turn, claim["epoch"], reason, "{}", None)

    async def events(self, conversation: UUID, after: int = 0) -> list[tuple[int, str, dict[str, Any]]]:
        """What a Streamer reads."""
        rows = await self.app.rows("stream_read", [conversation], [after], 1000)
        return [(row["offset"], row["type"], orjson.loads(row["payload"])["payload"]) for row in rows]


@pytest.fixture(scope="module")
async def store(database_url: str) -> AsyncIterator[Store]:
    """A fresh, migrated database."""
    addresses = await migrate(database_url)
    store = Store(await connect(addresses["app"]), await connect(addresses["worker"]))
    await store.person("ann")
    await store.person("ben")
    yield store
    await store.app.close()
    await store.worker.close()
