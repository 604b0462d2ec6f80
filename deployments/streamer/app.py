"""The Streamer's HTTP application."""

from __future__ import annotations

import contextlib

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from db.pool import Database
from deployments.config import Settings
from deployments.events import json_schema
from deployments.observability.request_context import SERVED
from deployments.problems import HANDLERS
from deployments.streamer.hub import Hub
from deployments.streamer.stream import BARE_SEND, EventStream

SCHEMA = orjson.dumps(json_schema())


def streamer_app(database: Database, hub: Hub, settings: Settings) -> ASGIApp:
    """GET /schema; for a signed-in user /conversations/{id}, and /me or /{own user id}. Somebody else runs the hub."""
    stream = EventStream(database, hub, settings)
    app = Starlette(
        routes=[
            Route("/schema", _schema),
            Route("/conversations/{conversation_id}", stream),
            Route("/{user_id}", stream),
        ],
        exception_handlers=HANDLERS,
    )

    async def with_bare_send(scope: Scope, receive: Receive, send: Send) -> None:
        scope[BARE_SEND] = send
        served = SERVED.set(scope)
        try:
            # Starlette raises again what was logged and answered; Serve would log it a second time.
            with contextlib.suppress(Exception):
                await app(scope, receive, send)
        finally:
            SERVED.reset(served)

    return with_bare_send


async def _schema(_: Request) -> Response:
    return Response(SCHEMA, headers={"Cache-Control": "max-age=300"}, media_type="application/schema+json")
