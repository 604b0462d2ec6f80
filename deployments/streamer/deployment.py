"""The Streamer deployment: durable event streams, an application of its own so that they scale apart."""

from __future__ import annotations

import asyncio

from ray import serve
from starlette.applications import Starlette
from starlette.routing import Route

from db.actor import connect_database
from deployments.config import Settings, database_access
from deployments.loopback import keep_replica_on_loopback
from deployments.observability.logs import configure_logs
from deployments.problems import HANDLERS
from deployments.streamer.hub import Hub
from deployments.streamer.stream import EventStream


@serve.deployment(name="Streamer")
@serve.ingress()
class StreamerDeployment:
    """Serves GET /api/stream/conversations/{id}, /api/stream/me and /api/stream/{user_id}."""

    async def __init__(self, settings: Settings) -> None:
        configure_logs(settings.logging)
        keep_replica_on_loopback()
        self._settings = settings
        self._database = await connect_database(database_access(settings.db), "app")
        self._hub = Hub(self._database, settings.sse)
        self._serving = asyncio.create_task(self._hub.serve())

    def __serve_build_asgi_app__(self) -> Starlette:
        stream = EventStream(self._database, self._hub, self._settings)
        return Starlette(
            routes=[
                Route("/conversations/{conversation_id}", stream),
                Route("/{user_id}", stream),
            ],
            exception_handlers=HANDLERS,
        )

    def check_health(self) -> None:
        """Serve replaces a replica whose hub has stopped."""
        if self._serving.done():
            raise RuntimeError("the hub has stopped") from self._serving.exception()
