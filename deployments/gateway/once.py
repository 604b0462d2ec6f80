"""Idempotency-Key: a request that is sent again with the same key has no second effect and gets the first answer."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request

from deployments.problems import ProblemError


async def once_of(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="sent again with the same key, the request has no second effect")
    ] = None,
) -> list[str] | None:
    """The key with a fingerprint of the request, as the stored functions take it; None without a key.

    Raises ProblemError 400 for a key that cannot be one.
    """
    if idempotency_key is None:
        return None
    if not 1 <= len(idempotency_key) <= 255 or not idempotency_key.isascii() or not idempotency_key.isprintable():
        raise ProblemError(
            400, "RGP.VALIDATION", "Idempotency-Key must be 1 to 255 printable ASCII characters, for instance a UUID."
        )
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    digest.update(await request.body())
    return [idempotency_key, digest.hexdigest()]


OnceOf = Annotated[list[str] | None, Depends(once_of)]
