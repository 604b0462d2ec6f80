"""Row-level security by itself: plain SQL in the role that the api_* functions run in, with nothing between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.integration.conftest import HOUR, Store

Acting = Callable[[str], AbstractAsyncContextManager[asyncpg.Connection]]
DENIED = asyncpg.InsufficientPrivilegeError
POST = """
insert into rustygpt.messages (id, conversation_id, root_id, author_id, role, state, content, path, seq)
values ($1, $2, $1, $3, $4::text::rustygpt.message_role, 'done', 'Hello', array[1000], 1000)
"""


@pytest.fixture
async def acting(store: Store, superuser: asyncpg.Connection) -> Acting:
    """Opens a transaction of rustygpt_api for somebody; nothing of it stays."""

    @asynccontextmanager
    async def open_transaction(name: str) -> AsyncIterator[asyncpg.Connection]:
        user_id = await store.user_id(store.sessions[name])
        transaction = superuser.transaction()
        await transaction.start()
        try:
            await superuser.execute("select set_config('app.current_user_id', $1, true)", str(user_id))
            await superuser.execute("set local role rustygpt_api")
            yield superuser
        finally:
            await transaction.rollback()

    return open_transaction


@pytest.fixture(scope="module")
async def people(store: Store) -> dict[str, UUID]:
    """One of each role, an outsider, and their conversation with a message of the owner and its answer."""
    for name in ("owner", "admin", "member", "viewer", "outsider"):
        await store.person(name)
    owner = store.sessions["owner"]
    conversation = await store.conversation(owner)
    for name in ("admin", "member", "viewer"):
        user_id = await store.user_id(store.sessions[name])
        await store.call("add_participant", owner, None, conversation, user_id, name)
    posted = await store.ask(owner, conversation)
    await store.answer(posted)
    await store.call("edit", owner, HOUR, UUID(posted["message_id"]), "Hello!", None)
    await store.call("create_invite", owner, None, conversation, "new@example.org", "member", b"1" * 32, HOUR)
    names = ("owner", "admin", "member", "viewer", "outsider")
    return {
        "conversation": conversation,
        "question": UUID(posted["message_id"]),
        "answer": UUID(posted["assistant_message_id"]),
    } | {name: await store.user_id(store.sessions[name]) for name in names}


async def changed(connection: asyncpg.Connection, statement: str, *args: Any) -> int:
    """How many rows a statement changed; policies hide the others from it."""
    return int((await connection.execute(statement, *args)).split()[-1])


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("conversations", "id"),
        ("participants", "conversation_id"),
        ("messages", "conversation_id"),
        ("invites", "conversation_id"),
        ("channels", "id"),
        ("events", "channel_id"),
    ],
)
async def test_outsider_reads_nothing(acting: Acting, people: dict[str, UUID], table: str, column: str) -> None:
    count = f"select count(*) from rustygpt.{table} where {column} = $1"
    async with acting("owner") as connection:
        assert await connection.fetchval(count, people["conversation"]) > 0
    async with acting("outsider") as connection:
        assert await connection.fetchval(count, people["conversation"]) == 0


async def test_outsider_reads_no_versions(acting: Acting, people: dict[str, UUID]) -> None:
    count = "select count(*) from rustygpt.message_versions where message_id = $1"
    async with acting("viewer") as connection:
        assert await connection.fetchval(count, people["question"]) == 1
    async with acting("outsider") as connection:
        assert await connection.fetchval(count, people["question"]) == 0


@pytest.mark.parametrize("name", ["member", "viewer"])
async def test_invitations_are_for_admins(acting: Acting, people: dict[str, UUID], name: str) -> None:
    insert = """
        insert into rustygpt.invites (id, conversation_id, email, role, token_hash, invited_by, expires_at)
        values ($1, $2, 'other@example.org', 'member', sha256('x'), $3, now() + interval '1 hour')
    """
    async with acting(name) as connection:
        assert await connection.fetchval("select count(*) from rustygpt.invites") == 0
        with pytest.raises(DENIED):
            await connection.execute(insert, uuid4(), people["conversation"], people[name])
    async with acting("admin") as connection:
        await connection.execute(insert, uuid4(), people["conversation"], people["admin"])
    async with acting("admin") as connection:
        with pytest.raises(DENIED):  # in somebody else's name
            await connection.execute(insert, uuid4(), people["conversation"], people["owner"])


async def test_hashes_of_invitations_are_read_by_nobody(acting: Acting) -> None:
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.fetch("select token_hash from rustygpt.invites")


async def test_members_post_in_their_own_name(acting: Acting, people: dict[str, UUID]) -> None:
    async with acting("member") as connection:
        await connection.execute(POST, uuid4(), people["conversation"], people["member"], "user")
    async with acting("member") as connection:
        with pytest.raises(DENIED):
            await connection.execute(POST, uuid4(), people["conversation"], people["owner"], "user")


@pytest.mark.parametrize("name", ["viewer", "outsider"])
async def test_who_may_not_write_posts_nothing(acting: Acting, people: dict[str, UUID], name: str) -> None:
    async with acting(name) as connection:
        with pytest.raises(DENIED):
            await connection.execute(POST, uuid4(), people["conversation"], people[name], "user")


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
async def test_nobody_writes_what_is_not_a_persons(acting: Acting, people: dict[str, UUID], role: str) -> None:
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.execute(POST, uuid4(), people["conversation"], None, role)


async def test_nobody_labels_a_message_with_another_name(acting: Acting, people: dict[str, UUID]) -> None:
    labelled = POST.replace("path, seq", "path, seq, author_label").replace("1000)", "1000, 'ben')")
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.execute(labelled, uuid4(), people["conversation"], people["owner"], "user")


@pytest.mark.parametrize(
    ("name", "message", "rows"),
    [
        ("owner", "question", 1),
        ("admin", "question", 1),
        ("member", "question", 0),
        ("viewer", "question", 0),
        ("outsider", "question", 0),
        ("owner", "answer", 0),
        ("admin", "answer", 0),
    ],
)
async def test_what_others_said_stays(
    acting: Acting, people: dict[str, UUID], name: str, message: str, rows: int
) -> None:
    update = "update rustygpt.messages set content = 'forged' where id = $1"
    async with acting(name) as connection:
        assert await changed(connection, update, people[message]) == rows


@pytest.mark.parametrize(
    "assignment",
    [
        "author_id = $2",
        "role = 'assistant', author_id = null",
        "conversation_id = $2",
        "path = '{7}'",
        "state = 'queued'",
    ],
)
async def test_where_and_whose_a_message_is_stays(acting: Acting, people: dict[str, UUID], assignment: str) -> None:
    update = f"update rustygpt.messages set {assignment} where id = $1 and $2::uuid is not null"
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.execute(update, people["question"], people["admin"])


async def test_versions_are_written_once(acting: Acting, people: dict[str, UUID]) -> None:
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.execute("update rustygpt.message_versions set content = 'forged'")


@pytest.mark.parametrize("name", ["viewer", "outsider"])
async def test_who_may_not_write_renames_nothing(acting: Acting, people: dict[str, UUID], name: str) -> None:
    update = "update rustygpt.conversations set title = 'Mine' where id = $1"
    async with acting(name) as connection:
        assert await changed(connection, update, people["conversation"]) == 0


@pytest.mark.parametrize("assignment", ["deleted_at = now()", "created_by = $2", "id = $2", "message_count = 0"])
async def test_what_the_system_keeps_of_a_conversation_stays(
    acting: Acting, people: dict[str, UUID], assignment: str
) -> None:
    update = f"update rustygpt.conversations set {assignment} where id = $1 and $2::uuid is not null"
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.execute(update, people["conversation"], people["admin"])


async def test_member_makes_nobody_a_participant(acting: Acting, people: dict[str, UUID]) -> None:
    insert = "insert into rustygpt.participants (conversation_id, user_id, role) values ($1, $2, 'viewer')"
    async with acting("member") as connection:
        with pytest.raises(DENIED):
            await connection.execute(insert, people["conversation"], people["outsider"])


@pytest.mark.parametrize(
    ("name", "whose", "role"),
    [
        ("admin", "admin", "owner"),
        ("admin", "member", "owner"),
        ("member", "member", "admin"),
    ],
)
async def test_nobody_promotes_beyond_their_own_right(
    acting: Acting, people: dict[str, UUID], name: str, whose: str, role: str
) -> None:
    update = """
        update rustygpt.participants set role = $3::text::rustygpt.conversation_role
         where conversation_id = $1 and user_id = $2
    """
    async with acting(name) as connection:
        with pytest.raises(DENIED):
            await connection.execute(update, people["conversation"], people[whose], role)


async def test_admin_does_not_reach_an_owner(acting: Acting, people: dict[str, UUID]) -> None:
    update = "update rustygpt.participants set left_at = now() where conversation_id = $1 and user_id = $2"
    async with acting("admin") as connection:
        assert await changed(connection, update, people["conversation"], people["owner"]) == 0
        assert await changed(connection, update, people["conversation"], people["member"]) == 1


async def test_keys_of_requests_are_out_of_reach(acting: Acting) -> None:
    async with acting("owner") as connection:
        with pytest.raises(DENIED):
            await connection.fetch("select * from rustygpt.idempotency_keys")
