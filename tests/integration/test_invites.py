"""Invitations: for one address, once, for a while."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.integration.browser import Browser, browser
from tests.integration.conftest import HOUR, Store


@pytest.fixture(scope="module")
async def ann(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ann") as opened:
        yield opened


@pytest.fixture(scope="module")
async def ben(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ben") as opened:
        yield opened


@pytest.fixture(scope="module")
async def eve(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "eve") as opened:
        yield opened


@pytest.fixture
async def place(ann: Browser) -> str:
    """Path of a new conversation of Ann's."""
    made = await ann.call("POST", "/api/conversations", {"title": "Invited"}, 201)
    return f"/api/conversations/{made['conversation_id']}"


async def invite(
    host: Browser, place: str, email: str = "ben@example.org", key: str | None = None, **more: object
) -> dict[str, str]:
    """A new invitation."""
    return await host.call("POST", f"{place}/invites", {"email": email} | more, 201, key)


async def states(host: Browser, place: str) -> list[tuple[str, str]]:
    """E-mail address and state of all invitations, the latest first."""
    invites = (await host.call("GET", f"{place}/invites"))["invites"]
    assert not any("token" in name for item in invites for name in item)
    return [(item["email"], item["state"]) for item in invites]


async def lapse(superuser: asyncpg.Connection, invite_id: str) -> None:
    """Lets an invitation's time pass."""
    await superuser.execute(
        "update rustygpt.invites set expires_at = now() - interval '1 second' where id = $1", UUID(invite_id)
    )


async def test_invited_person_takes_part_with_the_invited_role(ann: Browser, ben: Browser, place: str) -> None:
    made = await invite(ann, place, role="viewer")
    assert len(base64.urlsafe_b64decode(made["token"] + "=")) == 32
    accepted = await ben.call("POST", "/api/invites/accept", {"token": made["token"]})
    assert place.endswith(accepted["conversation_id"])
    assert (await ben.call("GET", place))["role"] == "viewer"
    assert await states(ann, place) == [("ben@example.org", "accepted")]


async def test_acceptance_is_told_to_the_conversation_and_the_person(
    store: Store, ann: Browser, ben: Browser, place: str
) -> None:
    made = await invite(ann, place)
    await ben.call("POST", "/api/invites/accept", {"token": made["token"]})
    conversation, ben_id = UUID(place.rpartition("/")[2]), await store.user_id(store.sessions["ben"])
    told = {"conversation_id": str(conversation), "user_id": str(ben_id), "role": "member", "action": "added"}
    assert (await store.events(conversation))[-1][1:] == ("membership.changed", told)
    assert ("membership.changed", told) in [event[1:] for event in await store.events(ben_id)]


async def test_address_is_compared_without_regard_to_case(ann: Browser, ben: Browser, place: str) -> None:
    made = await invite(ann, place, "BEN@Example.ORG")
    await ann.refused(409, "POST", f"{place}/invites", {"email": "ben@example.org"})
    await ben.call("POST", "/api/invites/accept", {"token": made["token"]})


async def test_token_of_another_address_opens_nothing(ann: Browser, eve: Browser, place: str) -> None:
    made = await invite(ann, place)
    assert "another e-mail address" in await eve.refused(403, "POST", "/api/invites/accept", {"token": made["token"]})
    await eve.refused(403, "GET", place)
    assert await states(ann, place) == [("ben@example.org", "live")]


async def test_unknown_token_is_404(ben: Browser) -> None:
    await ben.refused(404, "POST", "/api/invites/accept", {"token": "guess"})
    await ben.refused(404, "POST", "/api/invites/guess/revoke")


async def test_invitation_is_accepted_once(store: Store, ann: Browser, ben: Browser, place: str) -> None:
    ben_id = await store.user_id(store.sessions["ben"])
    for _ in range(5):
        token = {"token": (await invite(ann, place))["token"]}
        accepted = await asyncio.gather(*(ben.http.post("/api/invites/accept", json=token) for _ in range(4)))
        assert sorted(answer.status_code for answer in accepted) == [200, 409, 409, 409]
        await ben.call("DELETE", f"{place}/participants/{ben_id}", status=204)
        await ben.refused(409, "POST", "/api/invites/accept", token)
        await ben.refused(403, "GET", place)


async def test_accepting_again_with_the_same_key_is_answered_alike(ann: Browser, ben: Browser, place: str) -> None:
    token, key = {"token": (await invite(ann, place))["token"]}, str(uuid4())
    first = await ben.call("POST", "/api/invites/accept", token, key=key)
    assert await ben.call("POST", "/api/invites/accept", token, key=key) == first


async def test_participant_is_not_changed_by_an_invitation(
    store: Store, ann: Browser, ben: Browser, place: str
) -> None:
    ben_id = str(await store.user_id(store.sessions["ben"]))
    await ann.call("POST", f"{place}/participants", {"user_id": ben_id, "role": "viewer"}, 204)
    made = await invite(ann, place, role="admin")
    assert "already" in await ben.refused(409, "POST", "/api/invites/accept", {"token": made["token"]})
    assert (await ben.call("GET", place))["role"] == "viewer"


@pytest.mark.parametrize("by", ["id", "token"])
async def test_revoked_invitation_opens_nothing(ann: Browser, ben: Browser, place: str, by: str) -> None:
    made = await invite(ann, place)
    for _ in range(2):  # again: nothing happens
        if by == "id":
            await ann.call("DELETE", f"{place}/invites/{made['invite_id']}", status=204)
        else:
            await ann.call("POST", f"/api/invites/{made['token']}/revoke", status=204)
    await ben.refused(410, "POST", "/api/invites/accept", {"token": made["token"]})
    assert await states(ann, place) == [("ben@example.org", "revoked")]
    await invite(ann, place)
    assert [state for _, state in await states(ann, place)] == ["live", "revoked"]


async def test_accepted_invitation_is_not_revoked(ann: Browser, ben: Browser, place: str) -> None:
    made = await invite(ann, place)
    await ben.call("POST", "/api/invites/accept", {"token": made["token"]})
    assert "accepted" in await ann.refused(409, "DELETE", f"{place}/invites/{made['invite_id']}")


async def test_invitation_of_another_conversation_is_404(ann: Browser, place: str) -> None:
    made = await invite(ann, place)
    other = (await ann.call("POST", "/api/conversations", {"title": "Other"}, 201))["conversation_id"]
    await ann.refused(404, "DELETE", f"/api/conversations/{other}/invites/{made['invite_id']}")


async def test_expired_invitation_opens_nothing_and_makes_room(
    superuser: asyncpg.Connection, ann: Browser, ben: Browser, place: str
) -> None:
    made = await invite(ann, place)
    await ann.refused(409, "POST", f"{place}/invites", {"email": "ben@example.org"})
    await lapse(superuser, made["invite_id"])
    assert await states(ann, place) == [("ben@example.org", "expired")]
    await ben.refused(410, "POST", "/api/invites/accept", {"token": made["token"]})
    renewed = await invite(ann, place)
    assert [state for _, state in await states(ann, place)] == ["live", "expired"]
    await ben.call("POST", "/api/invites/accept", {"token": renewed["token"]})


async def test_invitation_ends_with_its_conversation(ann: Browser, ben: Browser, place: str) -> None:
    made = await invite(ann, place)
    await ann.call("DELETE", place, status=204)
    await ben.refused(410, "POST", "/api/invites/accept", {"token": made["token"]})


async def test_only_admins_invite_list_and_revoke(store: Store, ann: Browser, eve: Browser, place: str) -> None:
    made = await invite(ann, place)
    calls = (
        ("POST", f"{place}/invites", {"email": "new@example.org"}),
        ("GET", f"{place}/invites", None),
        ("DELETE", f"{place}/invites/{made['invite_id']}", None),
        ("POST", f"/api/invites/{made['token']}/revoke", None),
    )
    eve_id = str(await store.user_id(store.sessions["eve"]))
    for role in (None, "viewer", "member"):
        if role == "viewer":
            await ann.call("POST", f"{place}/participants", {"user_id": eve_id, "role": role}, 204)
        elif role == "member":
            await ann.call("PATCH", f"{place}/participants/{eve_id}", {"role": role})
        for method, path, body in calls:
            await eve.refused(403, method, path, body)
    await ann.call("PATCH", f"{place}/participants/{eve_id}", {"role": "admin"})
    assert await states(eve, place) == [("ben@example.org", "live")]


@pytest.mark.parametrize(
    "body",
    [
        {"email": "ben"},
        {"email": "ben@example.org", "role": "owner"},
        {"email": "ben@example.org", "ttl_seconds": 59},
        {"email": "ben@example.org", "ttl_seconds": 30 * 86_400 + 1},
    ],
)
async def test_impossible_invitations_are_refused(ann: Browser, place: str, body: dict[str, object]) -> None:
    await ann.refused(422, "POST", f"{place}/invites", body)


async def test_same_key_gives_the_same_token_again(ann: Browser, place: str) -> None:
    key = str(uuid4())
    first = await invite(ann, place, key=key)
    assert await invite(ann, place, key=key) == first
    assert len(await states(ann, place)) == 1
    other = await invite(ann, place, "new@example.org", key=str(uuid4()))
    assert other["token"] != first["token"]


async def test_token_is_not_told_to_a_later_session(store: Store, ann: Browser, place: str) -> None:
    key, ann_id = str(uuid4()), await store.user_id(store.sessions["ann"])
    first = await invite(ann, place, key=key)
    later = hashlib.sha256(b"ann later").digest()
    await store.call("open_session", ann_id, later, "csrf", HOUR, HOUR, 5)
    async with browser(store, "ann", token="ann later") as again:
        sentence = await again.refused(409, "POST", f"{place}/invites", {"email": "ben@example.org"}, key)
    assert "earlier session" in sentence
    assert first["token"] not in sentence


async def test_database_holds_no_token(superuser: asyncpg.Connection, ann: Browser, place: str) -> None:
    tokens = [(await invite(ann, place, f"{key}@example.org", key=key))["token"] for key in ("k1", "k2")]
    tables = await superuser.fetch(
        "select table_name from information_schema.tables where table_schema = 'rustygpt' and table_type = 'BASE TABLE'"
    )
    assert {"invites", "idempotency_keys", "events"} <= {row["table_name"] for row in tables}
    for row in tables:
        for token in tokens:
            digest = hashlib.sha256(token.encode()).digest()
            held = await superuser.fetchval(
                f"select count(*) from rustygpt.{row['table_name']} t where strpos(t::text, $1) > 0", token
            )
            assert held == 0, row["table_name"]
            if row["table_name"] == "invites":
                assert await superuser.fetchval("select count(*) from rustygpt.invites where token_hash = $1", digest)


async def test_lifetime_is_what_was_asked_for(superuser: asyncpg.Connection, ann: Browser, place: str) -> None:
    made = await invite(ann, place, ttl_seconds=3600)
    row = await superuser.fetchrow(
        "select created_at, expires_at from rustygpt.invites where id = $1", UUID(made["invite_id"])
    )
    assert row is not None
    assert row["expires_at"] - row["created_at"] == timedelta(hours=1)


async def test_pages_of_invitations_have_each_once(ann: Browser, place: str) -> None:
    made = [(await invite(ann, place, f"p{number}@example.org"))["invite_id"] for number in range(5)]
    found, mark = [], ""
    while mark is not None:
        page = await ann.call("GET", f"{place}/invites?limit=2" + (f"&before={mark}" if mark else ""))
        found += [item["id"] for item in page["invites"]]
        mark = page["next_before"]
    assert sorted(found, reverse=True) == found
    assert sorted(found) == sorted(made)
