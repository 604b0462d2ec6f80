"""The Gateway's end of the streams on which a model's replicas send all its answers: model/shared_streams.py."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.generation import Item, ReturnPath, SentBatch, Switch

logger = logging.getLogger(__name__)


class StreamLost(RayServeException):
    """A shared stream has broken: what was on it may be lost."""


class SharedReader:
    """Reads them for one model, one for each replica that has something to send. For one event loop."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(stream=True)
        self._name = uuid4().hex
        self._numbers = itertools.count()
        self._inboxes: dict[int, Inbox] = {}
        self._openings: dict[str, int] = {}
        self._lost: deque[int] = deque(maxlen=16)
        self._tasks: set[asyncio.Task[None]] = set()

    def inbox(self) -> Inbox:
        """For an answer that is about to be asked for."""
        path = ReturnPath(self._name, next(self._numbers), tuple(self._lost))
        made = self._inboxes[path.number] = Inbox(self, path)
        return made

    def close(self, inbox: Inbox) -> None:
        """Nobody reads it any more. Idempotent."""
        self._inboxes.pop(inbox.path.number, None)

    def read(self, replica: str) -> None:
        """Sees to it that this replica has a stream to send on."""
        if replica and replica not in self._openings:
            opening = self._openings[replica] = next(self._numbers)
            # In no request's context: Serve would end the stream with that request.
            task = asyncio.create_task(self._read(replica, opening), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def is_open(self, opening: int) -> bool:
        """Whether what is sent there arrives."""
        return opening in self._openings.values()

    async def _read(self, replica: str, opening: int) -> None:
        stream: Any = None
        try:
            stream = self._handle.carry.remote(replica, self._name, opening)
            async for parcels in stream:
                for number, batch in parcels.items():
                    if inbox := self._inboxes.get(number):
                        inbox.sent.put_nowait(batch)
        except Exception as error:  # noqa: BLE001 whatever it is, its answers are asked for anew
            logger.warning("a shared stream was lost: %s", type(error).__name__)
            self._lost.append(opening)
        finally:
            if stream is not None:
                stream.cancel()
            del self._openings[replica]
            for inbox in self._inboxes.values():
                inbox.sent.put_nowait([])  # whoever waits for more looks whether it can come


class Inbox:
    """What comes for one answer on a shared stream."""

    def __init__(self, reader: SharedReader, path: ReturnPath) -> None:
        self.path = path
        self.sent: asyncio.Queue[SentBatch] = asyncio.Queue()
        self._reader = reader

    async def batches(self, switch: Switch) -> AsyncIterator[list[Item]]:
        """From this switch on until the answer goes on in its own stream. Raises StreamLost."""
        while True:
            if self.sent.empty() and not self._reader.is_open(switch.opening):
                raise StreamLost
            if not (sent := await self.sent.get()):
                continue
            batch, back = split(sent)
            if batch:
                yield batch
            if back:
                return


def split(sent: SentBatch) -> tuple[list[Item], Switch | None]:
    """What an answer's batch has for its reader, and whether it goes on elsewhere."""
    last = sent[-1]
    items = [item for item in sent if not isinstance(item, Switch)]
    return items, last if isinstance(last, Switch) else None
