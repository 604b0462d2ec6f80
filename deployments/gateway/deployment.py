"""The Gateway deployment: REST, health, metrics and the web page. Stateless."""

from __future__ import annotations

from fastapi import FastAPI
from ray import serve

from db.actor import connect_database
from deployments.config import Settings, database_access
from deployments.gateway.app import build_app
from deployments.gateway.services import Services
from deployments.loopback import keep_replica_on_loopback
from deployments.observability.logs import configure_logs, failure_logged


@serve.deployment(name="Gateway")
@serve.ingress()
class GatewayDeployment:
    """Any number of replicas; none keeps anything that another needs."""

    @failure_logged("the replica cannot start")
    async def __init__(self, settings: Settings) -> None:
        configure_logs(settings.logging, "Gateway")
        keep_replica_on_loopback()
        database = await connect_database(database_access(settings), "app")
        self._services = Services.build(settings, database)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self._services)
