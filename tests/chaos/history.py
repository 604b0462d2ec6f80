"""What the clients did and saw while faults were injected. The checker judges it; nothing here does."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Outcome = Literal["ok", "refused", "unknown"]
"""ok: the service said that it was done. refused: it said that it was not (4xx). unknown: no answer came, or one that
does not tell (5xx), so it may have been done."""


class Cursor(NamedTuple):
    """A place in a channel's log, as the service writes it: N, or E:N where the epoch is not 1."""

    epoch: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ValueError for anything else."""
        epoch, _, offset = text.rpartition(":")
        return cls(int(epoch or 1), int(offset))

    def __str__(self) -> str:
        return str(self.offset) if self.epoch == 1 else f"{self.epoch}:{self.offset}"


class Seen(NamedTuple):
    """One event as it arrived. `data` are the bytes of its data line."""

    cursor: Cursor
    type: str
    data: bytes


@dataclass
class Reading:
    """One connection of one reader to one channel."""

    reader: str
    channel: str
    after: Cursor | None  # what the reader presented
    place: Cursor | None = None  # where the service said that the stream begins
    events: list[Seen] = field(default_factory=list)
    end: Literal["", "cut", "lost", "refused", "reset", "reconnect"] = ""
    to_the_end: bool = False  # it was kept open until the log was quiet: nothing may be missing at its end

    @property
    def last(self) -> Cursor | None:
        """Where the reader stands now."""
        return self.events[-1].cursor if self.events else (self.after or self.place)


@dataclass
class Post:
    """One thing that somebody wanted to be created, once, however often it was sent."""

    key: str  # its Idempotency-Key; also in its text, by which it is found in the log
    kind: Literal["conversation", "root", "reply"]
    person: str
    target: str  # conversation of a root, parent of a reply
    outcome: Outcome = "unknown"
    sent: int = 0
    answers: list[dict[str, str]] = field(default_factory=list)  # ids, of each acknowledgement


@dataclass
class Cancel:
    """Somebody stopped an answer. `status` is what the service said: cancelled, cancelling, completed."""

    message_id: str
    outcome: Outcome
    status: str | None = None


@dataclass
class Takeover:
    """A turn whose replica was stopped, not killed: another one has to take it before the first wakes up."""

    message_id: str
    taken: bool


@dataclass
class History:
    """Everything of one chapter."""

    posts: list[Post] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    takeovers: list[Takeover] = field(default_factory=list)
    unrecovered: list[str] = field(default_factory=list)  # moves after which the service did not come back in time
    refusals: list[str] = field(default_factory=list)  # 4xx answers to what was right
    _bytes: dict[bytes, bytes] = field(default_factory=dict, repr=False)

    def shared(self, data: bytes) -> bytes:
        """The same bytes, kept once however many readers see them."""
        return self._bytes.setdefault(data, data)

    @property
    def observations(self) -> int:
        """Events seen, counted for each reader."""
        return sum(len(reading.events) for reading in self.readings)

    def dump(self, path: Path) -> None:
        """One JSON object a line, for eyes and jq."""
        with path.open("w") as file:
            for kind in ("posts", "cancels", "takeovers", "readings"):
                for item in getattr(self, kind):
                    file.write(json.dumps({"kind": kind} | dataclasses.asdict(item), default=_text) + "\n")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
