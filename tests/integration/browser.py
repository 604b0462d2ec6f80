"""The Gateway's application as a browser reaches it, in this process: the real routes on the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from deployments.config import Settings
from deployments.gateway.app import build_app
from deployments.gateway.auth.cookies import csrf_token
from deployments.gateway.services import Services
from deployments.sessions import SESSION_COOKIE
from tests.integration.conftest import Store


class Browser:
    """Somebody who is signed in."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def call(self, method: str, path: str, body: object = None, status: int = 200, key: str | None = None) -> Any:
        """One call; the status must be the expected one. Returns the JSON answer, or None."""
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.http.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
        return answer.json() if answer.content else None

    async def refused(self, status: int, method: str, path: str, body: object = None, key: str | None = None) -> str:
        """A call that is refused; the sentence."""
        return (await self.call(method, path, body, status, key))["message"]


@asynccontextmanager
async def browser(store: Store, name: str, token: str | None = None, **server: Any) -> AsyncIterator[Browser]:
    """A browser of `name`, whose session's token is the name itself unless another is given. `server`: settings of
    that section."""
    token = token or name
    defaults = Settings()
    settings = defaults.model_copy(update={"server": defaults.server.model_copy(update=server)})
    app = build_app(Services.build(settings, store.app))
    if name not in store.sessions:
        await store.person(name)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://gateway",
        cookies={SESSION_COOKIE: token},
        headers={"X-CSRF-TOKEN": csrf_token(token)},
    ) as http:
        yield Browser(http)
