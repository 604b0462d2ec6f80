"""Writers: people who open conversations, ask, reply and stop answers."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.client import Client, RefusedError, Unreachable
from tests.chaos.history import Cancel, Cursor, History, Post
from tests.chaos.readers import read_answer

SUBJECTS = ("the sea", "a lighthouse", "three colours", "an old bridge", "tea", "a fox", "the moon", "a small town")
MOST_TRIES = 20
RETRY_SECONDS = 0.1
POSTS_IN_A_CONVERSATION = 12
WATCH_SECONDS = 20.0


@dataclass
class World:
    """What the people of a chapter know: their conversations, the latest last, and the answers in them."""

    chapter: str
    people: list[Client]
    conversations: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)  # set with the first conversation


class Writer:
    """One person who writes. Every post is sent again with its key until it is known what became of it."""

    def __init__(self, name: str, client: Client, world: World, history: History, rng: random.Random) -> None:
        self._name = name
        self._client = client
        self._world = world
        self._history = history
        self._rng = rng
        self._numbers = itertools.count(1)
        self._conversation: str | None = None
        self._posts_left = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._conversation is None or self._posts_left == 0:
                self._conversation = await self._open()
                self._posts_left = POSTS_IN_A_CONVERSATION
                continue
            self._posts_left -= 1
            chance = self._rng.random()
            if chance < 0.4 and self._world.answers:
                answer = await self._reply()
            else:
                answer = await self.ask(self._conversation)
            if answer is not None and chance > 0.85:
                await asyncio.sleep(self._rng.uniform(0, 0.5))
                await self._cancel(answer["assistant_message_id"])
            elif answer is not None and chance > 0.15:
                await self._watch(answer)
            await asyncio.sleep(self._rng.uniform(0.3, 1.5))

    async def _open(self) -> str | None:
        # Cut off in the middle, it would leave a conversation that nobody but its owner may read.
        opening = asyncio.create_task(self.converse())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await opening
            raise

    async def converse(self, reply_mode: str = "always") -> str | None:
        """Opens a conversation in which everybody of this chapter takes part; its id."""
        post = self._post("conversation", "")
        body = {"title": f"Chaos [{post.key}]", "reply_mode": reply_mode}
        answer = await self._send(post, "/api/conversations", body, "conversation_id")
        if answer is None:
            return None
        conversation = answer["conversation_id"]
        path = f"/api/conversations/{conversation}/participants"
        for person in self._world.people:
            if person.id != self._client.id:
                await self._add(path, person.id)
        self._world.conversations.append(conversation)
        self._world.opened.set()
        return conversation

    async def ask(self, conversation: str) -> dict[str, Any] | None:
        """Begins a thread; what the service answered, or None where that is not known."""
        post = self._post("root", conversation)
        return await self._say(post, f"/api/threads/{conversation}/root")

    async def _reply(self) -> dict[str, Any] | None:
        parent = self._rng.choice(self._world.answers[-8:])
        return await self._say(self._post("reply", parent), f"/api/messages/{parent}/reply")

    async def _watch(self, answer: dict[str, Any]) -> None:
        # As people do, mostly; it also keeps questions from coming faster than they are answered.
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_SECONDS):
                place, cursor = answer["conversation_id"], Cursor.parse(answer["cursor"])
                answer_id = answer["assistant_message_id"]
                await read_answer(self._client, self._history, self._name, place, cursor, answer_id, "message.done")

    async def _say(self, post: Post, path: str) -> dict[str, Any] | None:
        content = f"[{post.key}] Tell me about {self._rng.choice(SUBJECTS)}."
        answer = await self._send(post, path, {"content": content}, "message_id")
        if answer is not None:
            self._world.answers.append(answer["assistant_message_id"])
        return answer

    def _post(self, kind: Any, target: str) -> Post:
        key = f"{self._world.chapter}.{self._name}.{next(self._numbers)}"
        post = Post(key, kind, self._client.name, target)
        self._history.posts.append(post)
        return post

    async def _send(self, post: Post, path: str, body: dict[str, str], id_name: str) -> dict[str, Any] | None:
        while post.sent < MOST_TRIES:
            post.sent += 1
            try:
                answer = await self._client.call("POST", path, body, post.key)
            except RefusedError as error:
                if post.kind == "reply" and error.status == 409:  # the answer is still being written
                    # Of a post that was sent before, it may be the first copy that is carried out yet.
                    post.outcome = "refused" if post.sent == 1 else "unknown"
                    return None
                self._history.refusals.append(f"{post.key}: {error}")
                await asyncio.sleep(RETRY_SECONDS)
            except Unreachable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                post.outcome = "ok"
                post.answers.append(ids_of(answer, id_name))
                if self._rng.random() > 0.1:
                    return answer
                # Acknowledged, and sent once more all the same, as by a client that lost the answer.
        return None

    async def _cancel(self, message_id: str) -> None:
        try:
            answer = await self._client.call("POST", f"/api/messages/{message_id}/cancel", {})
            self._history.cancels.append(Cancel(message_id, "ok", answer["status"]))
        except RefusedError as error:
            self._history.refusals.append(f"cancel of {message_id}: {error}")
        except Unreachable:
            self._history.cancels.append(Cancel(message_id, "unknown"))

    async def _add(self, path: str, user_id: str) -> None:
        while True:
            try:
                await self._client.call("POST", path, {"user_id": user_id, "role": "member"})
                return
            except RefusedError as error:
                if error.status == 409:
                    return  # takes part already: an earlier try was carried out
                self._history.refusals.append(f"participant of {path}: {error}")
                await asyncio.sleep(RETRY_SECONDS)
            except Unreachable:
                await asyncio.sleep(RETRY_SECONDS)


def ids_of(answer: dict[str, Any], id_name: str) -> dict[str, str]:
    """The ids that a post got: its own, and that of the answer to it, if there is to be one."""
    ids = {"id": answer[id_name]}
    if answer.get("assistant_message_id") is not None:
        ids["assistant_message_id"] = answer["assistant_message_id"]
    return ids
