"""The Streamer deployment: durable event streams, an application of its own so that they scale apart."""

from __future__ import annotations

import asyncio

from ray import serve
from starlette.types import ASGIApp

from db.actor import connect_database
from deployments.config import Settings, database_access
from deployments.loopback import keep_replica_on_loopback
from deployments.observability.logs import configure_logs, failure_logged
from deployments.streamer.app import streamer_app
from deployments.streamer.hub import Hub


@serve.deployment(name="Streamer")
@serve.ingress()
class StreamerDeployment:
    """Serves what `streamer_app` does, under /api/stream."""

    @failure_logged("the replica cannot start")
    async def __init__(self, settings: Settings) -> None:
        configure_logs(settings.logging, "Streamer")
        keep_replica_on_loopback()
        self._settings = settings
        self._database = await connect_database(database_access(settings), "app")
        self._hub = Hub(self._database, settings.sse)
        self._serving = asyncio.create_task(self._hub.serve())

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return streamer_app(self._database, self._hub, self._settings)

    @failure_logged("the replica is not well and is replaced")
    async def check_health(self) -> None:
        """Serve replaces a replica whose hub has stopped."""
        if self._serving.done():
            raise RuntimeError("the hub has stopped") from self._serving.exception()
