"""Who is there and who types, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.integration.conftest import HOUR, Store
from tests.integration.test_access import refused
from tests.integration.together import end_of_inbox, inbox, join, lock_is_waited_for, together

NONE = timedelta(0)
LONGEST = 9.0


async def beat(store: Store, session: bytes, status: str = "online") -> None:
    await store.call("heartbeat", session, status)


async def age(store: Store, away: timedelta, offline: timedelta) -> int:
    """What the timer does; nobody else is there to be aged in a test that counts."""
    return await store.worker.value("worker_age_presence", away, offline, 50)


async def told(store: Store, session: bytes, after: int) -> list[tuple[str, str]]:
    """Presence that an inbox tells: whose and what."""
    events = await inbox(store, session, after)
    return [(p["user_id"], p["status"]) for _, kind, p in events if kind == "presence.update"]


async def presence(store: Store, session: bytes, conversation: UUID) -> dict[str, str]:
    listed = await store.call("list_presence", session, conversation)
    return {person["user_id"]: person["status"] for person in listed["presence"]}


@pytest.fixture(scope="module")
async def cat(store: Store) -> bytes:
    return await store.person("cat")


@pytest.fixture
async def nobody_there(store: Store, cat: bytes) -> None:
    for session in store.sessions.values():
        await beat(store, session, "offline")


async def test_change_is_told_to_exactly_the_people_concerned(store: Store, cat: bytes, nobody_there: None) -> None:
    ann, ben, _ = await together(store)
    ann_id = str(await store.user_id(ann))
    ends = {name: await end_of_inbox(store, session) for name, session in store.sessions.items()}
    for status in ("online", "online", "away", "away", "offline"):
        await beat(store, ann, status)
    seen = [(ann_id, "online"), (ann_id, "away"), (ann_id, "offline")]
    assert await told(store, ben, ends["ben"]) == seen
    assert await told(store, ann, ends["ann"]) == seen, "her other devices"
    assert await told(store, cat, ends["cat"]) == []


async def test_who_left_hears_nothing_more(store: Store, cat: bytes, nobody_there: None) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await join(store, ann, conversation, cat)
    await store.call("remove_participant", ann, conversation, await store.user_id(cat))
    end = await end_of_inbox(store, cat)
    await beat(store, ann)
    assert await told(store, cat, end) == []


async def test_silence_makes_away_then_offline(store: Store, nobody_there: None) -> None:
    ann, ben, conversation = await together(store)
    ann_id = str(await store.user_id(ann))
    await beat(store, ann)
    end = await end_of_inbox(store, ben)
    assert await age(store, HOUR, HOUR) == 0
    assert await age(store, NONE, HOUR) == 1
    assert await age(store, NONE, HOUR) == 0
    assert (await presence(store, ben, conversation))[ann_id] == "away"
    assert await age(store, NONE, NONE) == 1
    assert await told(store, ben, end) == [(ann_id, "away"), (ann_id, "offline")]


async def test_several_timers_at_once_tell_once(
    store: Store, superuser: asyncpg.Connection, nobody_there: None
) -> None:
    ann, ben, _ = await together(store)
    await beat(store, ann)
    await beat(store, ben)
    end = await end_of_inbox(store, ben)
    async with superuser.transaction():
        assert await superuser.fetchval("select rustygpt.worker_age_presence($1, $2, 50)", NONE, HOUR) == 2
        async with asyncio.timeout(5):
            assert await age(store, NONE, HOUR) == 0
    ids = {str(await store.user_id(ann)), str(await store.user_id(ben))}
    assert sorted(await told(store, ben, end)) == [(person, "away") for person in sorted(ids)]


async def test_posting_is_a_sign_of_presence(store: Store, nobody_there: None) -> None:
    ann, ben, conversation = await together(store)
    await store.post(ann, conversation, "Hello")
    assert (await presence(store, ben, conversation))[str(await store.user_id(ann))] == "online"


async def test_list_and_events_after_its_cursor_are_complete(
    store: Store, superuser: asyncpg.Connection, cat: bytes, nobody_there: None
) -> None:
    """A beat that is under way when somebody joins does not know of them: the list must wait for it."""
    ann, _, conversation = await together(store)
    ann_id = str(await store.user_id(ann))
    async with superuser.transaction():
        await superuser.execute("select rustygpt.beat($1, 'away')", UUID(ann_id))
        await join(store, ann, conversation, cat)
        listing = asyncio.create_task(store.call("list_presence", cat, conversation))
        await lock_is_waited_for(superuser)
    listed = await listing
    shown = {person["user_id"]: person["status"] for person in listed["presence"]}
    shown |= dict(await told(store, cat, int(listed["cursor"])))
    assert shown[ann_id] == "away"


async def test_people_who_were_never_there_are_offline(store: Store) -> None:
    ann = store.sessions["ann"]
    new = await store.person("dan")
    conversation = await store.conversation(ann)
    await join(store, ann, conversation, new, "viewer")
    listed = (await store.call("list_presence", new, conversation))["presence"]
    [dan] = [person for person in listed if person["user_id"] == str(await store.user_id(new))]
    assert (dan["status"], dan["last_seen_at"]) == ("offline", None)


async def type_for(
    store: Store, session: bytes, conversation: UUID, seconds: float, root: str | None = None
) -> list[dict[str, Any]]:
    """Says that somebody types; what the conversation was told of it."""
    before = await store.events(conversation)
    await store.call("set_typing", session, conversation, UUID(root) if root else None, seconds, LONGEST)
    after = await store.events(conversation, before[-1][0])
    assert {kind for _, kind, _ in after} <= {"typing.update"}
    return [payload for _, _, payload in after]


def seconds_left(payload: dict[str, Any]) -> float:
    return (datetime.fromisoformat(payload["expires_at"]) - datetime.now(UTC)).total_seconds()


async def test_typing_is_told_to_the_conversation(store: Store) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "Hello"))["root_id"]
    [payload] = await type_for(store, ben, conversation, 4, root)
    ben_id = str(await store.user_id(ben))
    assert (payload["conversation_id"], payload["root_id"], payload["user_id"]) == (str(conversation), root, ben_id)
    assert 4 < seconds_left(payload) <= 6
    listed = await store.call("list_typing", ann, conversation)
    assert listed["typing"] == [{k: payload[k] for k in ("root_id", "user_id", "expires_at")}]
    assert int(listed["cursor"]) == (await store.events(conversation))[-1][0]


async def test_burst_of_typing_is_one_event(store: Store) -> None:
    ann, _, conversation = await together(store)
    assert sum([len(await type_for(store, ann, conversation, 4)) for _ in range(5)]) == 1


async def test_nobody_is_shown_as_having_stopped_who_has_not(store: Store, superuser: asyncpg.Connection) -> None:
    ann, _, conversation = await together(store)
    await type_for(store, ann, conversation, 4)
    # What readers were told ends in 3 s, before the renewal does.
    passed = "update rustygpt.typing set expires_at = now() + interval '3 seconds' where conversation_id = $1"
    await superuser.execute(passed, conversation)
    [payload] = await type_for(store, ann, conversation, 4)
    assert seconds_left(payload) > 4


async def test_typing_is_capped(store: Store) -> None:
    ann, _, conversation = await together(store)
    [payload] = await type_for(store, ann, conversation, 3600)
    assert seconds_left(payload) <= LONGEST


async def test_end_of_typing_is_told_once(store: Store) -> None:
    ann, _, conversation = await together(store)
    await type_for(store, ann, conversation, 4)
    [payload] = await type_for(store, ann, conversation, 0)
    assert seconds_left(payload) <= 0
    assert await type_for(store, ann, conversation, -1) == []
    assert (await store.call("list_typing", ann, conversation))["typing"] == []


async def test_post_ends_the_authors_typing_in_that_thread(store: Store) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "Hello"))["root_id"]
    for session in (ann, ben):
        await type_for(store, session, conversation, 4, root)
    await type_for(store, ben, conversation, 4)
    end = (await store.events(conversation))[-1][0]
    await store.reply(ben, root, "Hi")
    ben_id = str(await store.user_id(ben))
    ended = [p for _, kind, p in await store.events(conversation, end) if kind == "typing.update"]
    assert [(p["root_id"], p["user_id"], seconds_left(p) <= 0) for p in ended] == [(root, ben_id, True)]
    left = (await store.call("list_typing", ann, conversation))["typing"]
    assert sorted((t["root_id"] or "", t["user_id"]) for t in left) == [
        ("", ben_id),
        (root, str(await store.user_id(ann))),
    ]


async def test_typing_takes_a_member_and_a_thread_of_the_conversation(store: Store, cat: bytes) -> None:
    ann, _, conversation = await together(store)
    reply = await store.reply(ann, (await store.post(ann, conversation, "1"))["root_id"], "2")
    elsewhere = await store.post(ann, await store.conversation(ann), "elsewhere")
    await refused(403, type_for(store, cat, conversation, 4))
    await join(store, ann, conversation, cat, "viewer")
    await refused(403, type_for(store, cat, conversation, 4))
    for root in (reply["message_id"], elsewhere["root_id"], str(uuid4())):
        await refused(404, type_for(store, ann, conversation, 4, root))


async def test_past_typing_is_purged(store: Store, superuser: asyncpg.Connection) -> None:
    ann, _, conversation = await together(store)
    await type_for(store, ann, conversation, 4)
    await superuser.execute("update rustygpt.typing set expires_at = now() - interval '1 second'")
    assert (await store.call("list_typing", ann, conversation))["typing"] == []
    assert await store.worker.value("worker_purge_typing", 50) >= 1
    assert await superuser.fetchval("select count(*) from rustygpt.typing") == 0


async def test_writers_of_all_kinds_wait_for_each_other_in_one_order(store: Store, cat: bytes) -> None:
    """A deadlock would end one of them with an error."""
    people = [*store.sessions.values()]
    places = []
    for number in range(3):
        conversation = await store.conversation(people[number])
        await store.settings(people[number], conversation, reply_mode="never")
        for person in people:
            if person is not people[number]:
                await join(store, people[number], conversation, person)
        places.append((conversation, UUID((await store.post(people[0], conversation, "Hello"))["root_id"])))

    async def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(25):
            person, (conversation, root) = chance.choice(people), chance.choice(places)
            kind = chance.randrange(7)
            if kind == 0:
                await store.post(person, conversation, "More")
            elif kind == 1:
                await store.reply(person, str(root), "More")
            elif kind == 2:
                await beat(store, person, chance.choice(["online", "away", "offline"]))
            elif kind == 3:
                await age(store, NONE, NONE)
            elif kind == 4:
                await store.call("mark_read", person, root, None)
            elif kind == 5:
                await store.call("list_presence", person, conversation)
            else:
                await store.call("set_typing", person, conversation, None, chance.choice([0, 1, 5]), LONGEST)

    await asyncio.gather(*(work(number) for number in range(8)))
