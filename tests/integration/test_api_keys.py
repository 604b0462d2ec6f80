"""API keys: told once, good for what their scopes say, and gone within 2 seconds of their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from db.errors import RefusedError
from db.migrate import migrate
from db.pool import Grant
from deployments.gateway.keys.key_format import key_hash, key_prefix, new_key
from deployments.gateway.v1 import key_sync
from deployments.gateway.v1.callers import READ, Caller
from deployments.gateway.v1.errors import LimitReached
from deployments.gateway.v1.key_sync import KeySync
from deployments.gateway.v1.known_keys import KnownKeys
from deployments.gateway.v1.limits import Limits
from deployments.sessions import token_hash
from tests.conftest import connect
from tests.integration.browser import Browser, browser
from tests.integration.conftest import HOUR, Store
from tests.integration.gateway import Counted, bearer, gateway

PROMISED_SECONDS = 2.0


@pytest.fixture(scope="module")
async def ann(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ann") as opened:
        yield opened


@pytest.fixture(scope="module")
async def ben(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ben") as opened:
        yield opened


@pytest.fixture(scope="module")
async def api(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(store.app) as http:
        yield http


async def make(owner: Browser, **more: object) -> dict[str, str]:
    """A new key."""
    return await owner.call("POST", "/api/keys", {"name": "tests"} | more, 201)


async def use(http: httpx.AsyncClient, key: str) -> httpx.Response:
    """The cheapest request that a key is good for."""
    return await http.get("/v1/models", headers=bearer(key))


async def refusal(http: httpx.AsyncClient, key: str, status: int) -> str:
    """The code of a refusal."""
    answer = await use(http, key)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["code"]


async def accepted_for(http: httpx.AsyncClient, key: str) -> float:
    """Seconds from now to the beginning of the last request that a key was taken for."""
    began = last = time.monotonic()
    while True:
        asked = time.monotonic()
        if (await use(http, key)).status_code in (401, 423):
            return last - began
        last = asked
        assert last - began < 20
        # Nothing here waits for anything outside this process: without a pause its polls would never get their turn.
        await asyncio.sleep(0.01)


async def test_a_key_opens_the_api(ann: Browser, api: httpx.AsyncClient) -> None:
    made = await make(ann)
    assert made["key"].startswith(made["prefix"])
    assert (await use(api, made["key"])).status_code == 200
    assert (await api.get("/v1/models", headers={"x-api-key": made["key"]})).status_code == 200


async def test_a_key_is_told_once_and_stored_nowhere(ann: Browser, superuser: asyncpg.Connection) -> None:
    made = (await ann.call("POST", "/api/keys", {"name": "secret"}, 201, str(uuid4())))["key"]
    listed = await ann.http.get("/api/keys")
    assert made not in listed.text
    for table in ("api_keys", "idempotency_keys"):
        rows = await superuser.fetch(f"select t::text as row from rustygpt.{table} t")
        assert rows
        assert not any(made in row["row"] for row in rows)


async def test_a_repeated_request_makes_one_key_and_tells_it_again(store: Store, ann: Browser) -> None:
    once = str(uuid4())
    first, second = [await ann.call("POST", "/api/keys", {"name": "repeated"}, 201, once) for _ in range(2)]
    assert first == second
    keys = (await ann.call("GET", "/api/keys"))["keys"]
    assert [key["name"] for key in keys].count("repeated") == 1
    user_id = await store.user_id(store.sessions["ann"])
    await store.call("open_session", user_id, token_hash("elsewhere"), "csrf", HOUR, HOUR, 5)
    async with browser(store, "ann", token="elsewhere") as other:
        assert "earlier session" in await other.refused(409, "POST", "/api/keys", {"name": "repeated"}, once)


async def test_keys_are_listed_in_pages_the_latest_first(store: Store) -> None:
    async with browser(store, "lister") as owner:
        made = [(await make(owner, name=f"key {number}"))["id"] for number in range(5)]
        seen, path = [], "/api/keys?limit=2"
        while path:
            page = await owner.call("GET", path)
            seen += [key["id"] for key in page["keys"]]
            path = page["next_before"] and f"/api/keys?limit=2&before={page['next_before']}"
    assert seen == made[::-1]


async def test_a_key_for_reading_has_nothing_generated(ann: Browser, api: httpx.AsyncClient) -> None:
    key = (await make(ann, scopes=["v1.read"]))["key"]
    body = {"model": "default", "input": "hello"}
    answer = await api.post("/v1/embeddings", json=body, headers=bearer(key))
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "insufficient_scope"
    assert "v1.write" in answer.json()["error"]["message"]
    assert (await use(api, key)).status_code == 200


async def test_a_key_for_writing_does_not_read(ann: Browser, api: httpx.AsyncClient) -> None:
    assert await refusal(api, (await make(ann, scopes=["v1.write"]))["key"], 403) == "insufficient_scope"


async def test_a_key_in_a_cookie_is_no_session(ann: Browser, api: httpx.AsyncClient) -> None:
    key = (await make(ann))["key"]
    # Cookies can hold any byte, written in octal: what a key's hash begins with, too.
    for before in ("", "rustygpt api key\\012", "\\377rustygpt api key\\012"):
        cookie = {"Cookie": f'SESSION_ID="{before}{key}"'}
        assert (await api.get("/api/conversations", headers=cookie)).status_code == 401
        assert (await api.get("/v1/models", headers=cookie)).status_code == 401


async def test_only_administrators_make_keys_for_administration(ann: Browser, ben: Browser) -> None:
    body = {"name": "admin", "scopes": ["admin.limits"]}
    await ann.call("POST", "/api/keys", body, 201)
    assert "administrator" in await ben.refused(403, "POST", "/api/keys", body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "a\0b"},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["v1.read", "v1.read"]},
        {"name": "a", "scopes": ["everything"]},
        {"name": "a", "expires_in_seconds": 0},
        {"name": "a", "expires_in_seconds": 10, "expires_at": "2100-01-01T00:00:00Z"},
        {"name": "a", "expires_at": "2100-01-01T00:00:00"},
        {"name": "a", "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "a", "surplus": 1},
    ],
)
async def test_what_no_key_can_be_made_of_is_422(ann: Browser, body: dict[str, object]) -> None:
    await ann.refused(422, "POST", "/api/keys", body)


async def test_nobody_has_more_than_100_live_keys(store: Store) -> None:
    async with browser(store, "hoarder") as owner:
        made = [await make(owner) for _ in range(100)]
        await owner.refused(409, "POST", "/api/keys", {"name": "one more"})
        await owner.call("DELETE", f"/api/keys/{made[0]['id']}", status=204)
        await make(owner)


async def test_a_revoked_key_is_refused_by_every_gateway_within_2_seconds(store: Store, ann: Browser) -> None:
    made = await make(ann)
    async with gateway(store.app) as here, gateway(store.app) as there:
        for http in (here, there):
            assert (await use(http, made["key"])).status_code == 200
        await ann.call("DELETE", f"/api/keys/{made['id']}", status=204)
        for seconds in await asyncio.gather(*(accepted_for(http, made["key"]) for http in (here, there))):
            assert seconds < PROMISED_SECONDS
        assert await refusal(here, made["key"], 401) == "invalid_api_key"
    await ann.call("DELETE", f"/api/keys/{made['id']}", status=204)
    states = {key["id"]: key["state"] for key in (await ann.call("GET", "/api/keys"))["keys"]}
    assert states[made["id"]] == "revoked"


async def test_keys_of_a_disabled_account_are_refused_within_2_seconds(
    store: Store, superuser: asyncpg.Connection
) -> None:
    async with browser(store, "leaver") as leaver, gateway(store.app) as api:
        key = (await make(leaver))["key"]
        assert (await use(api, key)).status_code == 200
        await superuser.execute("update rustygpt.users set disabled_at = now() where username = 'leaver'")
        assert await accepted_for(api, key) < PROMISED_SECONDS
        assert await refusal(api, key, 423) == "disabled"


async def test_a_key_expires_on_every_gateway(store: Store, ann: Browser) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    key = (await make(ann, expires_at=ends.isoformat()))["key"]
    async with gateway(store.app) as api:
        assert (await use(api, key)).status_code == 200
        last = await accepted_for(api, key)
        assert await refusal(api, key, 401) == "expired_api_key"
        assert last < 1.5 + PROMISED_SECONDS
    states = {item["prefix"]: item["state"] for item in (await ann.call("GET", "/api/keys"))["keys"]}
    assert states[key_prefix(key)] == "expired"


async def test_most_checks_ask_no_database(store: Store, ann: Browser, database_url: str) -> None:
    key = (await make(ann))["key"]
    database = await Counted.connect(Grant((await migrate(database_url))["app"], 4))
    try:
        async with gateway(database) as api:
            for _ in range(200):
                assert (await use(api, key)).status_code == 200
                await asyncio.sleep(0.01)
        assert isinstance(database, Counted)
        assert database.calls["find_key"] < 100, database.calls
        assert set(database.calls) <= {"find_key", "sync_keys", "served_models"}
    finally:
        await database.close()


async def test_a_made_up_key_is_refused_and_not_remembered(store: Store, ann: Browser, api: httpx.AsyncClient) -> None:
    key = new_key("any", None)
    assert await refusal(api, key, 401) == "invalid_api_key"
    made = ("made up", key_prefix(key), key_hash(key), ["v1.read"], HOUR, None)
    await store.call("create_key", store.sessions["ann"], None, *made)
    assert (await use(api, key)).status_code == 200


async def test_without_the_database_it_says_try_again(store: Store, ann: Browser, database_url: str) -> None:
    key = (await make(ann))["key"]
    database = await connect((await migrate(database_url))["app"])
    async with gateway(database) as api:
        await database.close()
        answer = await use(api, key)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["error"]["code"] == "database_unavailable"
        assert await refusal(api, "rgpt_mistyped", 401) == "invalid_api_key"


async def test_a_key_is_no_session(store: Store, ann: Browser) -> None:
    key = (await make(ann))["key"]
    async with browser(store, "ann", token=key) as thief:
        await thief.refused(401, "GET", "/api/auth/me")
        await thief.refused(401, "POST", "/api/keys", {"name": "another"})


async def test_stored_functions_know_the_user_of_a_key_but_let_it_manage_no_keys(store: Store, ann: Browser) -> None:
    made = await make(ann)
    credential = key_hash(made["key"])
    user_id = await store.user_id(store.sessions["ann"])
    assert await store.app.value("session_user", credential, HOUR) == user_id
    for name, args in {
        "create_key": (None, "another", "rgpt_123456", b"1" * 32, ["v1.read"], None, None),
        "list_keys": (None, 10),
        "revoke_key": (UUID(made["id"]),),
    }.items():
        with pytest.raises(RefusedError) as caught:
            await store.call(name, credential, *args)
        assert caught.value.status == 403, name
    await ann.call("DELETE", f"/api/keys/{made['id']}", status=204)
    with pytest.raises(RefusedError) as caught:
        await store.app.value("session_user", credential, HOUR)
    assert caught.value.status == 401


async def test_others_neither_see_nor_revoke_a_key(ann: Browser, ben: Browser) -> None:
    made = await make(ann)
    assert made["id"] not in [key["id"] for key in (await ben.call("GET", "/api/keys"))["keys"]]
    await ben.refused(404, "DELETE", f"/api/keys/{made['id']}")


async def test_row_security_alone_keeps_keys_apart(store: Store, ann: Browser, superuser: asyncpg.Connection) -> None:
    made = await make(ann)
    ben_id = await store.user_id(store.sessions["ben"])
    insert = (
        "insert into rustygpt.api_keys (id, user_id, name, prefix, key_hash, scopes) "
        "values (gen_random_uuid(), $1, 'a', 'rgpt_1', decode(repeat('ab', 32), 'hex'), $2)"
    )
    transaction = superuser.transaction()
    await transaction.start()
    try:
        await superuser.execute("select set_config('app.current_user_id', $1, true)", str(ben_id))
        await superuser.execute("set local role rustygpt_api")
        mine = "select count(*) from rustygpt.api_keys where id = $1"
        assert await superuser.fetchval(mine, UUID(made["id"])) == 0
        revoke = "update rustygpt.api_keys set revoked_at = now() where id = $1"
        assert await superuser.execute(revoke, UUID(made["id"])) == "UPDATE 0"
        for user_id, scopes in (
            (await store.user_id(store.sessions["ann"]), ["v1.read"]),
            (ben_id, ["v1.read", "admin.limits"]),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with superuser.transaction():
                    await superuser.execute(insert, user_id, scopes)
        for forbidden in (
            "select key_hash from rustygpt.api_keys",
            "update rustygpt.api_keys set scopes = array['admin.limits']",
            "select * from rustygpt.api_usage",
            "update rustygpt.api_key_version set version = 1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with superuser.transaction():
                    await superuser.execute(forbidden)
    finally:
        await transaction.rollback()


async def test_it_is_told_when_a_key_was_last_used(store: Store, ann: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sync, "LAST_USED_SECONDS", 0.0)
    made = await make(ann)
    async with gateway(store.app) as api:
        began = datetime.now(UTC)
        await use(api, made["key"])
        used = None
        async with asyncio.timeout(20):
            while used is None:
                keys = {key["id"]: key["last_used_at"] for key in (await ann.call("GET", "/api/keys"))["keys"]}
                used = keys[made["id"]]
        assert abs(datetime.fromisoformat(used) - began) < timedelta(seconds=10)


async def test_gateways_keep_a_limit_together(store: Store, ann: Browser) -> None:
    key_id = UUID((await make(ann))["id"])
    somebody = Caller(uuid4(), b"hash", key_id, frozenset({READ}))
    here, there = (Limits(10, 1000) for _ in range(2))
    syncs = [KeySync(store.app, KnownKeys(), limits) for limits in (here, there)]
    for _ in range(5):
        here.admit(somebody)
        there.admit(somebody)
    here.charge(somebody, 400)
    there.charge(somebody, 300)
    for sync in (*syncs, *syncs):
        await sync.poll()
    for limits in (here, there):
        with pytest.raises(LimitReached) as caught:
            limits.admit(somebody)
        assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
        # Some have been forgiven since.
        assert 300 <= int(caught.value.headers["x-ratelimit-remaining-tokens"]) < 400


async def test_use_that_could_not_be_told_is_told_later(store: Store, database_url: str) -> None:
    somebody = Caller(uuid4(), b"hash", uuid4(), frozenset({READ}))
    here, there = (Limits(3, None) for _ in range(2))
    gone = await connect((await migrate(database_url))["app"])
    await gone.close()
    for _ in range(2):
        here.admit(somebody)
    await KeySync(gone, KnownKeys(), here).poll()
    there.admit(somebody)
    await KeySync(store.app, KnownKeys(), here).poll()
    await KeySync(store.app, KnownKeys(), there).poll()
    with pytest.raises(LimitReached):
        there.admit(somebody)


async def test_a_limit_is_told_in_headers_and_by_429(store: Store, ann: Browser) -> None:
    key = (await make(ann))["key"]
    async with gateway(store.app, requests_per_minute=2) as api:
        first, second, third = [await use(api, key) for _ in range(3)]
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert third.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-ratelimit-limit-tokens" not in first.headers
        assert 0 < int(third.headers["Retry-After"]) <= 30
        assert third.json()["error"]["code"] == "rate_limit_exceeded"
        other = (await make(ann))["key"]
        assert (await use(api, other)).status_code == 200


async def test_old_keys_and_use_are_purged(store: Store, ann: Browser, superuser: asyncpg.Connection) -> None:
    old, revoked = [(await make(ann))["id"] for _ in range(2)]
    await ann.call("DELETE", f"/api/keys/{revoked}", status=204)
    await superuser.execute(
        "update rustygpt.api_keys set expires_at = now() - interval '31 days' where id = $1", UUID(old)
    )
    await store.worker.value("worker_purge_api_keys", timedelta(days=30), 50)
    left = [key["id"] for key in (await ann.call("GET", "/api/keys"))["keys"]]
    assert old not in left
    assert revoked in left
    await superuser.execute("update rustygpt.api_usage set counted_at = now() - interval '2 days'")
    await store.worker.value("worker_purge_api_usage", timedelta(days=1), 1000)
    assert await superuser.fetchval("select count(*) from rustygpt.api_usage") == 0
