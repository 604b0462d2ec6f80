"""Row-level security and rights, on a real PostgreSQL: nobody reads or writes what membership does not allow."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.errors import RefusedError
from db.migrate import migrate
from tests.integration.conftest import HOUR, Store

TABLES = (
    "users",
    "sessions",
    "conversations",
    "participants",
    "messages",
    "channels",
    "events",
    "turns",
    "message_versions",
    "idempotency_keys",
    "live_models",
    "model_replicas",
    "api_keys",
    "api_key_version",
    "api_usage",
    "served_models",
    "secrets",
)


async def refused(status: int, awaitable: object) -> str:
    """Asserts that a call is refused with this status; returns the code."""
    with pytest.raises(RefusedError) as caught:
        await awaitable  # pyright: ignore[reportGeneralTypeIssues]
    assert caught.value.status == status
    return caught.value.code


async def test_outsider_is_refused_everything(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    posted = await store.ask(ann, conversation)
    root, answer = UUID(posted["root_id"]), UUID(posted["assistant_message_id"])
    ben_id = await store.user_id(ben)
    for name, args in {
        "get_conversation": (ben, conversation),
        "add_participant": (ben, None, conversation, ben_id, "owner"),
        "post_root": (ben, HOUR, None, conversation, "hello", ["default"], HOUR),
        "reply": (ben, HOUR, None, root, "hello", ["default"], HOUR),
        "list_threads": (ben, conversation, None, None, 10),
        "get_tree": (ben, root, None, None, 10),
        "cancel": (ben, answer),
        "edit": (ben, HOUR, root, "hello", None),
        "list_versions": (ben, root),
        "delete_message": (ben, HOUR, root),
        "restore": (ben, HOUR, root),
        "regenerate": (ben, HOUR, None, answer, ["default"], HOUR),
        "branch": (ben, HOUR, None, root, "hello", ["default"], HOUR),
        "rename_thread": (ben, HOUR, root, "Mine"),
        "stream_open": (ben, HOUR, conversation),
    }.items():
        assert await refused(403, store.call(name, *args)) == "RGP.RBAC.FORBIDDEN", name
    assert str(conversation) not in str(await store.call("list_conversations", ben, None, None, None, None, 100))


async def test_viewer_reads_but_does_not_write(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    posted = await store.ask(ann, conversation)
    await store.call("add_participant", ann, None, conversation, await store.user_id(ben), "viewer")
    assert (await store.tree(ben, posted["root_id"]))["messages"]
    await refused(403, store.ask(ben, conversation))
    await refused(403, store.call("cancel", ben, UUID(posted["assistant_message_id"])))


async def test_unknown_session_is_refused(store: Store) -> None:
    assert await refused(401, store.call("me", b"unknown", HOUR)) == "RGP.AUTH.INVALID_SESSION"


async def test_unknown_message_is_not_found(store: Store) -> None:
    assert await refused(404, store.tree(store.sessions["ann"], str(uuid4()))) == "RGP.NOT_FOUND"


@pytest.mark.parametrize("table", TABLES)
async def test_roles_of_the_product_cannot_touch_tables(store: Store, table: str) -> None:
    for database in (store.app, store.worker):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database._pool.fetch(f"select * from rustygpt.{table}")


async def test_row_security_is_forced_on_every_table(store: Store, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        open_tables = await connection.fetch(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = 'rustygpt' and c.relkind = 'r' "
            "and not (c.relrowsecurity and c.relforcerowsecurity) and c.relname not in ('secrets', 'migrations')"
        )
    finally:
        await connection.close()
    assert open_tables == []


async def test_app_role_may_not_call_worker_functions(store: Store) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await store.app.value("worker_claim", "default", "intruder", HOUR, 1, None, HOUR)


async def test_second_migration_changes_nothing(store: Store, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    ledger = "select name, checksum, applied_at from rustygpt.migrations order by name"
    before = await connection.fetch(ledger)
    await migrate(database_url)
    assert await connection.fetch(ledger) == before
    await connection.close()


async def test_last_owner_cannot_leave(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    code = await refused(409, store.call("remove_participant", ann, conversation, await store.user_id(ann)))
    assert code == "RGP.CONFLICT"


async def test_second_setup_is_refused(store: Store) -> None:
    assert await refused(409, store.call("setup", "eve", "eve@example.org", "hash")) == "RGP.SETUP.DONE"


async def test_who_was_signed_in_is_forgotten_with_each_call(store: Store) -> None:
    """Connections go from one request to the next as they are."""
    await asyncio.gather(*(store.call("me", store.sessions["ann"], HOUR) for _ in range(8)))
    setting = "select current_setting('app.current_user_id', true)"
    left = await asyncio.gather(*(store.app._pool.fetchval(setting) for _ in range(8)))
    assert set(left) - {None} == {""}, "a connection still acts for somebody"
