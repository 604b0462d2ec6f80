"""Server-sent events as they go over the wire, and the cursors in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson
from starlette.types import Message

from deployments.problems import ProblemError

RETRY = b"retry: 1000\n\n"
# As much as the server's transport takes before it makes the writer wait: what one slow reader holds in memory.
WRITE_BYTES = 65_536
DATA = b"\ndata: "


@dataclass(frozen=True)
class Cursor:
    """A place in a channel: everything up to `offset` was seen. Written N, or E:N where the epoch is not 1."""

    epoch: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ProblemError 400 for anything that is no cursor."""
        epoch, colon, offset = text.strip().rpartition(":")
        if offset.isascii() and offset.isdigit() and len(offset) < 19:
            if not colon:
                return cls(1, int(offset))
            if epoch.isascii() and epoch.isdigit() and len(epoch) < 10:
                return cls(int(epoch), int(offset))
        raise ProblemError(
            400,
            "RGP.VALIDATION",
            "Last-Event-ID (or `after`) is no cursor of this service. Send the id of the last event, or none.",
        )

    def __str__(self) -> str:
        return str(self.offset) if self.epoch == 1 else f"{self.epoch}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, encoded once for all its readers."""

    offset: int
    type: str
    data: bytes

    @property
    def envelope(self) -> bytes:
        """The event's JSON."""
        return self.data[self.data.index(DATA) + len(DATA) : -2]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that go out in one write. `last` is the offset of the last one; `message` is the write itself, one for
    all readers."""

    last: int
    message: Message
    counts: Counter[str]

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> Batch:
        """At least one frame."""
        data = b"".join(item.data for item in frames)
        return cls(frames[-1].offset, body(data), Counter(item.type for item in frames))


def body(data: bytes) -> Message:
    """More of the answer."""
    return {"type": "http.response.body", "body": data, "more_body": True}


PING = body(b": ping\n\n")


def frame(cursor: Cursor, kind: str, envelope: str) -> Frame:
    """`envelope` is the event as the log has it; JSON text holds no line break."""
    return Frame(cursor.offset, kind, f"id: {cursor}\nevent: {kind}\ndata: {envelope}\n\n".encode())


def batches(frames: Sequence[Frame]) -> Iterator[Batch]:
    """All frames in writes of at most WRITE_BYTES; a frame longer than that goes alone."""
    start = size = 0
    for place, item in enumerate(frames):
        if place > start and size + len(item.data) > WRITE_BYTES:
            yield Batch.of(frames[start:place])
            start, size = place, 0
        size += len(item.data)
    if start < len(frames):
        yield Batch.of(frames[start:])


def place(cursor: Cursor) -> bytes:
    """Tells the client where it stands without an event: a cut before the first event loses nothing."""
    return f"id: {cursor}\n\n".encode()


def notice(kind: str, reason: str) -> bytes:
    """An event of the connection, not of the log: it has no id."""
    envelope = orjson.dumps({"type": kind, "payload": {"reason": reason}})
    return b"event: " + kind.encode() + DATA + envelope + b"\n\n"
