"""Whether questions can be answered: what the replicas of each model last announced, and what Serve says of those that
announce nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import orjson
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatusOverview

from db.errors import DatabaseUnavailable
from db.pool import Database
from deployments.messages import CANNOT_RUN, MODEL_DEPLOYMENT, model_app

T = TypeVar("T")

# What asks gives up on us soon after: the answer must come, whatever hangs. Serve gets what the database leaves.
ANSWER_SECONDS = 1.8
DATABASE_SECONDS = 1.3

Applications = dict[str, ApplicationStatusOverview]


class ServeStatus:
    """Serve's word of its applications. One thread of this process asks at a time: a controller that hangs holds up one
    thread, however often readiness is asked for."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "serve-status")
        self._asked: concurrent.futures.Future[Applications] | None = None

    async def applications(self, seconds: float) -> Applications | None:
        """All applications by name. None: Serve did not say so within that time."""
        if self._asked is None or self._asked.done():
            self._asked = self._thread.submit(lambda: serve.status().applications)
        try:
            # Shielded: others may wait for the same word.
            return await within(seconds, asyncio.shield(asyncio.wrap_future(self._asked)))
        except (RayError, RayServeException, TimeoutError):
            return None


_serve = ServeStatus()


async def missing(database: Database, models: list[str]) -> list[str]:
    """What keeps questions from being answered, a sentence each: what is missing and why. Empty: nothing does.

    Answers within two seconds, whatever hangs.
    """
    began = time.monotonic()
    try:
        told = orjson.loads(await within(DATABASE_SECONDS, database.value("model_readiness", models)))
    except (DatabaseUnavailable, TimeoutError):
        return ["database"]
    not_ready = [model for model in models if not told[model]["ready"]]
    if not not_ready:
        return []
    applications = await _serve.applications(ANSWER_SECONDS - (time.monotonic() - began))
    reasons = {model: why_missing(model, told[model], applications) for model in not_ready}
    return [f"model {model}: {reason}" for model, reason in reasons.items() if reason]


def why_missing(model: str, told: dict[str, Any], applications: Applications | None) -> str | None:
    """Why a model without a ready replica is missing; None where it is meant to have none now. `told` is what
    model_readiness says of it; `applications` is Serve's word, None if it does not say."""
    if "unusable" in told["states"]:
        return f"{CANNOT_RUN}: {told['detail']}"
    application = applications.get(model_app(model)) if applications is not None else None
    if application is not None and _sleeps(application):
        return None
    if "starting" in told["states"]:
        return f"starting: {told['detail']}" if told["detail"] else "starting"
    if told["silent_seconds"] is not None:
        return f"no replica has answered for {told['silent_seconds']:.0f} s"
    if applications is None:
        return "no replica has answered, and Serve does not say why"
    if application is None:
        return "not started"
    return (
        "no replica has answered yet"
        if application.status == "RUNNING"
        else f"not started ({application.status.value})"
    )


def _sleeps(application: ApplicationStatusOverview) -> bool:
    """Whether autoscaling lets the model have no replica, since nobody asks it, or starts its first one, for whoever
    asked: such a model answers after a wait, as it is meant to."""
    deployment = application.deployments.get(MODEL_DEPLOYMENT)
    if application.status != "RUNNING" or deployment is None:
        return False
    there = {state for state, count in deployment.replica_states.items() if count and state != "STOPPING"}
    if deployment.status == "UPSCALING":
        return there <= {"STARTING"}
    return deployment.status in ("HEALTHY", "DOWNSCALING") and not there


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` returns. Raises TimeoutError after that time, even where `work` does not let itself be cancelled: a
    connection whose server hangs waits until it is told that its statement was."""
    task = asyncio.ensure_future(work)
    # How it ends nobody may be there to hear.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()
