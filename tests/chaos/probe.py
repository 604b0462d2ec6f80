"""How long the service is away, as its user would measure it."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from tests.chaos.client import Client, RefusedError, Unreachable
from tests.chaos.history import Cursor, History, Post
from tests.chaos.readers import read_answer
from tests.chaos.waiting import until
from tests.chaos.writers import ids_of

RETRY_SECONDS = 0.05
LIMIT_SECONDS = 120.0
READY_SECONDS = 120.0
LONG_TEXTS = 64
LONG_TEXT = "長" * 90_000  # three bytes each


class NotRecovered(Exception):
    """The service did not come back within LIMIT_SECONDS."""


class Probe:
    """Somebody who asks again and again until there is an answer to read."""

    def __init__(self, client: Client, history: History, chapter: str, conversation: str) -> None:
        self.conversation = conversation
        self._client = client
        self._history = history
        self._chapter = chapter
        self._numbers = itertools.count(1)
        self._long_texts = 0

    async def seconds(self, since: float) -> float:
        """From `since` until a fresh post was accepted and the first text of its answer was read by a reader that
        connected after it. Raises NotRecovered."""
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                answer_id, cursor = await self.post()
                await self.first_text(self._client, "probe", answer_id, cursor)
        except TimeoutError:
            raise NotRecovered from None
        return time.monotonic() - since

    async def lengthen(self) -> None:
        """Makes the conversation's log too long for the buffers between the service and a reader. Nobody answers these
        texts: in the probe's conversation the assistant answers where it is mentioned."""
        while self._long_texts < LONG_TEXTS:
            await self._post(LONG_TEXT)
            self._long_texts += 1

    async def post(self) -> tuple[str, Cursor]:
        """One question, sent again with its key until it is accepted: the answer's id, the cursor before it."""
        answer = await self._post("@assistant Say hello.")
        return answer["assistant_message_id"], Cursor.parse(answer["cursor"])

    async def _post(self, content: str) -> dict[str, Any]:
        key = f"{self._chapter}.probe.{next(self._numbers)}"
        post = Post(key, "root", self._client.name, self.conversation)
        self._history.posts.append(post)
        while True:
            post.sent += 1
            try:
                body = {"content": f"[{key}] {content}"}
                answer = await self._client.call("POST", f"/api/threads/{self.conversation}/root", body, key)
            except (Unreachable, RefusedError) as error:
                if isinstance(error, RefusedError):
                    self._history.refusals.append(f"{key}: {error}")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            post.outcome = "ok"
            post.answers.append(ids_of(answer, "message_id"))
            return answer

    async def first_text(self, client: Client, reader: str, answer_id: str, cursor: Cursor) -> None:
        """Reads until the answer's first text came."""
        await read_answer(client, self._history, reader, self.conversation, cursor, answer_id, "message.delta")

    async def ready(self) -> None:
        """Returns when the service says that it is whole again. Raises NotRecovered."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await until(self._is_ready, every_seconds=0.2)
        except TimeoutError:
            raise NotRecovered from None

    async def _is_ready(self) -> bool:
        try:
            return (await self._client.call("GET", "/readyz"))["ready"]
        except (Unreachable, RefusedError):
            return False
