"""Streams from a `/completion` server, with the time of every piece: llama-server's and the engine's alike."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

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
    text: str = ""

    @property
    def first_token_seconds(self) -> float:
        """From sending to the first piece."""
        return self.pieces[0] - self.sent

    def gaps(self, begin: float = 0.0, end: float = float("inf")) -> list[float]:
        """Seconds between pieces that follow each other, for those that came between `begin` and `end`."""
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False) if begin <= b <= end]


class CompletionClient:
    """One server. Use inside `async with`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> CompletionClient:
        self._http = aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=900),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def stream(self, prompt: Sequence[int], tokens: int, sampling: dict[str, Any], user: str = "") -> Stream:
        """Asks for exactly `tokens` tokens."""
        body = {"prompt": list(prompt), "n_predict": tokens, "user": user} | COMMON | sampling
        result = Stream(time.perf_counter())
        async with self._http.post("/completion", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if event["content"]:
                    result.pieces.append(time.perf_counter())
                    result.text += event["content"]
                if event["stop"]:
                    result.tokens = event["tokens_predicted"]
        result.ended = time.perf_counter()
        return result

    async def stats(self) -> dict[str, Any]:
        """The engine's counters (not llama-server's)."""
        async with self._http.get("/stats") as response:
            return await response.json()

    async def wait_until_ready(self, seconds: float = 120.0) -> None:
        """Returns when the model is loaded. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    async with self._http.get("/health") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
