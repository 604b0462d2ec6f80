"""What a caller holds while an answer is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from deployments.model.engine.request import Finish, TokenDelta
from deployments.model.engine.sequence import Sequence


class Generation:
    """An async iterator of deltas and then exactly one Finish. Leaving it early frees its slot."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence

    def cancel(self) -> None:
        """Ends it after the engine's current step: what is ready is still delivered, then Finish("cancelled")."""
        self._sequence.cancelled = True

    async def ready(self, not_before: float = 0.0) -> list[TokenDelta | Finish]:
        """All that is there and has not been taken yet: at least one item, waited for. More gathers until `not_before`,
        a time of the event loop; the end does not wait for that. Not after the Finish."""
        outbox, loop = self._sequence.outbox, asyncio.get_running_loop()
        items = [await outbox.get()]
        if loop.time() < not_before and not self._sequence.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(not_before):
                    await self._sequence.ended.wait()
        while not outbox.empty():
            items.append(outbox.get_nowait())
        return items

    async def __aiter__(self) -> AsyncIterator[TokenDelta | Finish]:
        try:
            while True:
                item = await self._sequence.outbox.get()
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            self._sequence.cancelled = True
