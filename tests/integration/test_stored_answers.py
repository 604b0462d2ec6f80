"""Stored answers of /v1 as the stored functions have them, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from db.errors import RefusedError
from db.timers import Timers
from deployments.generation import ASK, Ask, Sampling
from deployments.model.claim import Claim
from tests.integration.conftest import HOUR, Store
from tests.integration.test_timers import SETTINGS
from tests.integration.together import end_of_inbox, inbox, join, lock_is_waited_for, together

NONE = timedelta(0)
ASKED = Ask(messages=({"role": "user", "content": "Hello?"},), sampling=Sampling(seed=7, stop=("END",)), user="ann")


async def begin(
    store: Store,
    session: bytes,
    once: list[str] | None = None,
    shown: dict[str, Any] | None = None,
    model: str = "default",
    ask: Ask = ASKED,
    deadline: timedelta = HOUR,
) -> dict[str, Any]:
    """A new stored chat; {"is_new", "answer"}."""
    asked, echoed = ASK.dump_json(ask).decode(), orjson.dumps(shown or {}).decode()
    return await store.call("create_response", session, HOUR, once, "chat", model, asked, echoed, False, deadline)


async def stored(store: Store, session: bytes, **options: Any) -> str:
    """The same; its message id."""
    return (await begin(store, session, **options))["answer"]["message_id"]


async def answered(store: Store, session: bytes, *texts: str, reason: str = "stop", **options: Any) -> str:
    """One that was written; its message id."""
    message = await stored(store, session, **options)
    [claim] = await store.claim("replica", message, model=options.get("model", "default"))
    for number, text in enumerate(texts or ("Hello!",)):
        await store.append(claim, number, text)
    assert await store.finish(claim, reason)
    return message


async def read(store: Store, session: bytes, message: str, kind: str = "chat") -> dict[str, Any]:
    """As its owner reads it."""
    return await store.call("read_response", session, HOUR, kind, UUID(message))


async def page(store: Store, session: bytes, after: str | None = None, **wanted: Any) -> tuple[list[str], bool]:
    """Message ids of a page of one's chats, and whether there are more."""
    metadata = orjson.dumps(wanted["metadata"]).decode() if "metadata" in wanted else None
    mark = UUID(after) if after else None
    shown = await store.call(
        "list_responses",
        session,
        "chat",
        mark,
        wanted.get("ascending", True),
        wanted.get("limit", 100),
        wanted.get("model"),
        metadata,
    )
    return [answer["message_id"] for answer in shown["answers"]], shown["has_more"]


async def refused(store: Store, status: int, query: str, *args: Any) -> RefusedError:
    """The refusal of a call."""
    with pytest.raises(RefusedError) as caught:
        await store.call(query, *args)
    assert caught.value.status == status
    return caught.value


async def rows_of(superuser: asyncpg.Connection, conversation: str) -> list[int]:
    """How many rows of each table are left of a hidden conversation."""
    places = (
        ("conversations", "id"),
        ("channels", "id"),
        ("events", "channel_id"),
        ("messages", "conversation_id"),
        ("turns", "conversation_id"),
    )
    return [
        await superuser.fetchval(f"select count(*) from rustygpt.{table} where {column} = $1", UUID(conversation))
        for table, column in places
    ]


async def test_what_was_asked_is_all_that_a_replica_gets(store: Store) -> None:
    ann = store.sessions["ann"]
    [row] = await store.claim("replica", await stored(store, ann))
    claim = Claim.from_json(row)
    assert (claim.ask, claim.parent_id, claim.history, claim.needs_title) == (ASKED, None, (), False)
    assert 3500 < claim.seconds_left <= 3600


async def test_answer_is_read_as_it_stands(store: Store) -> None:
    ann = store.sessions["ann"]
    message = await stored(store, ann, shown={"metadata": {"a": "b"}})
    queued = await read(store, ann, message)
    assert (queued["ended"], queued["text"], queued["begun"]) == (None, "", False)
    assert queued["shown"] == {"metadata": {"a": "b"}}
    assert ASK.validate_python(queued["request"]) == ASKED
    [claim] = await store.claim("replica", message)
    await store.append(claim, 0, "one ", tokens="1,2")
    assert (await read(store, ann, message))["begun"] is True
    await store.append(claim, 1, "two", tokens="3")
    await store.finish(claim, "length")
    ended = await read(store, ann, message)
    assert ended["text"] == "one two"
    assert ended["ended"] == {"reason": "length", "usage": {}, "error": None, "deltas": 2}
    assert (ended["tokens"], ended["events_kept"]) == (3, True)


async def test_answer_of_somebody_else_is_not_there(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    message = UUID(await answered(store, ann))
    for query, more in (
        ("read_response", ()),
        ("cancel_response", ()),
        ("delete_response", ()),
        ("change_response", ("{}",)),
    ):
        await refused(store, 404, query, ben, HOUR, "chat", message, *more)
    assert str(message) not in (await page(store, ben))[0]
    assert (await read(store, ann, str(message)))["shown"] == {}


async def test_a_repeat_is_found_by_whose_it_is_and_nothing_is_begun_by_looking(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    once = [str(uuid4()), "the request"]
    for session in (ann, ben):
        assert await store.call("repeated_response", session, HOUR, once) is None
    message = (await begin(store, ann, once))["answer"]["message_id"]
    assert (await store.call("repeated_response", ann, HOUR, once))["message_id"] == message
    assert await store.call("repeated_response", ben, HOUR, once) is None
    await refused(store, 422, "repeated_response", ann, HOUR, [once[0], "another"])


async def test_answer_of_another_api_is_not_there(store: Store) -> None:
    ann = store.sessions["ann"]
    await refused(store, 404, "read_response", ann, HOUR, "response", UUID(await answered(store, ann)))
    await refused(store, 404, "read_response", ann, HOUR, "chat", uuid4())


async def test_rows_of_others_are_hidden_from_the_role_of_the_api(store: Store, superuser: asyncpg.Connection) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    message = UUID(await answered(store, ann))
    conversation = UUID((await read(store, ann, str(message)))["conversation_id"])
    for session, expected in ((ann, [1, 0, 0]), (ben, [0, 0, 0])):
        async with superuser.transaction():
            actor = str(await store.user_id(session))
            await superuser.execute("select set_config('app.current_user_id', $1, true)", actor)
            await superuser.execute("set local role rustygpt_api")
            counts = [
                await superuser.fetchval("select count(*) from rustygpt.responses where message_id = $1", message),
                await superuser.fetchval("select count(*) from rustygpt.messages where id = $1", message),
                await superuser.fetchval("select count(*) from rustygpt.events where channel_id = $1", conversation),
            ]
        assert counts == expected


async def test_conversation_that_holds_an_answer_is_seen_nowhere(store: Store) -> None:
    ann, ben, _ = await together(store)
    await join(store, ann, await store.conversation(ann), ben)
    ends = [await end_of_inbox(store, session) for session in (ann, ben)]
    listed = await store.call("list_conversations", ann, None, None, None, None, 200)
    message = UUID(await answered(store, ann, "a needle in a haystack"))
    conversation = UUID((await read(store, ann, str(message)))["conversation_id"])

    assert await store.call("list_conversations", ann, None, None, None, None, 200) == listed
    found = await store.call("search", ann, "needle", None, None, None, None, 10)
    assert "haystack" not in orjson.dumps(found).decode()
    for query, args in (
        ("stream_open", (ann, HOUR, conversation)),
        ("get_conversation", (ann, conversation)),
        ("list_threads", (ann, conversation, None, None, 10)),
        ("list_unread", (ann, conversation)),
        ("list_participants", (ann, conversation)),
        ("list_presence", (ann, conversation)),
        ("list_typing", (ann, conversation)),
        ("export", (ann, conversation)),
        ("get_tree", (ann, message, None, None, 10)),
        ("mark_read", (ann, message, None)),
        ("cancel", (ann, message)),
        ("regenerate", (ann, HOUR, None, message, ["default"], HOUR)),
        ("reply", (ann, HOUR, None, message, "Hello", ["default"], HOUR)),
        ("delete_message", (ann, HOUR, message)),
        ("rename_thread", (ann, HOUR, message, "Mine")),
        ("delete_conversation", (ann, conversation)),
        ("set_typing", (ann, conversation, None, 1, 10.0)),
        ("add_participant", (ann, None, conversation, await store.user_id(ann), "owner")),
        ("create_invite", (ann, None, conversation, "x@example.org", "member", b"2" * 32, HOUR)),
    ):
        await refused(store, 403, query, *args)
    for session, end in zip((ann, ben), ends, strict=True):
        assert await inbox(store, session, end) == []


async def test_same_request_again_gets_the_same_answer(store: Store) -> None:
    ann = store.sessions["ann"]
    once = ["key", "fingerprint"]
    first = await begin(store, ann, once=once)
    message = first["answer"]["message_id"]
    [claim] = await store.claim("replica", message)
    await store.append(claim, 0, "Hello!")
    await store.finish(claim)
    again = await begin(store, ann, once=once)
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert (again["answer"]["message_id"], again["answer"]["text"]) == (message, "Hello!")
    error = await refused(
        store, 422, "create_response", ann, HOUR, ["key", "another"], "chat", "default", "{}", "{}", False, HOUR
    )
    assert error.code == "RGP.IDEMPOTENCY.MISMATCH"
    await store.call("delete_response", ann, HOUR, "chat", UUID(message))
    with pytest.raises(RefusedError, match="deleted"):
        await begin(store, ann, once=once)


async def test_takeover_goes_on_from_the_stored_tokens(store: Store) -> None:
    message = await stored(store, store.sessions["ann"])
    [old] = await store.claim("old", message)
    await store.append(old, 0, "one ", tokens="11,12", lease=NONE)
    [new] = await store.claim("new", message)
    assert (new["token_ids"], new["delta_count"]) == ([11, 12], 1)
    assert Claim.from_json(new).ask == ASKED


async def test_nothing_is_left_of_a_deleted_answer(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    message = await answered(store, ann, "one ", "two")
    conversation = (await read(store, ann, message))["conversation_id"]
    assert await rows_of(superuser, conversation) == [1, 1, 4, 1, 1]
    await store.call("delete_response", ann, HOUR, "chat", UUID(message))
    assert await rows_of(superuser, conversation) == [0, 0, 0, 0, 0]
    await refused(store, 404, "delete_response", ann, HOUR, "chat", UUID(message))


async def test_writer_of_a_deleted_answer_is_told_to_stop(store: Store) -> None:
    ann = store.sessions["ann"]
    message = await stored(store, ann)
    [claim] = await store.claim("replica", message)
    await store.append(claim, 0, "one ")
    await store.call("delete_response", ann, HOUR, "chat", UUID(message))
    assert await store.append(claim, 1, "two") == [[message, "lost"]]
    assert await store.finish(claim) is False
    assert await store.claim("another", message) == []


async def test_cancel_of_an_answer_that_is_just_being_deleted_finds_none(
    store: Store, superuser: asyncpg.Connection
) -> None:
    ann = store.sessions["ann"]
    message = await stored(store, ann)
    async with superuser.transaction():
        await superuser.execute("select rustygpt.remove_response($1)", UUID(message))
        cancelling = asyncio.create_task(refused(store, 404, "cancel_response", ann, HOUR, "chat", UUID(message)))
        await lock_is_waited_for(superuser)
    await cancelling


async def test_cancel_ends_what_nobody_writes_and_tells_who_writes(store: Store) -> None:
    ann = store.sessions["ann"]
    queued = await stored(store, ann)
    ended = await store.call("cancel_response", ann, HOUR, "chat", UUID(queued))
    assert ended["ended"]["reason"] == "cancelled"
    running = await stored(store, ann)
    [claim] = await store.claim("replica", running)
    assert (await store.call("cancel_response", ann, HOUR, "chat", UUID(running)))["ended"] is None
    assert await store.append(claim, 0, "so far") == [[running, "cancel"]]
    await store.finish(claim, "cancelled")
    again = await store.call("cancel_response", ann, HOUR, "chat", UUID(running))
    assert (again["ended"]["reason"], again["text"]) == ("cancelled", "so far")


async def test_answer_that_no_model_writes_ends_with_a_sentence(store: Store) -> None:
    ann = store.sessions["ann"]
    late = await stored(store, ann, deadline=-HOUR, model="gone")
    while await store.worker.value("worker_expire_turn", NONE):
        pass
    assert (await read(store, ann, late))["ended"]["reason"] == "timeout"
    waiting = await stored(store, ann, model="gone")
    while await store.worker.value("worker_abandon_turn", NONE):
        pass
    end = (await read(store, ann, waiting))["ended"]
    assert end["reason"] == "error"
    assert "gone is not running" in end["error"]


async def test_turn_of_a_dead_replica_is_released(store: Store) -> None:
    message = await stored(store, store.sessions["ann"])
    await store.claim("dead", message)
    await store.worker.value("worker_release", "default", ["dead"])
    assert [claim["epoch"] for claim in await store.claim("new", message)] == [2]


async def test_old_answers_go_and_unfinished_ones_stay(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    old, unfinished, new = await answered(store, ann), await stored(store, ann), await answered(store, ann)
    await superuser.execute(
        "update rustygpt.responses set created_at = now() - interval '31 days' where message_id = any($1)",
        [UUID(old), UUID(unfinished)],
    )
    conversation = (await read(store, ann, old))["conversation_id"]
    await Timers(store.worker, SETTINGS, lambda count: None).purge_answers()
    assert await rows_of(superuser, conversation) == [0, 0, 0, 0, 0]
    for message in (unfinished, new):
        await read(store, ann, message)


async def test_pages_of_ones_own_answers(store: Store) -> None:
    cat = await store.person("cat")
    metadata = [{"n": str(number), "odd": str(number % 2)} for number in range(5)]
    messages = [await answered(store, cat, shown={"metadata": given}) for given in metadata]
    await stored(store, cat)
    await answered(store, cat, reason="cancelled")
    assert await page(store, cat) == (messages, False)
    assert await page(store, cat, limit=2) == (messages[:2], True)
    assert await page(store, cat, after=messages[1], limit=3) == (messages[2:], False)
    assert await page(store, cat, ascending=False, limit=2) == (messages[:2:-1], True)
    assert await page(store, cat, after=messages[3], ascending=False) == (messages[2::-1], False)
    assert await page(store, cat, metadata={"odd": "1"}) == (messages[1::2], False)
    assert await page(store, cat, metadata={"odd": "1", "n": "3"}) == ([messages[3]], False)
    assert await page(store, cat, model="other") == ([], False)


async def test_metadata_are_replaced_and_the_rest_is_kept(store: Store) -> None:
    ann = store.sessions["ann"]
    message = await answered(store, ann, shown={"warnings": ["w"], "metadata": {"a": "b"}})
    changed = await store.call("change_response", ann, HOUR, "chat", UUID(message), '{"c": "d"}')
    assert changed["shown"] == {"warnings": ["w"], "metadata": {"c": "d"}}


async def test_text_outlives_the_events(store: Store, superuser: asyncpg.Connection) -> None:
    ann = store.sessions["ann"]
    message = await answered(store, ann, "one ", "two")
    conversation = UUID((await read(store, ann, message))["conversation_id"])
    await superuser.execute("update rustygpt.events set created_at = now() - interval '3 days'")
    assert await store.worker.value("worker_prune_channel", conversation, timedelta(days=2), 1000, 1) == 1
    shown = await read(store, ann, message)
    assert (shown["text"], shown["events_kept"]) == ("one two", False)
    while await store.worker.value("worker_prune_channel", conversation, timedelta(days=2), 1000, 1):
        pass
    # Of what is only kept no walk over all channels hears any more.
    assert await rows_of(superuser, str(conversation)) == [1, 0, 0, 1, 1]
    cancelled = await store.call("cancel_response", ann, HOUR, "chat", UUID(message))
    assert (cancelled["ended"]["reason"], cancelled["text"]) == ("stop", "one two")
    await store.call("delete_response", ann, HOUR, "chat", UUID(message))
    assert await rows_of(superuser, str(conversation)) == [0, 0, 0, 0, 0]


async def ask_in_thread(
    store: Store, session: bytes, conversation: UUID, parent: str, once: list[str] | None = None
) -> dict[str, Any]:
    """A chat's newest message as a reply in a thread."""
    asked = ASK.dump_json(ASKED).decode()
    return await store.call(
        "ask_in_thread", session, HOUR, once, conversation, UUID(parent), "And now?", "second", asked, "{}", HOUR
    )


async def in_talk(store: Store) -> tuple[bytes, bytes, UUID, dict[str, Any]]:
    """Two people, their conversation, and an answered question in it."""
    ann, ben, conversation = await together(store)
    await store.settings(ann, conversation, reply_mode="always")
    posted = await store.post(ann, conversation, "Hello?")
    await store.answer(posted)
    return ann, ben, conversation, posted


async def test_chat_in_a_thread_is_a_reply_and_its_answer(store: Store) -> None:
    ann, ben, conversation, posted = await in_talk(store)
    await store.settings(ann, conversation, reply_mode="never", temperature=0.5)
    begun = await ask_in_thread(store, ann, conversation, posted["assistant_message_id"], ["in thread", "f"])
    message = begun["answer"]["message_id"]
    [row] = await store.claim("replica", message, model="second")
    claim = Claim.from_json(row)
    assert [said["content"] for said in claim.history] == ["Hello?", "Hello!", "And now?"]
    assert (claim.ask, claim.temperature, claim.needs_title) == (ASKED, 0.5, True)
    await store.append(row, 0, "Now this.")
    await store.finish(row)

    tree = (await store.tree(ben, posted["root_id"]))["messages"]
    assert [said["content"] for said in tree] == ["Hello?", "Hello!", "And now?", "Now this."]
    assert (tree[2]["parent_id"], tree[3]["parent_id"]) == (tree[1]["id"], tree[2]["id"])
    assert (tree[3]["id"], tree[2]["author_id"]) == (message, str(await store.user_id(ann)))
    kinds = [kind for _, kind, payload in await store.events(conversation) if message in orjson.dumps(payload).decode()]
    assert kinds == ["message.created", "message.delta", "message.done"]

    again = await ask_in_thread(store, ann, conversation, posted["assistant_message_id"], ["in thread", "f"])
    assert (again["is_new"], again["answer"]["text"]) == (False, "Now this.")
    assert len((await store.tree(ben, posted["root_id"]))["messages"]) == 4
    await refused(store, 404, "read_response", ben, HOUR, "chat", UUID(message))


async def test_chat_in_a_thread_needs_the_right_to_write_there(store: Store) -> None:
    ann, ben, conversation, posted = await in_talk(store)
    answer = posted["assistant_message_id"]
    asked = ASK.dump_json(ASKED).decode()
    rest = ("And now?", "default", asked, "{}", HOUR)
    elsewhere = await store.conversation(ann)
    unfinished = (await store.reply(ann, answer, "What?"))["assistant_message_id"]
    await refused(store, 409, "ask_in_thread", ann, HOUR, None, conversation, UUID(unfinished), *rest)
    await refused(store, 404, "ask_in_thread", ann, HOUR, None, elsewhere, UUID(answer), *rest)
    await refused(store, 403, "ask_in_thread", ben, HOUR, None, elsewhere, UUID(answer), *rest)
    await store.call("change_role", ann, conversation, await store.user_id(ben), "viewer")
    await refused(store, 403, "ask_in_thread", ben, HOUR, None, conversation, UUID(answer), *rest)


async def test_answer_in_a_thread_goes_with_the_right_to_read_it_and_stays_when_it_is_deleted(store: Store) -> None:
    ann, ben, conversation, posted = await in_talk(store)
    first, second = [
        (await ask_in_thread(store, ben, conversation, posted["assistant_message_id"]))["answer"]["message_id"]
        for _ in range(2)
    ]
    await store.call("delete_response", ben, HOUR, "chat", UUID(first))
    assert first in [said["id"] for said in (await store.tree(ann, posted["root_id"]))["messages"]]
    await read(store, ben, second)
    await store.call("remove_participant", ann, conversation, await store.user_id(ben))
    await refused(store, 404, "read_response", ben, HOUR, "chat", UUID(second))


async def test_session_that_has_ended_reads_and_makes_nothing(store: Store) -> None:
    ann = store.sessions["ann"]
    session = hashlib.sha256(b"another of ann's").digest()
    await store.call("open_session", await store.user_id(ann), session, "csrf", HOUR, HOUR, 5)
    message = UUID(await answered(store, session))
    await store.call("logout", session)
    await refused(store, 401, "read_response", session, HOUR, "chat", message)
    await refused(store, 401, "create_response", session, HOUR, None, "chat", "default", "{}", "{}", False, HOUR)
    await read(store, ann, str(message))
