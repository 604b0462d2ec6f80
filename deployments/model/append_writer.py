"""Group commit: the deltas of all turns of a replica go to the log in one call a flush.

While one commit is in flight the next batch gathers: immediate when idle, coalescing under load. After it, text gathers
for a while that grows with the number of answers being written; their first words and their ends do not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import orjson

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.generation import Json, Logprob
from deployments.model.claim import Claim
from deployments.model.engine import Generation, TokenDelta
from deployments.observability.metrics import APPEND_SECONDS, APPENDS

logger = logging.getLogger(__name__)

# A flush and the wake-ups that it causes take cores from the engine, whose threads wait for each other. With 8 answers
# that cost 12 % of the tokens when each step was flushed, and 5 % with these pauses (load/README.md). Text that comes
# ten times a second still reads as if it flowed.
PAUSE_SECONDS = 0.01  # for each answer in a flush
LONGEST_PAUSE_SECONDS = 0.1


@dataclass(eq=False)
class OpenTurn:
    """A turn whose lease this replica holds, with what is not yet committed."""

    claim: Claim
    deltas: int  # numbers given out
    renewed: float  # when its lease began anew, by the monotonic clock
    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    lost: bool = False  # another replica has it, or it has ended: nothing more may be written
    cancelled: bool = False
    generation: Generation | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ends the generation after the engine's current step."""
        self.cancelled = True
        if self.generation is not None:
            self.generation.cancel()

    def lose(self) -> None:
        """Gives up what is not committed."""
        self.lost = True
        self.stop()
        self.settled.set()

    def next_delta(self) -> tuple[int, str, str] | None:
        """What gathered, as one delta: (number, payload, token ids); None when there is nothing."""
        if not self.text:
            return None
        number, claim = self.deltas, self.claim
        content = "".join(self.text)
        choice: Json = {
            "index": 0,
            "delta": {"role": "assistant", "content": content} if number == 0 else {"content": content},
            "finish_reason": None,
        }
        if self.logprobs:
            choice["logprobs"] = {"content": [_logprob_json(item) for item in self.logprobs]}
        payload = {
            "id": f"{claim.message_id}:{number}",
            "object": "chat.completion.chunk",
            "message_id": str(claim.message_id),
            "root_id": str(claim.root_id),
            "conversation_id": str(claim.conversation_id),
            "parent_id": str(claim.parent_id) if claim.parent_id else None,
            "depth": claim.depth,
            "choices": [choice],
        }
        tokens = ",".join(map(str, self.token_ids))
        self.deltas += 1
        self.text.clear()
        self.token_ids.clear()
        self.logprobs.clear()
        return number, orjson.dumps(payload).decode(), tokens


class AppendWriter:
    """Holds the turns that this replica writes, and their leases. All methods belong to one event loop."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        self._database = database
        self._lease = lease
        self._turns: dict[UUID, OpenTurn] = {}
        self._dirty = asyncio.Event()  # there is text to commit
        self._hurry = asyncio.Event()  # and it may not wait for more

    def open(self, claim: Claim) -> OpenTurn:
        """Takes charge of a claimed turn until `close`. An older claim of the same turn is lost thereby."""
        if older := self._turns.get(claim.message_id):
            older.lose()
        turn = OpenTurn(claim, claim.delta_count, time.monotonic())
        turn.settled.set()
        self._turns[claim.message_id] = turn
        return turn

    def find(self, message_id: UUID) -> OpenTurn | None:
        """The turn, if it is written here."""
        return self._turns.get(message_id)

    def add(self, turn: OpenTurn, delta: TokenDelta, logprobs: Sequence[Logprob] = ()) -> None:
        """Queues a delta for the next flush, with the log-probabilities that its readers get."""
        if turn.lost:
            return
        if turn.deltas == turn.claim.delta_count and not turn.text:
            self._hurry.set()  # its first words
        # PostgreSQL's text cannot hold U+0000, which a model may well produce.
        turn.text.append(delta.text.replace("\0", "\N{REPLACEMENT CHARACTER}"))
        turn.token_ids.extend(delta.token_ids)
        turn.logprobs.extend(logprobs)
        turn.settled.clear()
        self._dirty.set()

    async def settle(self, turn: OpenTurn) -> None:
        """Returns when all that was added is committed, or the turn is lost."""
        if not turn.settled.is_set():
            self._hurry.set()
        await turn.settled.wait()

    def close(self, turn: OpenTurn) -> None:
        """Lets the turn go."""
        if self._turns.get(turn.claim.message_id) is turn:
            del self._turns[turn.claim.message_id]

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            await _set_within(self._dirty, self._lease.total_seconds() / 4)
            written = await self._flush()
            await _set_within(self._hurry, min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * written))

    async def _flush(self) -> int:
        """Commits what gathered, and renews leases; returns of how many turns there was text."""
        self._dirty.clear()
        self._hurry.clear()
        now = time.monotonic()
        # A turn that waits for its first token goes along when its lease wants to be renewed.
        batch = [(turn, turn.next_delta()) for turn in self._turns.values()]
        batch = [
            (turn, delta) for turn, delta in batch if delta or now - turn.renewed > self._lease.total_seconds() / 8
        ]
        if not batch:
            return 0
        arguments = (
            [turn.claim.message_id for turn, _ in batch],
            [turn.claim.epoch for turn, _ in batch],
            [delta[0] if delta else None for _, delta in batch],
            [delta[1] if delta else None for _, delta in batch],
            [delta[2] if delta else None for _, delta in batch],
            self._lease,
        )
        started = time.perf_counter()
        answer = orjson.loads(await self._append(arguments))
        APPEND_SECONDS.observe(time.perf_counter() - started)
        APPENDS.inc()
        attention = {UUID(message_id): what for message_id, what in answer}
        for turn, _ in batch:
            turn.renewed = now
            what = attention.get(turn.claim.message_id)
            if what == "lost":
                turn.lose()
            elif what == "cancel":
                turn.stop()
            if not turn.text:
                turn.settled.set()
        return sum(delta is not None for _, delta in batch)

    async def _append(self, arguments: tuple[object, ...]) -> str:
        is_waiting = False
        # The same batch again after an error: the database ignores deltas whose numbers it has.
        while True:
            try:
                return await self._database.value("worker_append", *arguments)
            except DatabaseUnavailable:
                if not is_waiting:
                    logger.warning("the database cannot be reached; the answers being written wait for it")
                is_waiting = True
                await asyncio.sleep(0.2)


def _logprob_json(item: Logprob) -> Json:
    """As the event `message.delta` has it."""
    return {
        "token": item.token,
        "bytes": list(item.raw),
        "logprob": item.logprob,
        "top_logprobs": [{"token": token, "bytes": list(raw), "logprob": value} for token, raw, value in item.top],
    }


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but no longer than this."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
