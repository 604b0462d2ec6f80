"""Waiting for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], every_seconds: float = 0.05) -> T:
    """What `look` returns, once it is true."""
    while True:
        if found := await look():
            return found
        await asyncio.sleep(every_seconds)
