"""The secret of an invitation."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets


def new_token(session_token: str, once: list[str] | None) -> str:
    """32 bytes that nobody can guess, as base64url.

    A request with an Idempotency-Key must get the same token when it is sent again, and the database knows only its
    hash. So it is derived from the request, with the session's token as the key: that is as random as the token must
    be, the client sends it each time, and the database does not know it either.
    """
    if once is None:
        return secrets.token_urlsafe(32)
    request = "\n".join(("rustygpt invite", *once))
    digest = hmac.digest(session_token.encode(), request.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
