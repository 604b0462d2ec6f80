"""Answers that are kept: a durable turn each, which any replica may write and any Gateway show."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable, RefusedError
from db.pool import Database
from deployments.config import Settings
from deployments.gateway.threads.dispatcher import TurnDispatcher
from deployments.gateway.v1.callers import Caller
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.limits import Limits
from deployments.gateway.v1.stored.answer import Kind, StoredAnswer, message_id_of
from deployments.gateway.v1.stored.items import DeltasPruned, LogItems
from deployments.gateway.v1.stored.tail import AnswerGone, Tail
from deployments.generation import ASK, Ask, Ended, Item, Json, Piece, Started
from deployments.prefixes import Prefix

# A replica hears of a cancel at once. One that died is not waited for.
CANCEL_SECONDS = 5.0
RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """Where in a conversation an answer is to stand: under a new message with this content."""

    conversation_id: UUID
    parent_id: UUID
    content: str


class Store:
    """Stored answers of all callers; each sees their own only. Safe for concurrent use within one event loop.

    All methods raise ApiError, RefusedError for a credential that is not live any more, and DatabaseUnavailable.
    """

    def __init__(self, database: Database, turns: TurnDispatcher, limits: Limits, settings: Settings) -> None:
        self._database = database
        self._turns = turns
        self._limits = limits
        self._counts_tokens = settings.api.tokens_per_minute is not None
        self._counting: set[asyncio.Task[None]] = set()
        self._idle = timedelta(seconds=settings.session.idle_seconds)
        self._tail = Tail(database, settings.sse.poll_seconds)

    async def create(
        self,
        caller: Caller,
        kind: Kind,
        model_id: str,
        ask: Ask,
        shown: Json,
        once: list[str] | None,
        background: bool,
    ) -> StoredAnswer:
        """Queues the answer and hands it to a model. It is written to its end whoever leaves. `once` again: the same
        answer as it stands now."""
        deadline = timedelta(seconds=ask.seconds)
        asked = _json(ask, shown)
        return await self._begin(caller, "create_response", once, kind, model_id, *asked, background, deadline)

    async def create_in_thread(
        self, caller: Caller, model_id: str, place: Place, ask: Ask, shown: Json, once: list[str] | None
    ) -> StoredAnswer:
        """Says `place.content` in a thread and queues the answer to it, which everybody there sees. Of `ask` the
        manner counts (sampling, schema, time); what the model reads is the thread. Else as `create`, for a chat."""
        deadline = timedelta(seconds=ask.seconds)
        asked = _json(ask, shown)
        where = (place.conversation_id, place.parent_id, place.content)
        return await self._begin(caller, "ask_in_thread", once, *where, model_id, *asked, deadline)

    async def repeated(self, caller: Caller, once: list[str] | None) -> StoredAnswer | None:
        """The answer, as it stands now, that a request with the same `once` was given before; None where there is none.
        To be asked before anything else is looked at: what the first request relied on may be gone since."""
        if once is None:
            return None
        credential = credential_of(caller)
        text = await self._database.value("repeated_response", credential, self._idle, once)
        return None if text is None else self._handed_over(orjson.loads(text), credential)

    async def get(self, caller: Caller, kind: Kind, public_id: str) -> StoredAnswer:
        """The answer as it stands now. ApiError 404 where there is none, or it is somebody else's."""
        return await self._of_own("read_response", credential_of(caller), kind, public_id)

    async def page(
        self,
        caller: Caller,
        kind: Kind,
        after: str | None,
        limit: int,
        ascending: bool,
        model_id: str | None,
        metadata: dict[str, str] | None,
    ) -> tuple[list[StoredAnswer], bool]:
        """Answers that have come to their end, in order of time: those after the one with the public id `after`, of
        this model, with these metadata (None: of any). And whether there are more."""
        credential = credential_of(caller)
        mark = None if after is None else message_id_of(kind, after)
        if after is not None and mark is None:
            raise missing(after)
        wanted = None if metadata is None else _storable(metadata)
        text = await self._database.value("list_responses", credential, kind, mark, ascending, limit, model_id, wanted)
        page = orjson.loads(text)
        return [StoredAnswer.from_row(row, credential) for row in page["answers"]], page["has_more"]

    async def change(self, caller: Caller, kind: Kind, public_id: str, metadata: dict[str, str]) -> StoredAnswer:
        """Gives the answer other metadata."""
        wanted = _storable(metadata)
        return await self._of_own("change_response", credential_of(caller), kind, public_id, wanted)

    async def cancel(self, caller: Caller, kind: Kind, public_id: str) -> StoredAnswer:
        """Stops the answer where it is, and returns it as it ended. One that had ended stays as it was."""
        answer = await self._of_own("cancel_response", credential_of(caller), kind, public_id)
        if answer.ended is not None:
            return answer
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS), aclosing(self.follow(answer)) as batches:
                async for _ in batches:
                    pass
        return await self.get(caller, kind, public_id)

    async def delete(self, caller: Caller, kind: Kind, public_id: str) -> None:
        """The answer is gone, even while it is being written. A message in a thread stays there."""
        await self._call("delete_response", credential_of(caller), kind, public_id)

    async def follow(self, answer: StoredAnswer) -> AsyncGenerator[list[Item], None]:
        """The answer's items from its beginning to its Ended, as they come; the first is Started(0). The same items for
        every reader, however batched. A database that restarts is waited for. Closing it costs nothing.

        Where retention took the pieces, the text comes as one. Raises ApiError 404 when the answer is deleted
        meanwhile, 410 when retention takes pieces that this reader has not had.
        """
        items, is_begun = LogItems(answer.message_id), False
        pages = self._tail.pages(answer.credential, answer.message_id, answer.conversation_id)
        async with aclosing(pages):
            try:
                async for page in pages:
                    batch = items.feed(page)
                    is_begun = True
                    yield batch
            except AnswerGone:
                raise missing(answer.public_id) from None
            except DeltasPruned:
                # A reader who goes on after an event relies on their being there.
                if is_begun or answer.events_kept:
                    raise expired(answer.public_id) from None
        if not is_begun:
            whole = await self._of_own("read_response", answer.credential, answer.kind, answer.public_id)
            assert whole.ended is not None, "deltas of an answer that is being written are kept"
            yield [Started(0), Piece(0, whole.text), whole.ended]

    async def _begin(self, caller: Caller, query: str, once: list[str] | None, *what: object) -> StoredAnswer:
        credential = credential_of(caller)
        begun = orjson.loads(await self._database.value(query, credential, self._idle, once, *what))
        answer = self._handed_over(begun["answer"], credential)
        if begun["is_new"] and self._counts_tokens:
            # In a context of its own: it outlives the request. Who reads the answer, if anybody, is another matter.
            task = asyncio.get_running_loop().create_task(self._count(caller, answer), context=contextvars.Context())
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)
        return answer

    def _handed_over(self, row: Json, credential: bytes) -> StoredAnswer:
        answer = StoredAnswer.from_row(row, credential)
        if answer.ended is None:
            prefix = Prefix.of_thread(UUID(row["thread_id"])) if row["thread_id"] else Prefix.of_ask(answer.ask)
            self._turns.hand_over(answer.message_id, answer.model_id, prefix)
        return answer

    async def _count(self, caller: Caller, answer: StoredAnswer) -> None:
        """Charges the tokens at the end; where the answer is deleted or the credential ends before, those that came."""
        tokens = 0
        # It goes on after no event: where retention took them all, the end still tells of the tokens.
        from_any = replace(answer, events_kept=False)
        with contextlib.suppress(ApiError, RefusedError):
            while True:
                try:
                    async with aclosing(self.follow(from_any)) as batches:
                        tokens = 0
                        async for batch in batches:
                            tokens = _tokens(batch, tokens)
                    break
                except DatabaseUnavailable:
                    await asyncio.sleep(RETRY_SECONDS)
        self._limits.charge(caller, tokens)

    async def _of_own(self, query: str, credential: bytes, kind: Kind, public_id: str, *what: object) -> StoredAnswer:
        text = await self._call(query, credential, kind, public_id, *what)
        return StoredAnswer.from_row(orjson.loads(text), credential)

    async def _call(self, query: str, credential: bytes, kind: Kind, public_id: str, *what: object) -> Any:
        message_id = message_id_of(kind, public_id)
        if message_id is None:
            raise missing(public_id)
        try:
            return await self._database.value(query, credential, self._idle, kind, message_id, *what)
        except RefusedError as error:
            if error.status == 404:
                raise missing(public_id) from None
            raise


def _tokens(batch: list[Item], before: int) -> int:
    """What an answer has used after these items: what came, until its end tells of all."""
    for item in batch:
        if isinstance(item, Piece):
            before += len(item.token_ids)
        elif isinstance(item, Ended):
            before = item.prompt_tokens + item.completion_tokens
    return before


def _json(ask: Ask, shown: Json) -> tuple[str, str]:
    """As the database holds them. Raises ApiError for texts that it cannot hold."""
    try:
        return ASK.dump_json(ask).decode(), _storable(shown)
    except ValueError:
        raise _unstorable() from None


def _storable(shown: Json) -> str:
    try:
        text = orjson.dumps(shown).decode()
    except TypeError:
        raise _unstorable() from None
    # PostgreSQL's jsonb cannot hold U+0000. An escaped backslash before "u0000" is none.
    if "\\u0000" in text.replace("\\\\", ""):
        raise _unstorable()
    return text


def credential_of(caller: Caller) -> bytes:
    """Raises ApiError for somebody who is nobody: their answers could be read by anybody."""
    if caller.credential is None:
        raise ApiError(
            status=401,
            type="authentication_error",
            code="missing_api_key",
            message="Answers are stored for whoever signs in only: send an API key, or leave out `store`.",
        )
    return caller.credential


def missing(public_id: str) -> ApiError:
    """404: never there, deleted, or somebody else's."""
    return ApiError(
        status=404,
        type="invalid_request_error",
        code="not_found",
        message=f"There is no stored answer {public_id!r}. It may have been deleted.",
    )


def expired(public_id: str) -> ApiError:
    """410: pieces that the reader has not had are gone."""
    return ApiError(
        status=410,
        type="invalid_request_error",
        code="events_expired",
        message=f"The events of {public_id!r} are not kept any more. Read it from its beginning, without a place to "
        "go on after.",
    )


def _unstorable() -> ApiError:
    return ApiError(
        status=400,
        type="invalid_request_error",
        code="invalid_value",
        message="A text that is to be stored must be valid Unicode without the character U+0000.",
    )
