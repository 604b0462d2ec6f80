"""How many requests per second the service answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from load.client import LoadError

WARM_UP_SECONDS = 0.5


def requests_per_second(
    url: str,
    path: str,
    connections: int,
    seconds: float,
    cookies: dict[str, str] | None = None,
    key: str | None = None,
    body: Callable[[int], dict[str, Any]] | None = None,
) -> float:
    """Answers per second over `connections` keep-alive connections, each with one request at a time: GET, or POST of
    what `body` makes of the request's number as JSON, with a session's cookies or an API key.

    The client runs on the same machine where the service does: its share of the cores is in the figure.
    Raises LoadError at the first answer that is not 200.
    """
    # Plain headers: the jar keeps no cookies of bare addresses, and would be asked for each request.
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return asyncio.run(_measure(url + path, connections, seconds, headers, body))


async def _measure(
    address: str,
    connections: int,
    seconds: float,
    headers: dict[str, str],
    body: Callable[[int], dict[str, Any]] | None,
) -> float:
    method = "GET" if body is None else "POST"
    numbers = itertools.count()
    connector = aiohttp.TCPConnector(limit=connections)
    begins = time.perf_counter() + WARM_UP_SECONDS
    ends = begins + seconds

    async def ask() -> int:
        answered = 0
        while (now := time.perf_counter()) < ends:
            sent = body(next(numbers)) if body else None
            async with session.request(method, address, json=sent) as answer:
                await answer.read()
                if answer.status != 200:
                    raise LoadError(f"{method} {address}: {answer.status} {(await answer.text())[:300]}")
            answered += now >= begins
        return answered

    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        try:
            counts = await asyncio.gather(*(ask() for _ in range(connections)))
        except aiohttp.ClientError as error:
            raise LoadError(f"{method} {address}: {error}") from error
    return sum(counts) / (time.perf_counter() - begins)
