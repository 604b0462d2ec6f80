"""The two systems that deliver events: the product, whose events are committed first, and nchan, from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol
from urllib.parse import urlsplit

import psutil

from load.client import Client
from load.costs import product_groups
from load.database.delta_feed import DeltaFeed
from load.nchan import Nchan
from load.own_product import OwnProduct
from load.readers import Target, request


class Side(Protocol):
    """A system with one channel."""

    name: str

    def target(self, readers: int) -> Target:
        """So many readers of it."""
        ...

    async def publish(self, texts: list[str]) -> None:
        """One delta with each text; the system has taken them all when this returns."""
        ...

    def groups(self) -> dict[str, list[psutil.Process]]:
        """Its processes by what they do."""
        ...


class ProductSide:
    """A conversation of a running product in which answers are written by a feed instead of a model."""

    name = "product"

    def __init__(self, product: OwnProduct, admin: Client, conversation: str, feed: DeltaFeed) -> None:
        self._product, self._admin, self._conversation, self._feed = product, admin, conversation, feed

    @classmethod
    @asynccontextmanager
    async def open(cls, product: OwnProduct, admin: Client, answers: int) -> AsyncIterator[ProductSide]:
        """`answers` are written at once."""
        conversation = admin.converse("Fan-out").id
        feed = await DeltaFeed.open(product.home, admin.cookies["SESSION_ID"], conversation, answers)
        try:
            yield cls(product, admin, conversation, feed)
        finally:
            await feed.close()

    def target(self, readers: int) -> Target:
        return stream_target(self._admin, [self._conversation] * readers)

    async def publish(self, texts: list[str]) -> None:
        await self._feed.append(texts)

    def sample(self, text: str) -> bytes:
        """An event's data, as readers get it."""
        payload = self._feed.payload(0, text)
        # As json_build_object writes it.
        return b'{"type" : "message.delta", "payload" : %s}' % payload.encode()

    def groups(self) -> dict[str, list[psutil.Process]]:
        return product_groups(self._product.process, self._product.home)


class NchanSide:
    """The same events as the product's, given to nchan one by one."""

    name = "nchan"

    def __init__(self, server: Nchan, ours: ProductSide) -> None:
        self._server = server
        self._sample = ours.sample("%s")

    @classmethod
    @contextmanager
    def open(cls, ours: ProductSide) -> Iterator[NchanSide]:
        """Events are as long as those of `ours`."""
        with Nchan() as server:
            yield cls(server, ours)

    def target(self, readers: int) -> Target:
        return self._server.target(readers)

    async def publish(self, texts: list[str]) -> None:
        self._server.publish([self._sample % text.encode() for text in texts])

    def groups(self) -> dict[str, list[psutil.Process]]:
        return {"nginx": self._server.processes()}


def stream_target(client: Client, conversations: list[str]) -> Target:
    """One reader for each of the conversations, with the client's session."""
    headers = {"Cookie": f"SESSION_ID={client.cookies['SESSION_ID']}"}
    address = urlsplit(client.url)
    assert address.hostname
    assert address.port
    paths = [f"/api/stream/conversations/{conversation}" for conversation in conversations]
    return Target(address.hostname, address.port, [request(path, headers) for path in paths])
