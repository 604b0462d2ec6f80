"""What every request and every answer of the Gateway gets: a size limit, headers, a count."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.gateway.v1.callers import LIMIT_HEADERS
from deployments.gateway.v1.errors import refusal, unexpected
from deployments.observability.metrics import HTTP_REQUESTS, HTTP_SECONDS
from deployments.observability.request_context import SERVED, method, path_template

logger = logging.getLogger(__name__)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
}


class RequestEnvelope:
    """Outermost: so that refusals and failures carry the headers and are counted, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        served = SERVED.set(scope)
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                # Nobody else sets these; `update` would look for each among all that are there.
                headers.raw.extend(
                    (name.encode(), value.encode()) for name, value in scope.get(LIMIT_HEADERS, {}).items()
                )
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if status == 500:
                answer = await unexpected(Request(scope), error)
                await answer(scope, receive, send_with_headers)
            else:
                # The server ends the connection, since the answer is not complete.
                logger.error("an answer was broken off", exc_info=error)
        finally:
            SERVED.reset(served)
            tags = {"method": method(scope), "path": path_template(scope), "status": str(status)}
            HTTP_REQUESTS.inc(tags=tags)
            HTTP_SECONDS.observe(time.perf_counter() - started, tags=tags)


class BodyTooLarge(Exception):
    """More arrived than is taken."""


class BodyLimit:
    """Refuses bodies above the limit with 413, by Content-Length or as they arrive. Some paths have their own."""

    def __init__(self, app: ASGIApp, limit_bytes: int, limits_by_path: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit_bytes
        self._limits_by_path = limits_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits_by_path.get(scope["path"], self._limit)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            await self._refuse(limit, scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > limit:
                raise BodyTooLarge
            return message

        async def unless_refused(message: Message) -> None:
            # FastAPI answers 400 to whatever happens while it reads a body: that answer is not sent.
            if arrived <= limit:
                await send(message)

        with contextlib.suppress(BodyTooLarge):
            await self._app(scope, counted, unless_refused)
        if arrived > limit:
            await self._refuse(limit, scope, receive, send)

    async def _refuse(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The body is too large: at most {limit} bytes are taken."
        await refusal(scope, 413, "RGP.BODY_TOO_LARGE", message)(scope, receive, send)
