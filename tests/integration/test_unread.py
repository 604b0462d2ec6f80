"""Unread counts, on a real PostgreSQL: right in branching trees, and kept right by the inbox's events alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import HOUR, Store
from tests.integration.test_access import refused
from tests.integration.together import inbox, join, lock_is_waited_for, together


async def unread(store: Store, session: bytes, conversation: UUID) -> dict[str, int]:
    """Threads with something unread, as the route tells."""
    listed = await store.call("list_unread", session, conversation)
    return {thread["root_id"]: thread["unread"] for thread in listed["threads"]}


async def mark(store: Store, session: bytes, root: str, message: str | None = None) -> int:
    """Marks a thread as read; what is left."""
    return (await store.call("mark_read", session, UUID(root), UUID(message) if message else None))["unread"]


async def test_own_messages_are_never_unread(store: Store) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "Hello"))["root_id"]
    assert await unread(store, ann, conversation) == {}
    assert await unread(store, ben, conversation) == {root: 1}


async def test_reply_in_an_old_branch_is_unread(store: Store) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "1"))["root_id"]
    branch = (await store.reply(ann, root, "1.1"))["message_id"]
    await store.reply(ann, root, "1.2")
    assert await mark(store, ben, root) == 0
    await store.reply(ann, branch, "1.1.1")
    assert await unread(store, ben, conversation) == {root: 1}


async def test_mark_never_goes_back(store: Store) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "1"))["root_id"]
    await store.reply(ann, root, "2")
    assert await mark(store, ben, root) == 0
    before = await inbox(store, ben)
    assert await mark(store, ben, root, root) == 0
    assert await inbox(store, ben) == before, "nothing changed, nothing is told"


async def test_answer_is_unread_when_it_is_finished(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    posted = await store.ask(ann, conversation)
    assert await mark(store, ann, posted["root_id"]) == 0
    assert await unread(store, ann, conversation) == {}
    await store.answer(posted)
    assert await unread(store, ann, conversation) == {posted["root_id"]: 1}


async def test_mark_is_told_to_the_own_inbox_only(store: Store) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "Hello"))["root_id"]
    of_ann, of_ben = len(await inbox(store, ann)), len(await inbox(store, ben))
    await mark(store, ben, root)
    assert len(await inbox(store, ann)) == of_ann
    [(_, kind, payload)] = await inbox(store, ben, of_ben)
    assert (kind, payload["root_id"], payload["unread"]) == ("unread.update", root, 0)


async def test_mark_takes_only_messages_of_the_thread(store: Store) -> None:
    ann, _, conversation = await together(store)
    root = (await store.post(ann, conversation, "1"))["root_id"]
    reply = (await store.reply(ann, root, "2"))["message_id"]
    other = (await store.post(ann, conversation, "another thread"))["root_id"]
    assert await refused(404, mark(store, ann, root, other)) == "RGP.NOT_FOUND"
    assert await refused(400, mark(store, ann, reply)) == "RGP.VALIDATION"


async def test_outsider_neither_marks_nor_counts(store: Store) -> None:
    ann, ben = store.sessions["ann"], store.sessions["ben"]
    conversation = await store.conversation(ann)
    root = (await store.post(ann, conversation, "Hello"))["root_id"]
    await refused(403, mark(store, ben, root))
    await refused(403, store.call("list_unread", ben, conversation))


async def test_last_event_has_the_count_that_is_true_whatever_came_at_once(
    store: Store, superuser: asyncpg.Connection
) -> None:
    ann, ben, conversation = await together(store)
    root = (await store.post(ann, conversation, "1"))["root_id"]
    async with superuser.transaction():
        await superuser.execute("select rustygpt.api_mark_read($1, $2, null)", ben, UUID(root))
        # It cannot know of the mark, which is not committed yet.
        posting = asyncio.create_task(store.reply(ann, root, "2"))
        await lock_is_waited_for(superuser)
    await posting
    told = [p["unread"] for _, kind, p in await inbox(store, ben) if kind == "unread.update" and p["root_id"] == root]
    assert told == [1, 0, 1]


@dataclass
class Message:
    """What the model knows of a message; `made` counts all steps, as time does."""

    id: str
    root: str
    made: int
    author: str | None
    is_done: bool = True
    is_deleted: bool = False
    question: dict[str, Any] | None = None


@dataclass
class Model:
    """The rule, said in the simplest way."""

    messages: list[Message] = field(default_factory=list)
    joined: dict[str, int] = field(default_factory=dict)
    marks: dict[tuple[str, str], int] = field(default_factory=dict)

    def unread(self, name: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for message in self.messages:
            is_unread = message.is_done and not message.is_deleted and message.author != name
            since = max(self.joined[name], self.marks.get((name, message.root), 0) + 1)
            if is_unread and message.made >= since:
                counts[message.root] = counts.get(message.root, 0) + 1
        return counts

    def mark(self, name: str, target: Message) -> None:
        key = (name, target.root)
        self.marks[key] = max(self.marks.get(key, 0), target.made)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["post", "reply", "reply", "ask", "finish", "delete", "restore", "mark", "mark_all", "rejoin"]),
        st.sampled_from(["ann", "ben", "cat"]),
        st.integers(0, 1000),
    ),
    min_size=5,
    max_size=30,
)


class Play:
    """Does the same to the product and to the model."""

    def __init__(self, store: Store, conversation: UUID) -> None:
        self.store = store
        self.conversation = conversation
        self.model = Model()
        self.now = 1
        self.held: dict[str, dict[str, int]] = {}
        self.read: dict[str, int] = {}

    async def enter(self, name: str) -> None:
        """A participant builds the state of counts from the route."""
        self.model.joined[name] = self.now
        await self.build(name)

    async def build(self, name: str) -> None:
        listed = await self.store.call("list_unread", self.store.sessions[name], self.conversation)
        self.held[name] = {thread["root_id"]: thread["unread"] for thread in listed["threads"]}
        self.read[name] = int(listed["cursor"])

    async def follow(self, name: str) -> None:
        """Keeps the state by events alone."""
        session = self.store.sessions[name]
        for offset, kind, payload in await inbox(self.store, session, self.read[name]):
            self.read[name] = offset
            if kind == "unread.update" and payload["conversation_id"] == str(self.conversation):
                self.held[name][payload["root_id"]] = payload["unread"]

    async def step(self, kind: str, name: str, number: int) -> bool:
        """One step; whether it may lower a count."""
        self.now += 1
        store, session, messages = self.store, self.store.sessions[name], self.model.messages
        finished = [m for m in messages if m.is_done and not m.is_deleted]
        chosen = finished[number % len(finished)] if finished else None
        if kind in ("post", "ask"):
            await store.settings(
                store.sessions["ann"], self.conversation, reply_mode="always" if kind == "ask" else "never"
            )
            posted = await store.post(session, self.conversation, "Hello?")
            messages.append(Message(posted["message_id"], posted["root_id"], self.now, name))
            if kind == "ask":
                self.now += 1
                answer = posted["assistant_message_id"]
                messages.append(Message(answer, posted["root_id"], self.now, None, is_done=False, question=posted))
                await store.settings(store.sessions["ann"], self.conversation, reply_mode="never")
        elif kind == "reply" and chosen:
            posted = await store.reply(session, chosen.id, "More.")
            messages.append(Message(posted["message_id"], chosen.root, self.now, name))
        elif kind == "finish" and (open_answers := [m for m in messages if not m.is_done]):
            answer = open_answers[number % len(open_answers)]
            assert answer.question is not None
            await store.answer(answer.question)
            answer.is_done = True
        elif kind == "delete" and chosen:
            await store.call("delete_message", store.sessions["ann"], HOUR, UUID(chosen.id))
            chosen.is_deleted = True
            return True
        elif kind == "restore" and (deleted := [m for m in messages if m.is_deleted]):
            restored = deleted[number % len(deleted)]
            await store.call("restore", store.sessions["ann"], HOUR, UUID(restored.id))
            restored.is_deleted = False
        elif kind == "mark" and messages:
            target = messages[number % len(messages)]
            left = await mark(store, session, target.root, target.id)
            self.model.mark(name, target)
            assert left == self.model.unread(name).get(target.root, 0)
            return True
        elif kind == "mark_all" and messages:
            root = messages[number % len(messages)].root
            assert await mark(store, session, root) == 0
            self.model.mark(name, [m for m in messages if m.root == root and m.is_done][-1])
            return True
        elif kind == "rejoin":
            ann, cat = store.sessions["ann"], store.sessions["cat"]
            await store.call("remove_participant", ann, self.conversation, await store.user_id(cat))
            await join(store, ann, self.conversation, cat)
            await self.enter("cat")
            return True
        return False


@pytest.fixture(scope="module")
async def cat(store: Store) -> bytes:
    return await store.person("cat")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_counts_are_those_of_the_rule(store: Store, cat: bytes, steps: list[tuple[str, str, int]]) -> None:
    _, _, conversation = await together(store)
    await join(store, store.sessions["ann"], conversation, cat)
    play = Play(store, conversation)
    for name in ("ann", "ben", "cat"):
        await play.enter(name)
    for kind, actor, number in steps:
        before = {name: play.model.unread(name) for name in play.held}
        may_fall = await play.step(kind, actor, number)
        for name in play.held:
            await play.follow(name)
            expected = play.model.unread(name)
            assert await unread(store, store.sessions[name], conversation) == expected
            assert {root: count for root, count in play.held[name].items() if count} == expected
            assert may_fall or all(expected.get(root, 0) >= count for root, count in before[name].items())
    conversations = (await store.call("list_conversations", store.sessions["ben"], None, None, None, None, 100))[
        "conversations"
    ]
    total = next(c["unread"] for c in conversations if c["id"] == str(conversation))
    assert total == sum(play.model.unread("ben").values())
