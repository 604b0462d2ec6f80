"""A person's HTTP client: it tells what is known of a request's fate, and hands out events as they arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from tests.support.person import PASSWORD

CALL_SECONDS = 2.0


class Unreachable(Exception):
    """No answer, half an answer, or 5xx: whether the request was carried out is not known."""


class RefusedError(Exception):
    """4xx: the request was not carried out."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Block(NamedTuple):
    """One block of a stream; `id` or `event` is empty where the block has none."""

    id: str
    event: str
    data: bytes


def open_http() -> aiohttp.ClientSession:
    """Connections for any number of clients. No cookie jar: each client sends its own."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)


class Client:
    """One person. `doors` are addresses of the service: where one does not answer, the next is tried next time."""

    def __init__(self, http: aiohttp.ClientSession, doors: Sequence[str], name: str, door: int = 0) -> None:
        self.name = name
        self.id = ""
        self._http = http
        self._doors = doors
        self._door = door
        self._headers: dict[str, str] = {}

    def again(self, door: int) -> Client:
        """The same session by another door."""
        other = Client(self._http, self._doors, self.name, door)
        other.id, other._headers = self.id, self._headers
        return other

    async def sign_in(self) -> None:
        """Opens a session."""
        async with self._http.post(
            self._url("/api/auth/login"), json={"email": self.name, "password": PASSWORD}
        ) as answer:
            answer.raise_for_status()
            body = await answer.json()
            cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in answer.cookies.items())
        self.id = body["user"]["id"]
        self._headers = {"Cookie": cookies, "X-CSRF-TOKEN": body["csrf_token"]}

    async def call(self, method: str, path: str, body: object = None, key: str | None = None) -> Any:
        """The answer's JSON. Raises RefusedError, Unreachable."""
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                self._http.request(method, self._url(path), json=body, headers=headers) as answer,
            ):
                if answer.status >= 500:
                    raise Unreachable(f"{answer.status}")
                if answer.status >= 400:
                    raise RefusedError(answer.status, await answer.text())
                return await answer.json() if answer.status != 204 else None
        except (aiohttp.ClientError, TimeoutError, Unreachable) as error:
            self._door += 1
            raise Unreachable(f"{type(error).__name__} {error}") from None

    @asynccontextmanager
    async def stream(self, channel: str, after: object | None) -> AsyncIterator[AsyncIterator[Block]]:
        """Blocks of a channel: a conversation's, or the person's own. Raises RefusedError, Unreachable."""
        path = "/api/stream/me" if channel == self.id else f"/api/stream/conversations/{channel}"
        headers = self._headers | ({} if after is None else {"Last-Event-ID": str(after)})
        try:
            async with self._http.get(self._url(path), headers=headers) as answer:
                if answer.status >= 500:
                    raise Unreachable(f"{answer.status}")
                if answer.status >= 400:
                    raise RefusedError(answer.status, await answer.text())
                yield _blocks(answer.content)
        except aiohttp.ClientError as error:
            self._door += 1
            raise Unreachable(f"{type(error).__name__} {error}") from None

    @property
    def door(self) -> str:
        """Where the next request goes."""
        return self._doors[self._door % len(self._doors)]

    @property
    def headers(self) -> dict[str, str]:
        """What makes a request this person's."""
        return self._headers

    def _url(self, path: str) -> str:
        return self.door + path


async def _blocks(content: aiohttp.StreamReader) -> AsyncIterator[Block]:
    rest = b""
    async for chunk in content.iter_any():
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            yield parse_block(block)


def parse_block(block: bytes) -> Block:
    """Lines `name: value`; others (comments) are left out."""
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line and not line.startswith(b":"))
    return Block(fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode(), fields.get(b"data", b""))
