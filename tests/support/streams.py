"""The Streamer's application on loopback, over a real database and real sockets, without Ray in front."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from db.pool import Database
from deployments import events
from deployments.config import Settings, Sse
from deployments.streamer.app import streamer_app
from deployments.streamer.hub import Hub
from tests.support.person import Event


class Streams:
    """A running Streamer, and people who read from it. Every event they get is checked against the contract."""

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        self.port = port
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/stream", timeout=30)

    @asynccontextmanager
    async def read(self, token: str, channel: str, after: object = None) -> AsyncIterator[AsyncIterator[Event]]:
        """Events of a conversation, or of `me`, with the session whose token this is."""
        path = "/me" if channel == "me" else f"/conversations/{channel}"
        async with self.http.stream("GET", path, headers=self._headers(token, after)) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield parsed(answer.aiter_bytes())

    async def status(self, token: str, channel: str) -> int:
        """Of an attempt to read that is refused."""
        return (await self.http.get(f"/conversations/{channel}", headers=self._headers(token, None))).status_code

    async def connect(self, token: str, channel: str, after: object) -> socket.socket:
        """A reader's bare connection, with a small buffer, of which nothing is read."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, ("127.0.0.1", self.port))
        headers = "".join(f"{name}: {value}\r\n" for name, value in self._headers(token, after).items())
        head = f"GET /api/stream/conversations/{channel} HTTP/1.1\r\nHost: streamer\r\n{headers}\r\n"
        await loop.sock_sendall(made, head.encode())
        return made

    @staticmethod
    def _headers(token: str, after: object) -> dict[str, str]:
        cookie = {"Cookie": f"SESSION_ID={token}"}
        return cookie if after is None else cookie | {"Last-Event-ID": str(after)}


async def arrivals(reader: socket.socket, data: bytes = b"") -> AsyncIterator[bytes]:
    """What a bare connection brings, without head and chunks, until it ends or is cut. `data` was read already."""
    loop = asyncio.get_running_loop()
    while b"\r\n\r\n" not in data:
        data += await loop.sock_recv(reader, 4096)
    data = data.partition(b"\r\n\r\n")[2]
    while True:
        size, found, rest = data.partition(b"\r\n")
        if found and len(rest) >= (length := int(size, 16)) + 2:
            if not length:
                return
            yield rest[:length]
            data = rest[length + 2 :]
        elif more := await loop.sock_recv(reader, 1 << 20):
            data += more
        else:
            return


async def parsed(source: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events of a stream, each checked; not the comments, and not what has no data."""
    rest = b""
    async for data in source:
        *blocks, rest = (rest + data).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            if "data" in fields:
                events.validate(fields["data"])
                content: dict[str, Any] = orjson.loads(fields["data"])
                assert content["type"] == fields["event"]
                yield Event(fields.get("id", ""), fields["event"], content["payload"])


@asynccontextmanager
async def streaming(database: Database, **sse: Any) -> AsyncIterator[Streams]:
    """A Streamer with these settings of the section `sse`."""
    settings = Settings(sse=Sse(**sse))
    hub = Hub(database, settings.sse)
    app = Starlette(routes=[Mount("/api/stream", streamer_app(database, hub, settings))])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0))
    serving, feeding = asyncio.create_task(server.serve([listener])), asyncio.create_task(hub.serve())
    streams = Streams(hub, listener.getsockname()[1])
    try:
        yield streams
    finally:
        await streams.http.aclose()
        server.should_exit = True
        await serving
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
