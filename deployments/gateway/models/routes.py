"""The models as they run: for administrators."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import orjson
from fastapi import APIRouter
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from deployments.gateway.models.schemas import ModelState, ModelStates
from deployments.gateway.services import ServicesOf, SessionOf
from deployments.messages import MODEL_DEPLOYMENT, ModelDescription, model_app

router = APIRouter(tags=["Models"])

REPLICA_SECONDS = 3.0


@router.get("/api/admin/models")
async def list_models(services: ServicesOf, session: SessionOf) -> ModelStates:
    """How each model runs: weights, sizes, what was measured on its machine, what it is doing. Administrators only."""
    await services.database.value("require_admin", session)
    statuses = (await asyncio.to_thread(serve.status)).applications
    models = services.settings.llm.models
    readiness = orjson.loads(await services.database.value("model_readiness", list(models)))
    found = await asyncio.gather(*map(_describe, models))
    return ModelStates(
        models=[
            ModelState(
                id=model_id,
                status=statuses[model_app(model_id)].status.value if model_app(model_id) in statuses else "NOT_STARTED",
                weights_policy=models[model_id].weights,
                readiness=readiness[model_id],
                replica=asdict(description) if description else None,
            )
            for model_id, description in zip(models, found, strict=True)
        ]
    )


async def _describe(model_id: str) -> ModelDescription | None:
    try:
        async with asyncio.timeout(REPLICA_SECONDS):
            return await serve.get_deployment_handle(MODEL_DEPLOYMENT, model_app(model_id)).describe.remote()
    except (RayError, RayServeException, TimeoutError):
        return None
