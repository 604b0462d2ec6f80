"""Errors as problem+json (RFC 9457), the same from every deployment. Nothing internal is told."""

from __future__ import annotations

import http
import logging
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.errors import DatabaseUnavailable, RefusedError

logger = logging.getLogger(__name__)

CODES = {
    400: "RGP.VALIDATION",
    401: "RGP.AUTH.INVALID_SESSION",
    403: "RGP.RBAC.FORBIDDEN",
    404: "RGP.NOT_FOUND",
    405: "RGP.METHOD_NOT_ALLOWED",
    413: "RGP.BODY_TOO_LARGE",
    415: "RGP.MEDIA_TYPE",
}


class ProblemError(Exception):
    """An answer that says what was wrong and how to mend it."""

    def __init__(self, status: int, code: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details


def problem(status: int, code: str, message: str, details: Any = None) -> Response:
    """The answer itself. 401 names the scheme that is missing, as HTTP wants."""
    body = {
        "type": f"https://rustygpt.dev/problems/{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "message": message,
    }
    if details is not None:
        body["details"] = details
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = "session"
    if status == 503:
        headers["Retry-After"] = "1"
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


async def _problem_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem(error.status, error.code, error.message, error.details)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return problem(error.status, error.code, error.sentence)


async def _unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, DatabaseUnavailable)
    return problem(503, "RGP.DB.UNAVAILABLE", "The database cannot be reached right now. Try again in a moment.")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
    }.get(error.status_code, str(error.detail))
    answer = problem(error.status_code, CODES.get(error.status_code, "RGP.HTTP"), message)
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"place": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"].removeprefix("Value error, ")}
        for fault in error.errors()
    ]
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return problem(400, "RGP.VALIDATION", "The body is not JSON.", faults)
    message = "; ".join(f"{fault['place']}: {fault['message']}" for fault in faults[:5])
    return problem(422, "RGP.VALIDATION", message, faults)


async def unexpected(_: Request, error: Exception) -> Response:
    """The last resort: logged with where it arose, told in one sentence."""
    logger.error("a request failed", exc_info=error)
    return problem(500, "RGP.INTERNAL", "Something went wrong on our side. It has been logged.")


HANDLERS: dict[Any, Any] = {
    ProblemError: _problem_error,
    RefusedError: _refused,
    DatabaseUnavailable: _unavailable,
    HTTPException: _http,
    RequestValidationError: _invalid,
    Exception: unexpected,
}
