"""The session cookie, as every deployment that answers browsers reads it."""

from __future__ import annotations

import hashlib

from starlette.requests import HTTPConnection

from deployments.problems import ProblemError

SESSION_COOKIE = "SESSION_ID"
CSRF_COOKIE = "CSRF-TOKEN"
CSRF_HEADER = "X-CSRF-TOKEN"


def token_hash(token: str) -> bytes:
    """What the database knows of a token: its SHA-256, so that a stolen table opens no session."""
    return hashlib.sha256(token.encode()).digest()


def session_of(connection: HTTPConnection) -> bytes:
    """Hash of the request's session token. Raises ProblemError 401 when there is none."""
    token = connection.cookies.get(SESSION_COOKIE)
    if not token:
        raise ProblemError(401, "RGP.AUTH.MISSING_SESSION", "You are not signed in. Sign in and try again.")
    return token_hash(token)
