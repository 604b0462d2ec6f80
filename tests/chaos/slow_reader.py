"""A reader that takes one byte a second, for a while."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp

from tests.chaos.client import Client, parse_block
from tests.chaos.history import Cursor, History, Seen
from tests.chaos.readers import begin, read_to

BUFFER_BYTES = 4096  # of the kernel and of the client: what is ahead of the reader is mostly on the service's side


async def read_slowly(client: Client, history: History, channel: str, end: Cursor, seconds: float) -> None:
    """Reads a channel from its beginning, one byte a second, and after `seconds` as fast as it comes, up to `end`;
    cut off, it goes on over ordinary connections."""
    reading = begin(history, "slow reader", channel, Cursor(end.epoch, 0))
    connector = aiohttp.TCPConnector(socket_factory=_small_socket)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=BUFFER_BYTES) as http:
        url = f"{client.door}/api/stream/conversations/{channel}"
        try:
            async with http.get(url, headers=client.headers | {"Last-Event-ID": "0"}) as answer:
                answer.raise_for_status()
                rest = b""
                for _ in range(int(seconds)):
                    rest += await answer.content.read(1)
                    await asyncio.sleep(1)
                async for chunk in answer.content.iter_any():
                    *blocks, rest = (rest + chunk).split(b"\n\n")
                    for block in map(parse_block, blocks):
                        if block.id and not block.event:
                            reading.place = Cursor.parse(block.id)
                        elif block.id:
                            seen = Seen(Cursor.parse(block.id), block.event, history.shared(block.data))
                            reading.events.append(seen)
                    if reading.last is not None and reading.last >= end:
                        break
        except aiohttp.ClientError:
            pass
    reading.end = "lost"
    await read_to(client, history, "slow reader", channel, reading.last or Cursor(end.epoch, 0), end, to_the_end=False)


def _small_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return made
