"""Why a model without a ready replica is missing, by its replicas' word and by Serve's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter
from ray.serve.schema import ApplicationStatusOverview

from deployments.gateway.health.readiness import Applications, why_missing


def told(silent_seconds: float | None = None, detail: str | None = None, **states: int) -> dict[str, Any]:
    """What model_readiness says of a model that is not ready."""
    return {"ready": False, "states": states, "detail": detail, "silent_seconds": silent_seconds}


def serving(application: str, deployment: str = "HEALTHY", **replicas: int) -> Applications:
    """Serve's word of the model `tiny` and its replicas."""
    model = {"status": deployment, "status_trigger": "UNSPECIFIED", "replica_states": replicas, "message": ""}
    overview = {"status": application, "message": "", "last_deployed_time_s": 0.0, "deployments": {"Model": model}}
    return {"model-tiny": TypeAdapter(ApplicationStatusOverview).validate_python(overview)}


RUNNING = serving("RUNNING", RUNNING=1)


@pytest.mark.parametrize(
    ("replicas", "serve", "sentence"),
    [
        (told(6.4), RUNNING, "no replica has answered for 6 s"),
        (told(6.4), serving("UNHEALTHY", "UNHEALTHY", STARTING=1), "no replica has answered for 6 s"),
        (told(0.3, "loading", starting=1), RUNNING, "starting: loading"),
        (told(0.3, "", starting=1), RUNNING, "starting"),
        (
            told(0.3, "it computes wrong", unusable=1, starting=1),
            RUNNING,
            "cannot run on this machine: it computes wrong",
        ),
        (told(), {}, "not started"),
        (told(), serving("DEPLOYING", "UPDATING", STARTING=1), "not started (DEPLOYING)"),
        (told(), serving("DEPLOY_FAILED", "DEPLOY_FAILED"), "not started (DEPLOY_FAILED)"),
        (told(), RUNNING, "no replica has answered yet"),
        (told(), None, "no replica has answered, and Serve does not say why"),
        (told(6.4), None, "no replica has answered for 6 s"),
    ],
)
def test_a_model_without_a_ready_replica_is_missing_for_a_reason(
    replicas: dict[str, Any], serve: Applications | None, sentence: str
) -> None:
    assert why_missing("tiny", replicas, serve) == sentence


@pytest.mark.parametrize(
    "serve",
    [
        serving("RUNNING"),
        serving("RUNNING", "DOWNSCALING", STOPPING=1),
        serving("RUNNING", "UPSCALING"),
        serving("RUNNING", "UPSCALING", STARTING=1, STOPPING=1),
    ],
)
def test_a_model_that_nobody_asks_or_that_is_awakened_is_not_missing(serve: Applications) -> None:
    assert why_missing("tiny", told(), serve) is None
    assert why_missing("tiny", told(6.4), serve) is None
    assert why_missing("tiny", told(0.3, "loading", starting=1), serve) is None


@pytest.mark.parametrize(
    "serve",
    [
        # It had a replica, and lost it.
        serving("RUNNING", "UPSCALING", RUNNING=1, STARTING=1),
        serving("UNHEALTHY", "UNHEALTHY"),
        serving("DEPLOYING", "UPSCALING", STARTING=1),
    ],
)
def test_a_model_that_is_to_have_a_replica_is_missing_without(serve: Applications) -> None:
    assert why_missing("tiny", told(6.4), serve) == "no replica has answered for 6 s"


def test_a_model_that_was_awakened_and_cannot_run_is_missing() -> None:
    replicas = told(0.3, "it computes wrong", unusable=1)
    serve = serving("RUNNING", "UPSCALING", STARTING=1)
    assert why_missing("tiny", replicas, serve) == "cannot run on this machine: it computes wrong"
