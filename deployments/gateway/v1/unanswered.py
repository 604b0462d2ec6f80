"""Why a model cannot answer, as clients are told."""

from __future__ import annotations

import logging

from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError

from deployments.gateway.v1.errors import ApiError

logger = logging.getLogger(__name__)


def starting() -> ApiError:
    """The model is not up, or has no room to take a request in time."""
    message = "The model is starting, or every replica of it is full. Try again in a few seconds."
    return ApiError(503, "server_error", "model_starting", message, retry_after_seconds=5)


def unreachable(error: Exception) -> ApiError:
    """No replica could be asked, or the one that was asked has failed."""
    if isinstance(error, BackPressureError):
        message = "Too many requests wait for this model. Try again in a moment."
        return ApiError(429, "rate_limit_error", "queue_full", message, retry_after_seconds=1)
    if isinstance(error, RayTaskError):
        # The replica's own log has the traceback.
        logger.error("a model's replica failed: %s", type(error.cause).__name__)
        message = "The model failed while it worked on this request. The same request is likely to fail again."
        return ApiError(500, "server_error", "generation_failed", message)
    logger.warning("a model cannot be asked: %s", type(error).__name__)
    message = "The model cannot be reached right now. Try again in a moment."
    return ApiError(503, "server_error", "model_unavailable", message, retry_after_seconds=1)
