"""The strategy `drop_tokens`: a reader that is behind gets the text it missed in fewer events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import orjson

from deployments.streamer.wire import Cursor, Frame, frame

DELTA = "message.delta"
Read = tuple[Frame, Any]


def merge_deltas(epoch: int, frames: Sequence[Frame]) -> list[Frame]:
    """Neighbouring deltas of one message become one, which has the id of the last and the text of all. Nothing else
    changes: deltas with another event between them stay apart, so that every id still stands for all before it."""
    read = [(item, orjson.loads(item.envelope) if item.type == DELTA else None) for item in frames]
    return [_merged(epoch, list(run)) for _, run in groupby(read, _run)]


def _run(read: Read) -> object:
    """Equal for neighbours that become one."""
    item, envelope = read
    return item.offset if envelope is None else envelope["payload"]["message_id"]


def _merged(epoch: int, deltas: list[Read]) -> Frame:
    (first, envelope), (last, last_envelope) = deltas[0], deltas[-1]
    if first is last:
        return first
    text = "".join(_delta(each).get("content", "") for _, each in deltas)
    # The last one's number and finish reason, the first one's role.
    last_envelope["payload"]["choices"][0]["delta"] = _delta(envelope) | {"content": text}
    return frame(Cursor(epoch, last.offset), DELTA, orjson.dumps(last_envelope).decode())


def _delta(envelope: Any) -> dict[str, str]:
    return envelope["payload"]["choices"][0]["delta"]
