"""A database as full as after years of use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson

from db.pool import Database
from db.queries import load_queries

QUERIES = load_queries(Path(__file__).with_name("history.sql"))
FILL = (
    "fill_conversations",
    "fill_participants",
    "fill_messages",
    "fill_turns",
    "fill_read_marks",
    "fill_channels",
    "fill_events",
    "advance_channels",
    "analyze",
)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Person:
    """Somebody with an account and a session."""

    id: UUID
    session: bytes


@dataclass(frozen=True)
class Shape:
    """Conversations that are alike: `count` of them, each of `threads` threads of `messages` messages. In a thread
    `branch` messages follow one another, then the next branch begins at the first answer. `deltas`: of each answer,
    in the log. The reader is a member, or has nothing to do with them."""

    count: int
    threads: int
    messages: int
    branch: int
    deltas: int = 0
    is_readers: bool = True


async def sign_up(app: Database, names: tuple[str, ...]) -> list[Person]:
    """Accounts with a session each, in a database that has none; the first is the administrator's."""
    found: list[Person] = []
    for name in names:
        if found:
            args = (found[0].session, None, name, f"{name}@example.org", "no hash", None, False)
            made = orjson.loads(await app.value("create_user", *args))
        else:
            made = orjson.loads(await app.value("setup", name, f"{name}@example.org", "no hash"))["user"]
        person = Person(UUID(made["id"]), hashlib.sha256(name.encode()).digest())
        await app.value("open_session", person.id, person.session, "csrf", HOUR, HOUR, 5)
        found.append(person)
    return found


async def fill(
    admin: asyncpg.Connection, reader: Person, others: tuple[Person, Person], shapes: Mapping[str, Shape]
) -> dict[str, list[UUID]]:
    """Makes the conversations and returns their ids by the shapes' names. Once a connection."""
    await admin.execute(QUERIES["create_plan"])
    made: dict[str, list[UUID]] = {}
    for name, shape in shapes.items():
        owner, member = others[0], reader if shape.is_readers else others[1]
        sizes = (shape.threads, shape.messages, shape.branch, shape.deltas)
        rows = await admin.fetch(QUERIES["plan"], shape.count, owner.id, member.id, *sizes)
        made[name] = [row["conversation_id"] for row in rows]
    for statement in FILL:
        await admin.execute(QUERIES[statement])
    return made


async def root(admin: asyncpg.Connection, conversation_id: UUID, thread: int = 1) -> UUID:
    """The root of a conversation's n-th thread."""
    return await admin.fetchval(QUERIES["root"], conversation_id, thread)


async def message_at(admin: asyncpg.Connection, root_id: UUID, place: int) -> UUID:
    """The message in a place of a thread's depth-first order, from 0."""
    return await admin.fetchval(QUERIES["place"], root_id, place)
