"""Conversations: the list, settings, roles and the end of them, as the stored functions keep them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from db.errors import RefusedError
from tests.integration.conftest import HOUR, Store
from tests.integration.test_access import refused

NEW = ("Tests", False, "{}")


async def change(store: Store, session: bytes, conversation: UUID, **changes: Any) -> dict[str, Any]:
    """What PATCH does."""
    return await store.call("change_conversation", session, conversation, orjson.dumps(changes).decode())


async def titled(store: Store, session: bytes, title: str) -> UUID:
    """A new conversation."""
    made = await store.call("create_conversation", session, None, title, False, "{}")
    return UUID(made["conversation_id"])


async def listed(store: Store, session: bytes, query: str | None = None, archived: bool | None = False) -> list[str]:
    """Titles of somebody's conversations."""
    page = await store.call("list_conversations", session, query, archived, None, None, 100)
    return [item["title"] for item in page["conversations"]]


async def add(store: Store, session: bytes, conversation: UUID, other: str, role: str = "member") -> UUID:
    """Adds somebody; whom."""
    user_id = await store.user_id(store.sessions[other])
    await store.call("add_participant", session, None, conversation, user_id, role)
    return user_id


@pytest.fixture
async def ann(store: Store) -> bytes:
    return store.sessions["ann"]


@pytest.fixture
async def ben(store: Store) -> bytes:
    return store.sessions["ben"]


@pytest.fixture(scope="module")
async def cat(store: Store) -> bytes:
    return await store.person("cat")


async def test_list_shows_newest_activity_first(store: Store) -> None:
    dan = await store.person("dan")
    first, _ = await titled(store, dan, "First"), await titled(store, dan, "Second")
    assert await listed(store, dan) == ["Second", "First"]
    await store.ask(dan, first)
    assert await listed(store, dan) == ["First", "Second"]


async def test_pages_of_the_list_have_every_conversation_once(store: Store) -> None:
    eve = await store.person("eve")
    titles = [f"Number {number}" for number in range(7)]
    for title in titles:
        await titled(store, eve, title)
    found, at, last = [], None, None
    while True:
        page = await store.call("list_conversations", eve, None, False, at, last, 3)
        found += [item["title"] for item in page["conversations"]]
        if page["next_before"] is None:
            break
        mark, _, identifier = page["next_before"].partition(",")
        at, last = datetime.fromisoformat(mark), UUID(identifier)
    assert found == titles[::-1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("holi", ["Holidays 100%"]), ("HOLI", ["Holidays 100%"]), ("%", ["Holidays 100%"]), ("_", ["snake_case"]),
     ("ÄRGER", ["ärger"]), ("x", [])],
)  # fmt: skip
async def test_titles_are_searched_for_the_text_as_it_is(store: Store, query: str, expected: list[str]) -> None:
    if "fay" not in store.sessions:
        fay = await store.person("fay")
        for title in ("Holidays 100%", "snake_case", "ärger"):
            await titled(store, fay, title)
    assert await listed(store, store.sessions["fay"], query) == expected


async def test_archived_conversations_are_listed_apart(store: Store) -> None:
    gil = await store.person("gil")
    old, _ = await titled(store, gil, "Old"), await titled(store, gil, "New")
    archived = await change(store, gil, old, archived=True)
    assert archived["archived_at"]
    assert await listed(store, gil) == ["New"]
    assert await listed(store, gil, archived=True) == ["Old"]
    assert await listed(store, gil, archived=None) == ["Old", "New"]
    assert (await change(store, gil, old, archived=True))["archived_at"] == archived["archived_at"]
    assert (await change(store, gil, old, archived=False))["archived_at"] is None
    assert await listed(store, gil) == ["Old", "New"]


async def test_settings_are_kept_and_null_resets_them(store: Store, ann: bytes) -> None:
    settings = {"model": "default", "system_prompt": "Be brief.", "temperature": 0.7, "reply_mode": "mentioned"}
    made = await store.call("create_conversation", ann, None, "Settings", True, orjson.dumps(settings).decode())
    conversation = UUID(made["conversation_id"])
    held = await store.call("get_conversation", ann, conversation)
    assert {name: held[name] for name in settings} == settings
    assert held["is_group"]
    changed = await change(store, ann, conversation, temperature=None, model=None, reply_mode="never", is_group=False)
    assert (changed["model"], changed["temperature"], changed["reply_mode"]) == (None, None, "never")
    assert (changed["system_prompt"], changed["title"], changed["is_group"]) == ("Be brief.", "Settings", False)


async def test_members_rename_and_admins_change_the_rest(store: Store, ann: bytes, ben: bytes) -> None:
    conversation = await titled(store, ann, "Roles")
    ben_id = await add(store, ann, conversation, "ben", "viewer")
    await refused(403, change(store, ben, conversation, title="Mine"))
    await store.call("change_role", ann, conversation, ben_id, "member")
    assert (await change(store, ben, conversation, title="Ours"))["title"] == "Ours"
    for changes in ({"archived": True}, {"system_prompt": "a"}, {"title": "a", "reply_mode": "never"}, {"model": None}):
        await refused(403, change(store, ben, conversation, **changes))
    await store.call("change_role", ann, conversation, ben_id, "admin")
    assert (await change(store, ben, conversation, reply_mode="never"))["reply_mode"] == "never"
    await refused(403, store.call("delete_conversation", ben, conversation))


async def test_a_change_is_told_to_the_conversation_and_every_inbox(store: Store, ann: bytes, cat: bytes) -> None:
    conversation = await titled(store, ann, "Before")
    cat_id, ann_id = await add(store, ann, conversation, "cat"), await store.user_id(ann)
    await change(store, ann, conversation, title="After", system_prompt="Be brief.")
    for channel in (conversation, cat_id, ann_id):
        _, kind, payload = (await store.events(channel))[-1]
        assert kind == "conversation.updated"
        told = payload["conversation"]
        assert told["id"] == str(conversation)
        assert (told["title"], told["system_prompt"], told["deleted_at"]) == ("After", "Be brief.", None)
        assert set(told) == {
            "id", "title", "is_group", "archived_at", "deleted_at", "model", "system_prompt", "temperature",
            "reply_mode", "updated_at",
        }  # fmt: skip


def fold(conversations: dict[str, dict[str, Any]], own_id: str, kind: str, payload: dict[str, Any]) -> None:
    """What a client makes of an inbox's event: its list stays true without asking again."""
    if kind == "membership.changed" and payload["user_id"] == own_id:
        if payload["action"] == "removed":
            del conversations[payload["conversation_id"]]
        else:
            conversations.setdefault(payload["conversation_id"], {})["role"] = payload["role"]
    elif kind == "conversation.updated":
        told = payload["conversation"]
        if told["deleted_at"]:
            conversations.pop(told["id"], None)
        else:
            conversations[told["id"]].update({k: v for k, v in told.items() if k not in ("id", "deleted_at")})
    elif kind == "unread.update":
        conversations[payload["conversation_id"]]["updated_at"] = payload["last_activity_at"]


async def test_list_can_be_kept_true_from_events_alone(store: Store, ann: bytes) -> None:
    hal = await store.person("hal")
    hal_id = await store.user_id(hal)
    await titled(store, hal, "There before")

    async def page() -> tuple[dict[str, dict[str, Any]], int]:
        answer = await store.call("list_conversations", hal, None, None, None, None, 100)
        items = {item["id"]: item for item in answer["conversations"]}
        for item in items.values():
            for name in ("id", "unread", "created_at", "imported_at"):
                del item[name]
        return items, int(answer["cursor"])

    held, cursor = await page()
    mine, gone, shared = (
        await titled(store, hal, "Mine"),
        await titled(store, hal, "Gone"),
        await titled(store, ann, "S"),
    )
    await store.call("add_participant", ann, None, shared, hal_id, "member")
    await change(store, ann, shared, title="Shared", temperature=1.5)
    await store.call("change_role", ann, shared, hal_id, "admin")
    await change(store, hal, mine, archived=True)
    left = await titled(store, ann, "Left")
    await store.call("add_participant", ann, None, left, hal_id, "viewer")
    await store.call("remove_participant", hal, left, hal_id)
    await change(store, ann, left, title="Not for Hal")
    await store.answer(await store.ask(ann, shared))
    await store.call("delete_conversation", hal, gone)
    for _, kind, payload in await store.events(hal_id, cursor):
        fold(held, str(hal_id), kind, payload)
    assert held == (await page())[0]
    assert {item["title"] for item in held.values()} == {"There before", "Mine", "Shared"}


async def test_deleted_conversation_is_gone_for_everybody(store: Store, ann: bytes, ben: bytes) -> None:
    conversation = await titled(store, ann, "Doomed")
    ben_id = await add(store, ann, conversation, "ben", "admin")
    posted = await store.ask(ann, conversation)
    root = UUID(posted["root_id"])
    await refused(403, store.call("delete_conversation", ben, conversation))
    await store.call("delete_conversation", ann, conversation)
    for session in (ann, ben):
        assert "Doomed" not in await listed(store, session, archived=None)
        for name, args in {
            "get_conversation": (conversation,),
            "list_participants": (conversation,),
            "list_invites": (conversation, None, 10),
            "list_threads": (conversation, None, None, 10),
            "get_tree": (root, None, None, 10),
            "change_conversation": (conversation, '{"title": "Back"}'),
            "add_participant": (None, conversation, ben_id, "member"),
            "remove_participant": (conversation, ben_id),
            "delete_conversation": (conversation,),
            "post_root": (HOUR, None, conversation, "hello", ["default"], HOUR),
            "reply": (HOUR, None, root, "hello", ["default"], HOUR),
            "search": ("Hello", conversation, None, None, None, 10),
            "stream_open": (HOUR, conversation),
        }.items():
            assert await refused(403, store.call(name, session, *args)) == "RGP.RBAC.FORBIDDEN", name
        with pytest.raises(RefusedError):
            await store.app.rows("export", session, conversation)
    for channel in (conversation, ben_id):
        _, kind, payload = (await store.events(channel))[-1]
        assert kind == "conversation.updated"
        assert payload["conversation"]["deleted_at"]


async def test_streams_on_a_deleted_conversation_are_revoked(store: Store, ann: bytes) -> None:
    kept, doomed = await titled(store, ann, "Kept"), await titled(store, ann, "Doomed")
    assert await store.call("stream_recheck", [ann, ann], [kept, doomed]) == []
    await store.call("delete_conversation", ann, doomed)
    assert await store.call("stream_recheck", [ann, ann], [kept, doomed]) == [2]


async def test_deleting_ends_answers_that_are_being_written(store: Store, ann: bytes) -> None:
    conversation = await titled(store, ann, "Busy")
    running, queued = await store.ask(ann, conversation), await store.ask(ann, conversation)
    [claim] = await store.claim("replica", running["assistant_message_id"])
    await store.append(claim, 0, "Once upon")
    await store.call("delete_conversation", ann, conversation)
    ends = {
        payload["message_id"]: payload["finish_reason"]
        for _, kind, payload in await store.events(conversation)
        if kind == "message.done"
    }
    assert ends == {running["assistant_message_id"]: "cancelled", queued["assistant_message_id"]: "cancelled"}
    assert await store.append(claim, 1, " a time") == [[claim["message_id"], "lost"]]
    assert not await store.finish(claim)
    assert await store.claim("replica", queued["assistant_message_id"]) == []


@pytest.mark.parametrize(
    ("actor", "target", "role", "status"),
    [
        ("viewer", "member", "viewer", 403),
        ("member", "viewer", "member", 403),
        ("admin", "member", "admin", None),
        ("admin", "viewer", "member", None),
        ("admin", "admin", "member", None),  # oneself
        ("admin", "member", "owner", 403),
        ("admin", "owner", "member", 403),
        ("owner", "member", "owner", None),
        ("owner", "admin", "viewer", None),
        ("owner", "owner", "member", 409),  # the last one
    ],
)
async def test_who_may_change_whose_role(store: Store, actor: str, target: str, role: str, status: int | None) -> None:
    conversation = await titled(store, store.sessions["ann"], "Roles")
    people = {"owner": store.sessions["ann"]}
    for name in ("admin", "member", "viewer"):
        people[name] = store.sessions.get(name) or await store.person(name)
        await add(store, people["owner"], conversation, name, name)
    target_id = await store.user_id(people[target])
    attempt = store.call("change_role", people[actor], conversation, target_id, role)
    if status is not None:
        await refused(status, attempt)
    else:
        assert (await attempt)["role"] == role
    participants = (await store.call("list_participants", people["viewer"], conversation))["participants"]
    held = {item["username"]: item["role"] for item in participants}["ann" if target == "owner" else target]
    assert held == (target if status else role)


async def test_a_new_role_is_told_to_the_conversation_and_the_person(store: Store, ann: bytes) -> None:
    conversation = await titled(store, ann, "Roles")
    ben_id = await add(store, ann, conversation, "ben")
    before = len(await store.events(conversation))
    await store.call("change_role", ann, conversation, ben_id, "member")
    assert len(await store.events(conversation)) == before
    await store.call("change_role", ann, conversation, ben_id, "viewer")
    for channel in (conversation, ben_id):
        assert (await store.events(channel))[-1][1:] == (
            "membership.changed",
            {"conversation_id": str(conversation), "user_id": str(ben_id), "role": "viewer", "action": "role_updated"},
        )


async def test_two_owners_who_leave_at_once_do_not_both_go(store: Store, ann: bytes, ben: bytes) -> None:
    for _ in range(5):
        conversation = await titled(store, ann, "Two owners")
        ben_id, ann_id = await add(store, ann, conversation, "ben", "owner"), await store.user_id(ann)
        left = await asyncio.gather(
            store.call("remove_participant", ann, conversation, ann_id),
            store.call("change_role", ben, conversation, ben_id, "member"),
            return_exceptions=True,
        )
        assert sorted(getattr(result, "status", 0) for result in left) == [0, 409]


async def test_admins_add_no_owner_and_remove_none(store: Store, ann: bytes, ben: bytes, cat: bytes) -> None:
    conversation = await titled(store, ann, "Roles")
    await add(store, ann, conversation, "ben", "admin")
    cat_id, ann_id = await store.user_id(cat), await store.user_id(ann)
    await refused(403, store.call("add_participant", ben, None, conversation, cat_id, "owner"))
    await refused(403, store.call("remove_participant", ben, conversation, ann_id))
    await store.call("add_participant", ben, None, conversation, cat_id, "admin")
    await refused(409, store.call("add_participant", ben, None, conversation, cat_id, "viewer"))
    await store.call("remove_participant", ben, conversation, cat_id)
    await refused(404, store.call("remove_participant", ben, conversation, cat_id))
    await refused(403, store.call("get_conversation", cat, conversation))


async def test_an_owner_who_left_comes_back_as_what_an_admin_says(store: Store, ann: bytes, ben: bytes) -> None:
    conversation = await titled(store, ann, "Roles")
    await add(store, ann, conversation, "ben", "owner")
    ann_id = await store.user_id(ann)
    await store.call("remove_participant", ann, conversation, ann_id)
    cat_id = await add(store, ben, conversation, "cat", "admin")
    await store.call("add_participant", store.sessions["cat"], None, conversation, ann_id, "viewer")
    participants = (await store.call("list_participants", ann, conversation))["participants"]
    roles = {item["user_id"]: item["role"] for item in participants}
    assert (roles[str(ann_id)], roles[str(cat_id)]) == ("viewer", "admin")


async def test_creating_again_with_the_same_key_creates_nothing(store: Store, ann: bytes) -> None:
    once = ["create-1", "fingerprint"]
    first = await store.call("create_conversation", ann, once, *NEW)
    assert await store.call("create_conversation", ann, once, *NEW) == first
    code = await refused(422, store.call("create_conversation", ann, ["create-1", "another"], *NEW))
    assert code == "RGP.IDEMPOTENCY.MISMATCH"
    other = await store.call("create_conversation", store.sessions["ben"], once, *NEW)
    assert other["conversation_id"] != first["conversation_id"]


async def test_adding_again_with_the_same_key_adds_nobody_twice(store: Store, ann: bytes, ben: bytes) -> None:
    conversation = await titled(store, ann, "Once")
    ben_id = await store.user_id(ben)
    once = ["add-1", "fingerprint"]
    for _ in range(2):
        await store.call("add_participant", ann, once, conversation, ben_id, "member")
    added = [payload for _, kind, payload in await store.events(conversation) if kind == "membership.changed"]
    assert [payload["user_id"] for payload in added].count(str(ben_id)) == 1
