"""Streams from a `/completion` server, with the time of every piece: llama-server's and the engine's alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from load.client import LoadError

GREEDY: dict[str, Any] = {"temperature": 0.0, "top_k": 0, "top_p": 1.0}
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95}
COMMON: dict[str, Any] = {"min_p": 0.0, "repeat_penalty": 1.0, "ignore_eos": True, "stream": True, "cache_prompt": True}


@dataclass
class Stream:
    """One answer as the client saw it; times in seconds of time.perf_counter()."""

    sent: float
    pieces: list[float] = field(default_factory=list)
    ended: float = 0.0
    tokens: int = 0

    @property
    def first_token_seconds(self) -> float:
        """From sending to the first piece."""
        return self.pieces[0] - self.sent

    def gaps(self, begin: float = 0.0, end: float = float("inf")) -> list[float]:
        """Seconds between pieces that follow each other, for those that came between `begin` and `end`."""
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False) if begin <= b <= end]


class CompletionClient:
    """One server. It reads no more of an event than it needs: what it costs, the server under measurement lacks."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._host, self._port = address.hostname, address.port

    async def stream(self, prompt: Sequence[int], tokens: int, sampling: dict[str, Any], user: str = "") -> Stream:
        """Asks for exactly `tokens` tokens. Raises LoadError when they do not come."""
        result = Stream(time.perf_counter())
        await self.fill(result, prompt, tokens, sampling, user)
        if result.tokens != tokens or not result.pieces:
            raise LoadError(f"{result.tokens} tokens came instead of {tokens}")
        return result

    async def fill(
        self, result: Stream, prompt: Sequence[int], tokens: int, sampling: dict[str, Any], user: str
    ) -> None:
        """The same, into a stream that the caller sees grow; may be cancelled."""
        body = {"prompt": list(prompt), "n_predict": tokens, "user": user} | COMMON | sampling
        reader, writer = await self._send("POST", "/completion", orjson.dumps(body))
        try:
            # Both servers write an event in one piece, so that chunk sizes never cut a line.
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    continue
                if b'"stop":true' in line:
                    result.tokens = orjson.loads(line[6:])["tokens_predicted"]
                    break
                if b'"content":""' not in line:
                    result.pieces.append(time.perf_counter())
        finally:
            writer.close()
        result.ended = time.perf_counter()

    async def stats(self) -> dict[str, Any]:
        """The engine's counters (not llama-server's)."""
        reader, writer = await self._send("GET", "/stats", b"")
        answer = await reader.read()
        writer.close()
        return orjson.loads(answer.split(b"\r\n\r\n", 1)[1])

    async def wait_until_ready(self, seconds: float = 120.0, path: str = "/health") -> None:
        """Returns when the model is loaded: `path` answers 200. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    reader, writer = await self._send("GET", path, b"")
                    status = await reader.readline()
                    writer.close()
                    if b" 200 " in status:
                        return
                except OSError:
                    pass
                await asyncio.sleep(0.05)

    async def _send(self, method: str, path: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + body)
        return reader, writer
