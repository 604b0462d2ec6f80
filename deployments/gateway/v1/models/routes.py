"""Which models there are."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from deployments.gateway.services import services_of
from deployments.gateway.v1.callers import reader

router = APIRouter(tags=["OpenAI"])


class ModelCard(BaseModel):
    """A model. `created` is when this installation first served it, in Unix seconds."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models, the default one first."""

    object: Literal["list"]
    data: list[ModelCard]


# No dependencies: FastAPI takes longer to solve them than the check itself takes, and clients poll these.
@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> Response:
    """All models that are served, whether they are up at this moment or not."""
    await reader(request)
    services = await services_of(request)
    return Response(await services.served.all(), media_type="application/json")


@router.get("/v1/models/{model_id:path}", response_model=ModelCard)
async def get_model(model_id: str, request: Request) -> Response:
    """One model. 404 names those there are."""
    await reader(request)
    services = await services_of(request)
    services.asking.check(model_id)
    return Response(await services.served.one(model_id), media_type="application/json")
