"""From the log to items: the same items of the same answer on every Gateway, whenever it is done."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from deployments.gateway.v1.stored.answer import ended_of
from deployments.gateway.v1.stored.tail import Delta, Page
from deployments.generation import Item, Logprob, Piece, Started


class DeltasPruned(Exception):
    """Deltas of the answer went with retention: it cannot be told piece by piece any more."""


class LogItems:
    """Takes the pages of one answer in their order. What is given does not depend on where pages end."""

    def __init__(self, message_id: UUID) -> None:
        self._message_id = message_id
        self._deltas = 0
        self._tokens = 0

    def feed(self, page: Page) -> list[Item]:
        """Started with the first, a Piece for each delta, and Ended at the end. Raises DeltasPruned."""
        items: list[Item] = []
        if not self._deltas:
            # What the prompt has is told at the end, by whoever wrote the answer's end.
            items.append(Started(0))
        items.extend(self._piece(delta) for delta in page.deltas)
        if page.end is not None:
            if page.end["deltas"] != self._deltas:
                raise DeltasPruned
            items.append(ended_of(page.end, self._tokens))
        return items

    def _piece(self, delta: Delta) -> Piece:
        if delta.payload["id"] != f"{self._message_id}:{self._deltas}":
            raise DeltasPruned
        self._deltas += 1
        self._tokens += len(delta.token_ids)
        choice = delta.payload["choices"][0]
        logprobs = tuple(_logprob(item) for item in choice.get("logprobs", {}).get("content", ()))
        return Piece(0, choice["delta"]["content"], delta.token_ids, logprobs)


def _logprob(item: dict[str, Any]) -> Logprob:
    top = tuple((other["token"], bytes(other["bytes"]), other["logprob"]) for other in item["top_logprobs"])
    return Logprob(item["token"], bytes(item["bytes"]), item["logprob"], top)
