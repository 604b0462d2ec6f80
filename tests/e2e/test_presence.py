"""Presence, typing and unread counts over HTTP, kept by the running product's timers and told by its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import asyncpg

from tests.support.person import Event, Person
from tests.support.product import Product


def next_of(stream: Iterator[Event], kind: str) -> dict[str, object]:
    """Payload of the next event of a kind."""
    return next(event.payload for event in stream if event.type == kind)


def execute(url: str, statement: str, *args: object) -> None:
    """What no product's role can do: to let time pass."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement, *args)
        await connection.close()

    asyncio.run(run())


def be_silent(postgres: str, person: Person, seconds: int) -> None:
    statement = "update rustygpt.presence set last_seen_at = now() - make_interval(secs => $2) where user_id = $1"
    execute(postgres, statement, UUID(person.id), seconds)


def test_silence_is_told_by_timers_that_survive_the_actors_death(
    product: Product, admin: Person, postgres: str
) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(ben)
    listed = ann.call("GET", f"/api/presence?conversation_id={conversation}")
    assert {p["user_id"]: p["status"] for p in listed["presence"]} == {ann.id: "offline", ben.id: "offline"}
    with ann.stream("me", listed["cursor"]) as stream:
        ben.call("POST", "/api/presence/heartbeat", status=204)
        assert next_of(stream, "presence.update")["status"] == "online"
        be_silent(postgres, ben, 46)
        told = next_of(stream, "presence.update")
        assert (told["user_id"], told["status"]) == (ben.id, "away")
        product.actor("PostgresAccess").kill()
        be_silent(postgres, ben, 301)
        assert next_of(stream, "presence.update")["status"] == "offline"


def test_typing_is_seen_by_others_and_ends_with_the_post(admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(ben)
    listed = ann.call("GET", f"/api/conversations/{conversation}/typing")
    assert listed["typing"] == []
    with ann.stream(conversation, listed["cursor"]) as stream:
        notice = {"conversation_id": conversation, "root_id": None, "seconds": 5}
        ben.call("POST", "/api/typing", notice, 204)
        begun = next_of(stream, "typing.update")
        ben.ask(conversation, "Hello")
        ended = next_of(stream, "typing.update")
    assert begun["user_id"] == ended["user_id"] == ben.id
    assert str(ended["expires_at"]) < str(begun["expires_at"])
    ben.call("POST", "/api/typing", notice | {"seconds": "inf"}, 422)


def test_unread_count_rises_by_posts_and_falls_by_reading_on_any_device(admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(ben)
    listed = ben.call("GET", f"/api/conversations/{conversation}/unread")
    assert listed["threads"] == []
    with ben.stream("me", listed["cursor"]) as stream:
        root = ann.ask(conversation, "Hello")["root_id"]
        told = next_of(stream, "unread.update")
        assert (told["root_id"], told["unread"]) == (root, 1)
        while told["unread"] != 2:  # the answer
            told = next_of(stream, "unread.update")
        assert ben.call("POST", f"/api/threads/{root}/read") == {"root_id": root, "unread": 0}
        assert next_of(stream, "unread.update")["unread"] == 0
    assert ben.call("GET", f"/api/conversations/{conversation}/unread")["threads"] == []


def test_cursor_older_than_retention_gets_one_reset(product: Product, admin: Person, postgres: str) -> None:
    ann = admin.invite()
    conversation = ann.converse()
    ann.call("POST", f"/api/threads/{conversation}/root", {"content": "Hello"}, 201)
    old = "update rustygpt.events set created_at = now() - interval '3 days' where channel_id = $1 and \"offset\" = 1"
    execute(postgres, old, UUID(conversation))

    def is_reset() -> None:
        with ann.stream(conversation, "0") as stream:
            assert [next(stream).type] == ["stream.reset"]

    # Retention looks once a minute, and first when its actor starts.
    product.actor("PostgresAccess").kill()
    ann.patiently(is_reset, 90)
