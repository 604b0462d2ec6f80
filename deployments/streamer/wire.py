"""Server-sent events as they go over the wire, and the cursors in them."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from deployments.problems import ProblemError

PING = b": ping\n\n"
RETRY = b"retry: 1000\n\n"


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


def frame(cursor: Cursor, kind: str, envelope: str) -> Frame:
    """`envelope` is the event as the log has it; JSON text holds no line break."""
    return Frame(cursor.offset, kind, f"id: {cursor}\nevent: {kind}\ndata: {envelope}\n\n".encode())


def place(cursor: Cursor) -> bytes:
    """Tells the client where it stands without an event: a cut before the first event loses nothing."""
    return f"id: {cursor}\n\n".encode()


def notice(kind: str, payload: dict[str, str]) -> bytes:
    """An event of the connection, not of the log: it has no id."""
    envelope = orjson.dumps({"type": kind, "payload": payload})
    return b"event: " + kind.encode() + b"\ndata: " + envelope + b"\n\n"
