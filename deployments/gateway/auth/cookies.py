"""The two cookies of a session."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from deployments.config import Session
from deployments.problems import ProblemError
from deployments.sessions import CSRF_COOKIE, CSRF_HEADER, SESSION_COOKIE


def csrf_token(session_token: str) -> str:
    """Bound to the session: a token of another or an older session does not pass."""
    digest = hmac.digest(session_token.encode(), b"rustygpt csrf", hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def set_cookies(response: Response, token: str, settings: Session) -> None:
    """Hands a session to the browser: the token out of scripts' reach, the CSRF token within it."""
    shared: dict[str, Any] = {"max_age": settings.absolute_seconds, "path": "/", "secure": settings.cookie_secure}
    response.set_cookie(SESSION_COOKIE, token, httponly=True, samesite=settings.cookie_same_site, **shared)
    response.set_cookie(CSRF_COOKIE, csrf_token(token), httponly=False, samesite="strict", **shared)


def clear_cookies(response: Response) -> None:
    """Takes both back."""
    response.delete_cookie(SESSION_COOKIE, path="/")
    response.delete_cookie(CSRF_COOKIE, path="/")


async def require_csrf(request: Request) -> None:
    """Dependency of every call that changes something. Raises ProblemError 403."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    token = request.cookies.get(SESSION_COOKIE)
    sent = request.headers.getlist(CSRF_HEADER)
    if token and (len(sent) != 1 or not hmac.compare_digest(sent[0].encode(), csrf_token(token).encode())):
        raise ProblemError(
            403,
            "RGP.AUTH.CSRF",
            f"Send the value of the cookie {CSRF_COOKIE} in the header {CSRF_HEADER}.",
        )
