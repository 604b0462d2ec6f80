"""Is it alive, is it ready, how does it do?"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from ray import serve

from db.errors import DatabaseUnavailable
from deployments.gateway.services import Services, ServicesOf
from deployments.messages import model_app
from deployments.observability.exposition import collect

router = APIRouter(tags=["Health"])


class Healthy(BaseModel):
    """This process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """Whether questions can be answered, and if not, what is missing."""

    ready: bool
    missing: list[str] = []


@router.get("/healthz", response_model=Healthy)
async def healthz() -> Response:
    """Touches nothing but this process."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", response_model=Ready)
async def readyz(services: ServicesOf) -> Response:
    """Ready when the database and every model are."""
    missing = [*await _database(services), *await asyncio.to_thread(_models, services)]
    if missing:
        return JSONResponse({"ready": False, "missing": missing}, 503, {"Retry-After": "1"})
    return JSONResponse({"ready": True})


async def _database(services: Services) -> list[str]:
    try:
        await services.database.value("ping")
    except DatabaseUnavailable:
        return ["database"]
    return []


def _models(services: Services) -> list[str]:
    applications = serve.status().applications
    return [
        f"model {model_id}"
        for model_id in services.settings.llm.models
        if getattr(applications.get(model_app(model_id)), "status", None) != "RUNNING"
    ]


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus metrics of the whole cluster."""
    return Response(await collect(), media_type="text/plain; version=0.0.4")
