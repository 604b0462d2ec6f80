"""Is it alive, is it ready, how does it do?"""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from deployments.gateway.health import readiness
from deployments.gateway.services import ServicesOf
from deployments.observability.exposition import collect

router = APIRouter(tags=["Health"])


class Healthy(BaseModel):
    """This process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """Whether questions can be answered, and if not, what is missing and why, a sentence each."""

    ready: bool
    missing: list[str] = []


@router.get("/healthz", response_model=Healthy)
async def healthz() -> Response:
    """Touches nothing but this process."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", response_model=Ready)
async def readyz(services: ServicesOf) -> Response:
    """Ready when the database answers and each model has a replica that has said within 3 s that it computes right."""
    missing = await readiness.missing(services.database, list(services.settings.llm.models))
    if missing:
        return JSONResponse({"ready": False, "missing": missing}, 503, {"Retry-After": "1"})
    return JSONResponse({"ready": True})


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus metrics of the whole cluster."""
    return Response(await collect(), media_type="text/plain; version=0.0.4")
