"""Password hashes: Argon2id, off the event loop."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

# OWASP's second choice of Argon2id parameters: 19 MiB, 2 passes, 1 lane.
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Hashing uses a core for tens of milliseconds: a burst of logins must not take them all.
_turnstile = asyncio.Semaphore(2)


async def hash_password(password: str) -> str:
    """PHC string of a password."""
    async with _turnstile:
        return await asyncio.to_thread(HASHER.hash, password)


async def verify_password(password: str, phc: str | None) -> bool:
    """Whether the password fits. Without a hash it takes as long as with one, and is False."""
    async with _turnstile:
        return await asyncio.to_thread(_verify, password, phc)


def _verify(password: str, phc: str | None) -> bool:
    if phc is None:
        HASHER.hash(password)
        return False
    try:
        return HASHER.verify(phc, password)
    except (VerifyMismatchError, InvalidHashError):
        return False
