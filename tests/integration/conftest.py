"""A migrated database with two people, as the stored functions see it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
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
            made = await self.call("create_user", admin, None, name, f"{name}@example.org", "no hash", None, False)
        session = hashlib.sha256(name.encode()).digest()
        await self.call("open_session", UUID(made["id"]), session, "csrf", HOUR, HOUR, 5)
        self.sessions[name] = session
        return session

    async def user_id(self, session: bytes) -> UUID:
        """Whose session it is."""
        return UUID((await self.call("me", session, HOUR))["user"]["id"])

    async def conversation(self, session: bytes) -> UUID:
        """A new conversation."""
        return UUID((await self.call("create_conversation", session, None, "Tests", False, "{}"))["conversation_id"])

    async def settings(self, session: bytes, conversation: UUID, **changes: Any) -> None:
        """Changes a conversation."""
        await self.call("change_conversation", session, conversation, orjson.dumps(changes).decode())

    async def ask(self, session: bytes, conversation: UUID, model: str = "default") -> dict[str, Any]:
        """A root message and the turn that answers it."""
        return await self.post(session, conversation, "Hello?", [model])

    async def post(
        self,
        session: bytes,
        conversation: UUID,
        content: str,
        models: Sequence[str] = ("default",),
        once: list[str] | None = None,
    ) -> dict[str, Any]:
        """A root message."""
        return await self.call("post_root", session, HOUR, once, conversation, content, list(models), HOUR)

    async def reply(self, session: bytes, parent: str, content: str, once: list[str] | None = None) -> dict[str, Any]:
        """A reply."""
        return await self.call("reply", session, HOUR, once, UUID(parent), content, ["default"], HOUR)

    async def tree(
        self,
        session: bytes,
        root: str,
        after: UUID | None = None,
        before: UUID | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """A page of a thread."""
        return await self.call("get_tree", session, UUID(root), after, before, limit)

    async def answer(self, posted: dict[str, Any], text: str = "Hello!") -> dict[str, Any]:
        """Writes the answer that a post asked for, as a Model replica does; the claim it was written by."""
        [claim] = await self.claim("replica", posted["assistant_message_id"])
        await self.append(claim, 0, text)
        assert await self.finish(claim)
        return claim

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
            place = f"{claim['message_id']}:{number}"
            payload = orjson.dumps({"id": place, "choices": [{"index": 0, "delta": {"content": text}}]}).decode()
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
        rows = await self.app.rows("stream_read", [conversation], [after], 1000, 1 << 30)
        found = [row for row in rows if row["offset"] is not None]
        return [(row["offset"], row["type"], orjson.loads(row["payload"])["payload"]) for row in found]


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


@pytest.fixture
async def superuser(store: Store, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Sees and changes everything, for what no product's role can do: let time pass, look into a table."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
