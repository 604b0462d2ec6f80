"""What may be done with messages, and what readers are told of it, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.integration.conftest import HOUR, Store
from tests.integration.test_access import refused


async def edit(store: Store, session: bytes, message: str, content: str, reason: str | None = None) -> dict[str, Any]:
    return await store.call("edit", session, HOUR, UUID(message), content, reason)


async def delete(store: Store, session: bytes, message: str) -> None:
    await store.call("delete_message", session, HOUR, UUID(message))


async def regenerate(store: Store, session: bytes, message: str) -> dict[str, Any]:
    return await store.call("regenerate", session, HOUR, None, UUID(message), ["default"], HOUR)


async def contents(store: Store, session: bytes, root: str) -> list[str]:
    return [message["content"] for message in (await store.tree(session, root))["messages"]]


async def last_event(store: Store, conversation: UUID) -> tuple[str, dict[str, Any]]:
    _, kind, payload = (await store.events(conversation))[-1]
    return kind, payload


async def test_edit_is_told_and_keeps_what_was_said(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.post(ann, conversation, "Helo")
    edited = await edit(store, ann, posted["message_id"], "Hello", "spelling")
    assert (edited["content"], edited["edited_at"] is not None) == ("Hello", True)
    assert await last_event(store, conversation) == ("message.updated", {"message": edited})
    await edit(store, ann, posted["message_id"], "Hello!")
    versions = (await store.call("list_versions", ann, UUID(posted["message_id"])))["versions"]
    assert [(v["version"], v["content"], v["reason"]) for v in versions] == [
        (1, "Helo", "spelling"),
        (2, "Hello", None),
    ]


async def test_edit_that_changes_nothing_is_no_event(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.post(ann, conversation, "Hello")
    before = await store.events(conversation)
    assert (await edit(store, ann, posted["message_id"], "Hello"))["edited_at"] is None
    assert await store.events(conversation) == before


async def test_only_author_or_admin_changes_what_a_person_said(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    await store.call("add_participant", ann, None, conversation, await store.user_id(ben), "member")
    of_ann = await store.post(ann, conversation, "mine")
    of_ben = await store.post(ben, conversation, "his")
    await refused(403, edit(store, ben, of_ann["message_id"], "yours"))
    await refused(403, delete(store, ben, of_ann["message_id"]))
    assert (await edit(store, ann, of_ben["message_id"], "moderated"))["content"] == "moderated"
    await delete(store, ben, of_ben["message_id"])


async def test_nobody_edits_what_the_assistant_wrote(store: Store) -> None:
    ann = store.sessions["ann"]
    posted = await store.post(ann, await store.conversation(ann), "Hello?")
    await store.answer(posted)
    await refused(403, edit(store, ann, posted["assistant_message_id"], "I agree with Ann."))


async def test_deleted_message_is_gone_from_tree_and_prompt(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    first = await store.post(ann, conversation, "secret one")
    await store.answer(first, "answer one")
    second = await store.reply(ann, first["assistant_message_id"], "question two")
    await delete(store, ann, first["message_id"])
    kind, told = (await store.events(conversation))[-1][1:]
    assert (kind, told["message_id"]) == ("message.deleted", first["message_id"])
    assert await contents(store, ann, first["root_id"]) == ["", "answer one", "question two", ""]
    [claim] = await store.claim("replica", second["assistant_message_id"])
    assert [said["content"] for said in claim["history"]] == ["answer one", "question two"]
    await refused(409, store.reply(ann, first["message_id"], "and?"))
    await refused(409, edit(store, ann, first["message_id"], "other"))


async def test_deleting_again_is_no_event(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.post(ann, conversation, "Hello")
    await delete(store, ann, posted["message_id"])
    before = await store.events(conversation)
    await delete(store, ann, posted["message_id"])
    assert await store.events(conversation) == before


async def test_deleted_message_comes_back_whole(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    await store.call("add_participant", ann, None, conversation, await store.user_id(ben), "member")
    posted = await store.post(ben, conversation, "Hello")
    await delete(store, ben, posted["message_id"])
    await refused(403, store.call("restore", ben, HOUR, UUID(posted["message_id"])))
    restored = await store.call("restore", ann, HOUR, UUID(posted["message_id"]))
    assert (restored["content"], restored["deleted_at"]) == ("Hello", None)
    assert await last_event(store, conversation) == ("message.updated", {"message": restored})


async def test_answer_that_is_being_written_is_not_deleted(store: Store) -> None:
    ann = store.sessions["ann"]
    posted = await store.post(ann, await store.conversation(ann), "Hello?")
    await refused(409, delete(store, ann, posted["assistant_message_id"]))


async def test_regenerated_answer_is_a_sibling(store: Store) -> None:
    ann = store.sessions["ann"]
    posted = await store.post(ann, await store.conversation(ann), "Hello?")
    await store.answer(posted, "one")
    again = await regenerate(store, ann, posted["assistant_message_id"])
    await store.answer(again, "two")
    messages = (await store.tree(ann, posted["root_id"]))["messages"]
    assert [(m["content"], m["path"][1:]) for m in messages] == [("Hello?", []), ("one", [1]), ("two", [2])]
    assert messages[2]["parent_id"] == posted["message_id"]


async def test_message_said_anew_is_a_branch_with_the_same_past(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    first = await store.post(ann, conversation, "one")
    await store.answer(first, "two")
    second = await store.reply(ann, first["assistant_message_id"], "three")
    anew = await store.call("branch", ann, HOUR, None, UUID(second["message_id"]), "other", ["default"], HOUR)
    [claim] = await store.claim("replica", anew["assistant_message_id"])
    assert [said["content"] for said in claim["history"]] == ["one", "two", "other"]
    root = await store.call("branch", ann, HOUR, None, UUID(first["message_id"]), "uno", ["default"], HOUR)
    assert (root["depth"], root["root_id"]) == (1, root["message_id"])


async def test_names_are_given_where_several_people_speak(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    await store.call("add_participant", ann, None, conversation, await store.user_id(ben), "member")
    first = await store.post(ann, conversation, "Hello")
    alone = await store.answer(first, "Hi")
    assert [said["name"] for said in alone["history"]] == [None]
    second = await store.reply(ben, first["assistant_message_id"], "And me?")
    together = await store.answer(second)
    assert [said["name"] for said in together["history"]] == ["ann", None, "ben"]


@pytest.mark.parametrize(
    ("mode", "content", "is_answered"),
    [
        ("always", "Hello", True),
        ("never", "Hello @assistant", False),
        ("mentioned", "Hello", False),
        ("mentioned", "what do you think, @Assistant?", True),
        ("mentioned", "write to me@assistant.example", False),
        ("mentioned", "@assistants", False),
    ],
)
async def test_assistant_answers_as_the_reply_mode_says(
    store: Store, mode: str, content: str, is_answered: bool
) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await store.settings(ann, conversation, reply_mode=mode)
    posted = await store.post(ann, conversation, content)
    assert (posted["assistant_message_id"] is not None) is is_answered
    assert len((await store.tree(ann, posted["root_id"]))["messages"]) == 1 + is_answered


async def test_conversation_chooses_model_prompt_and_temperature(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await store.settings(ann, conversation, model="other", system_prompt="Be brief.", temperature=0.25)
    posted = await store.post(ann, conversation, "Hello?", ["default", "other"])
    assert posted["model"] == "other"
    [claim] = await store.claim("replica", posted["assistant_message_id"], model="other")
    assert (claim["system_prompt"], claim["temperature"]) == ("Be brief.", 0.25)
    assert await refused(409, store.post(ann, conversation, "Hello?", ["default"])) == "RGP.LLM.CONFIG"


async def test_request_sent_again_has_no_second_effect(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    once = ["key one", "fingerprint"]
    answers = await asyncio.gather(*(store.post(ann, conversation, "Hello?", once=once) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    threads = (await store.call("list_threads", ann, conversation, None, None, 10))["threads"]
    assert len(threads) == 1
    code = await refused(422, store.post(ann, conversation, "Other?", once=["key one", "another fingerprint"]))
    assert code == "RGP.IDEMPOTENCY.MISMATCH"


async def test_refused_request_may_be_mended_under_the_same_key(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    once = ["key two", "fingerprint"]
    await refused(403, store.post(ben, conversation, "Hello?", once=once))
    await store.call("add_participant", ann, None, conversation, await store.user_id(ben), "member")
    assert (await store.post(ben, conversation, "Hello?", once=once))["message_id"]


async def test_keys_of_two_people_are_apart(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    await store.call("add_participant", ann, None, conversation, await store.user_id(ben), "member")
    once = ["key three", "fingerprint"]
    first, second = [await store.post(who, conversation, "Hello?", once=once) for who in (ann, ben)]
    assert first["message_id"] != second["message_id"]


async def test_title_of_the_model_does_not_replace_a_persons(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.post(ann, conversation, "Hello?")
    claim = await store.answer(posted)
    assert claim["needs_title"] is True
    root = UUID(posted["root_id"])
    assert await store.worker.value("worker_set_title", root, "Greetings") is True
    kind, told = await last_event(store, conversation)
    assert (kind, told["message"]["title"]) == ("message.updated", "Greetings")
    assert (await store.call("rename_thread", ann, HOUR, root, "Hellos"))["title"] == "Hellos"
    assert await store.worker.value("worker_set_title", root, "Greetings") is False
    [thread] = (await store.call("list_threads", ann, conversation, None, None, 10))["threads"]
    assert thread["title"] == "Hellos"
