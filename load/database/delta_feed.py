"""Writes deltas into the log of a running product as a Model replica does, without a model."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import orjson

from db.embedded import EmbeddedPostgres
from db.migrate import migrate
from db.pool import Database, Grant

HOUR = timedelta(hours=1)
# No replica serves it: the turns are the feed's.
MODEL = "bench"


class DeltaFeed:
    """Answers in one conversation, all being written: each append gives some of them one delta more."""

    def __init__(self, worker: Database, claims: list[dict[str, object]]) -> None:
        self._worker = worker
        self._claims = claims
        self._deltas = [0] * len(claims)

    @classmethod
    async def open(cls, home: Path, session_cookie: str, conversation: str, answers: int) -> DeltaFeed:
        """`home` is that of a product with an embedded database; the session is a member's of the conversation."""
        addresses = await migrate(EmbeddedPostgres(home / "postgres").start())
        app = await Database.connect(Grant(addresses["app"], 1))
        worker = await Database.connect(Grant(addresses["worker"], 1))
        session = hashlib.sha256(session_cookie.encode()).digest()
        claims = []
        for _ in range(answers):
            posted = await app.value("post_root", session, HOUR, None, UUID(conversation), "Go on.", [MODEL], HOUR)
            answer = UUID(orjson.loads(posted)["assistant_message_id"])
            claims += orjson.loads(await worker.value("worker_claim", MODEL, "bench", HOUR, 1, answer, timedelta(0)))
        await app.close()
        return cls(worker, claims)

    async def close(self) -> None:
        """Drops the connection; the turns stay open."""
        await self._worker.close()

    def payload(self, place: int, text: str) -> str:
        """The next delta of an answer, as the product's append writer makes it."""
        claim, number = self._claims[place], self._deltas[place]
        delta = {"role": "assistant", "content": text} if number == 0 else {"content": text}
        return orjson.dumps(
            {
                "id": f"{claim['message_id']}:{number}",
                "object": "chat.completion.chunk",
                "message_id": claim["message_id"],
                "root_id": claim["root_id"],
                "conversation_id": claim["conversation_id"],
                "parent_id": claim["parent_id"],
                "depth": claim["depth"],
                "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
            }
        ).decode()

    async def append(self, texts: list[str]) -> None:
        """One flush: one delta for each of so many answers, committed when this returns."""
        places = range(len(texts))
        payloads = [self.payload(place, text) for place, text in enumerate(texts)]
        refused = await self._worker.value(
            "worker_append",
            [UUID(str(self._claims[place]["message_id"])) for place in places],
            [self._claims[place]["epoch"] for place in places],
            [self._deltas[place] for place in places],
            payloads,
            ["1"] * len(texts),
            HOUR,
        )
        assert orjson.loads(refused) == [], f"the database took the feed's turns: {refused}"
        for place in places:
            self._deltas[place] += 1
