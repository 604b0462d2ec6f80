"""What a caller holds while an answer is made."""

from __future__ import annotations

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

    async def ready(self) -> list[TokenDelta | Finish]:
        """All that is there and has not been taken yet: at least one item, waited for. Not after the Finish."""
        outbox = self._sequence.outbox
        items = [await outbox.get()]
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
