"""Reads of stored answers touch about as many rows as they show, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from db.migrate import migrate
from db.pool import Database
from load.database.history_data import HOUR, Person, sign_up
from load.database.history_reads import Read, touched
from tests.conftest import connect

ANSWERS = 600
PAGE = 20
DELTAS = 200
FILL = """
do $$
declare
    number integer;
    new_id uuid;
begin
    for number in 1 .. {answers} loop
        new_id := rustygpt.uuid_v7();
        perform rustygpt.queue_response(new_id, '{user_id}', 'chat', 'default', '{{}}', '{{}}', false, '1 hour');
        perform rustygpt.append_event(conversation_id, 'message.delta', '{{}}', new_id, array[1])
           from rustygpt.turns where message_id = new_id;
        perform rustygpt.end_turn(new_id, 'stop');
    end loop;
end
$$
"""


@pytest.fixture(scope="module")
async def app(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database."""
    database = await connect((await migrate(database_url))["app"])
    yield database
    await database.close()


@pytest.fixture(scope="module")
async def admin(app: Database, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Sees what the server counts."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def reader(app: Database, admin: asyncpg.Connection) -> Person:
    """Somebody with many stored answers, beside somebody else who has as many."""
    ann, ben = await sign_up(app, ("ann", "ben"))
    for person in (ann, ben):
        await admin.execute(FILL.format(answers=ANSWERS, user_id=person.id))
    await admin.execute("analyze")
    return ann


@pytest.fixture(scope="module")
async def middle(admin: asyncpg.Connection, reader: Person) -> UUID:
    """The id of an answer in the middle of the list."""
    return await admin.fetchval(
        "select message_id from rustygpt.responses where user_id = $1 order by message_id offset $2 limit 1",
        reader.id,
        ANSWERS // 2,
    )


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "middle"])
async def test_page_of_the_list_reads_what_it_shows(
    admin: asyncpg.Connection, reader: Person, middle: UUID, ascending: bool, is_first: bool
) -> None:
    mark = None if is_first else middle
    read = Read("list", "list_responses", [(reader.session, "chat", mark, ascending, PAGE, None, None)])
    counted = await touched(admin, read)
    assert not counted.whole_scans
    # Of each answer its message for how it ended, for whether it is shown, for what it says; and its delta.
    assert counted.rows <= 5 * (PAGE + 1)


async def test_one_answer_is_found_by_its_id(admin: asyncpg.Connection, reader: Person, middle: UUID) -> None:
    counted = await touched(admin, Read("get", "read_response", [(reader.session, HOUR, "chat", middle)]))
    assert not counted.whole_scans
    assert counted.rows <= 5


async def test_reader_of_the_log_reads_what_is_new(admin: asyncpg.Connection, reader: Person, middle: UUID) -> None:
    for _ in range(DELTAS):
        await admin.execute(
            "select rustygpt.append_event(conversation_id, 'message.delta', '{}', message_id, array[1])"
            "  from rustygpt.turns where message_id = $1",
            middle,
        )
    last = await admin.fetchval('select max("offset") from rustygpt.events where message_id = $1', middle)
    read = Read("tail", "stream_read_answers", [([reader.session], [middle], [last - 1], 500, 1 << 17)])
    counted = await touched(admin, read)
    assert not counted.whole_scans
    assert counted.rows <= 10
