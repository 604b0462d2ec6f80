"""Questions that wait for an answer, in conversations of their own."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import orjson

from db.pool import Database
from load.database.history_data import HOUR, sign_up
from load.database.history_reads import STREAM_BYTES, STREAM_PAGE

MODEL = "default"


class Asker:
    """A person who asks, and checks afterwards that the answers are there."""

    def __init__(self, app: Database, session: bytes) -> None:
        self._app = app
        self._session = session
        self._places: dict[UUID, UUID] = {}

    @classmethod
    async def enter(cls, app: Database) -> Asker:
        """The first account of a new database."""
        [person] = await sign_up(app, ("asker",))
        return cls(app, person.session)

    async def ask(self, question: str) -> UUID:
        """The id of the answer, whose turn is queued."""
        made = orjson.loads(
            await self._app.value("create_conversation", self._session, None, question[:100], False, "{}")
        )
        conversation = UUID(made["conversation_id"])
        posted = orjson.loads(
            await self._app.value(
                "post_root", self._session, HOUR, None, conversation, question, [MODEL], timedelta(minutes=10)
            )
        )
        answer = UUID(posted["assistant_message_id"])
        self._places[answer] = conversation
        return answer

    async def read(self, answer: UUID) -> tuple[str, str | None]:
        """The answer's text as a reader of the stream gets it, and how it ended. Raises AssertionError when the log
        has a gap."""
        conversation, last, text, end = self._places[answer], 0, "", None
        while True:
            rows = await self._app.rows("stream_read", [conversation], [last], STREAM_PAGE, STREAM_BYTES)
            if rows[0]["offset"] is None:
                return text, end
            for row in rows:
                assert row["offset"] == last + 1, f"the log has no event {last + 1}"
                last = row["offset"]
                payload = orjson.loads(row["payload"])["payload"]
                if row["type"] == "message.delta":
                    text += payload["choices"][0]["delta"]["content"]
                elif row["type"] == "message.done":
                    end = payload["finish_reason"]
