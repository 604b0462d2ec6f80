"""Reads of long histories touch about as many rows as they show, whatever else the database holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson
import pytest

from db.migrate import migrate
from db.pool import Database
from load.database.history_data import HOUR, Person, Shape, fill, root, sign_up
from load.database.history_reads import (
    CONVERSATIONS_PAGE,
    SEARCH_PAGE,
    STREAM_PAGE,
    THREADS_PAGE,
    TREE_PAGE,
    Read,
    Reader,
    Touched,
    touched,
)
from tests.conftest import connect

LONG = 4_000
DEEP = 6_000
SHAPES = {
    "branches": Shape(count=1, threads=1, messages=LONG, branch=100, deltas=3),
    "line": Shape(count=1, threads=1, messages=DEEP, branch=DEEP),
    "threads": Shape(count=1, threads=LONG // 10, messages=10, branch=4),
    "ordinary": Shape(count=10, threads=20, messages=10, branch=6, deltas=1),
    "others": Shape(count=50, threads=20, messages=10, branch=6, is_readers=False),
}
# Rows that a page may touch: each message once for its place and once for its content, each thread with its messages,
# and a few for rights and for where the page ends.
MOST_ROWS = {
    "get_tree": 2 * TREE_PAGE + 20,
    "list_threads": THREADS_PAGE * (2 + 10) + 20,
    "stream_open": 0,
    "stream_read": STREAM_PAGE,
    "list_conversations": 10 * CONVERSATIONS_PAGE,
    "list_unread": 3 * LONG // 10,
    "search: a rare word": 20 * SEARCH_PAGE,
    "search: a common word": 3 * 10_000,  # all of the reader's messages: to find, to rank
}


@dataclass(frozen=True)
class History:
    """A filled database and the reads of one of its people."""

    admin: asyncpg.Connection
    app: Database
    worker: Database
    person: Person
    line: UUID
    reads: dict[str, Read]


@pytest.fixture(scope="module")
async def history(database_url: str) -> AsyncIterator[History]:
    addresses = await migrate(database_url)
    app, admin = await connect(addresses["app"]), await asyncpg.connect(database_url)
    person, *others = await sign_up(app, ("ann", "ben", "eve"))
    made = await fill(admin, person, (others[0], others[1]), SHAPES)
    reader = Reader(admin, app, person, LONG)
    reads = [
        *await reader.tree("long", made["branches"][0]),
        *await reader.thread_pages("many", made["threads"][0]),
        *reader.log(made["branches"][0], LONG // 2 * 4),
        *await reader.conversation_pages(),
        reader.unread("many", made["threads"]),
        *reader.search({"a rare word": "w3990", "a common word": "w0"}),
    ]
    worker = await connect(addresses["worker"])
    yield History(admin, app, worker, person, made["line"][0], {read.name: read for read in reads})
    await admin.close()
    await app.close()
    await worker.close()


def is_frugal(read: Read, counted: Touched) -> bool:
    """Whether a call touched no more than it had to."""
    return not counted.whole_scans and counted.rows <= MOST_ROWS.get(read.name, MOST_ROWS.get(read.query, 0))


async def test_no_page_reads_more_than_it_shows(history: History) -> None:
    counted = {name: await touched(history.admin, read) for name, read in history.reads.items()}
    assert {name: found for name, found in counted.items() if not is_frugal(history.reads[name], found)} == {}


@pytest.mark.parametrize(
    ("index", "read"),
    [
        ("index rustygpt.messages_root_idx", "tree, long: middle"),
        ("index rustygpt.messages_activity_idx", "threads, many: middle"),
        ("constraint events_pkey", "stream: middle"),
    ],
)
async def test_missing_index_is_noticed(history: History, index: str, read: str) -> None:
    table = "events" if "events" in index else "messages"
    transaction = history.admin.transaction()
    await transaction.start()
    try:
        drop = f"alter table rustygpt.{table} drop {index}" if "constraint" in index else f"drop {index}"
        await history.admin.execute(drop)
        counted = await touched(history.admin, history.reads[read])
    finally:
        await transaction.rollback()
    assert not is_frugal(history.reads[read], counted)


async def test_question_far_down_a_thread_reaches_the_model_in_time(history: History) -> None:
    root_id = await root(history.admin, history.line)
    place = [1] * DEEP
    last = await history.admin.fetchval(
        "select id from rustygpt.messages where root_id = $1 and path = $2", root_id, place
    )
    posted = orjson.loads(
        await history.app.value("reply", history.person.session, HOUR, None, last, "And then?", ["default"], HOUR)
    )
    answer = UUID(posted["assistant_message_id"])
    # 60 ms here; to compare the paths of 6,000 ancestors takes seconds.
    args = ("default", "replica", HOUR, 1, answer, timedelta(0))
    claims = orjson.loads(await history.worker.value("worker_claim", *args, timeout_seconds=1.5))
    contents = [said["content"] for said in claims[0]["history"]]
    assert (len(contents), contents[-1]) == (DEEP + 1, "And then?")
