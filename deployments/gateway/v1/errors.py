"""Errors under /v1 as the clients of those APIs expect them: OpenAI's error object, under /v1/messages Anthropic's."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from db.errors import DatabaseUnavailable, RefusedError
from deployments.gateway.v1.json_text import json_bytes
from deployments.generation import Refused
from deployments.problems import HANDLERS, ProblemError, problem

logger = logging.getLogger(__name__)

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

PATH = "/v1"
ANTHROPIC_PATH = "/v1/messages"

TYPES = {401: "authentication_error", 403: "permission_error", 423: "permission_error", 429: "rate_limit_error"}
"""OpenAI's `type` by status; other refusals are `invalid_request_error`, failures `server_error`."""

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    423: "permission_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's `type` by status; other refusals are `invalid_request_error`, failures `api_error`."""

VALIDATION_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
SHOWN_FAULTS = 5
UNAVAILABLE_RETRY_SECONDS = 1.0
# A model that cannot run on its machine does not run until an operator has done something.
UNUSABLE_RETRY_SECONDS = 60.0


class ApiError(Exception):
    """An answer that says what was wrong and how to mend it.

    `type` and `code` are OpenAI's words for machines, `param` is the dotted path of the field at fault. The type of
    an answer of Anthropic's shape follows from the status.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 the name that it has on the wire
        code: str | None,
        message: str,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class LimitReached(ApiError):
    """429: a key's limit of a minute. `headers` tell of the limits."""

    def __init__(self, message: str, retry_after_seconds: float, headers: dict[str, str]) -> None:
        super().__init__(
            429, "rate_limit_error", "rate_limit_exceeded", message, retry_after_seconds=retry_after_seconds
        )
        self.headers = headers


def error_body(error: ApiError) -> dict[str, Any]:
    """OpenAI's error object, for an answer and for an event within a stream."""
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }


def anthropic_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """Anthropic's error object, for an answer and for an `error` event within a stream."""
    kind = ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}


def from_refused(refused: Refused) -> ApiError:
    """The answer to a request that a model did not take."""
    match refused.kind:
        case "too_long":
            return _error(400, "context_length_exceeded", refused.message, refused.param)
        case "invalid" | "refused":
            return _error(400, "invalid_value", refused.message, refused.param)
        case "queue_full":
            return _error(429, "queue_full", refused.message, retry_after_seconds=refused.retry_after_seconds)
        case "unusable":
            return _error(503, "model_unusable", refused.message, retry_after_seconds=UNUSABLE_RETRY_SECONDS)
    return _error(500, "generation_failed", refused.message)


def _error(
    status: int, code: str | None, message: str, param: str | None = None, retry_after_seconds: float | None = None
) -> ApiError:
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return ApiError(status, kind, code, message, param, retry_after_seconds)


def is_api(scope: Scope) -> bool:
    """Whether errors of this request have a shape of this module."""
    return scope["path"] == PATH or scope["path"].startswith(f"{PATH}/")


def error_answer(error: ApiError, scope: Scope) -> Response:
    """The answer itself, in the shape of the API that the path belongs to."""
    request_id = Headers(scope=scope).get("x-request-id", "")
    path = scope["path"]
    is_anthropic = path == ANTHROPIC_PATH or path.startswith(f"{ANTHROPIC_PATH}/")
    body = anthropic_body(error, request_id) if is_anthropic else error_body(error)
    headers = {"Cache-Control": "no-store"}
    if is_anthropic:
        headers["request-id"] = request_id  # where Anthropic's clients look for it
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    retry = error.retry_after_seconds
    if retry is None and error.status in (429, 503):
        retry = UNAVAILABLE_RETRY_SECONDS
    if retry is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry)))
    return Response(json_bytes(body), error.status, headers, media_type="application/json")


def refusal(scope: Scope, status: int, code: str, message: str) -> Response:
    """What a middleware answers by itself: a problem, under /v1 an error of that API."""
    if is_api(scope):
        return error_answer(_error(status, _openai_code(code), message), scope)
    return problem(status, code, message)


async def unexpected(request: Request, error: Exception) -> Response:
    """The last resort: logged with where it arose, told in one sentence."""
    if not is_api(request.scope):
        return await HANDLERS[Exception](request, error)
    logger.error("a request failed", exc_info=error)
    sentence = "Something went wrong on our side. It has been logged."
    return error_answer(_error(500, "internal_error", sentence), request.scope)


def as_api_error(request: Request, error: Exception) -> ApiError | None:
    """What this error is under /v1; None for one that nobody expected."""
    match error:
        case ApiError():
            return error
        case ProblemError():
            return _error(error.status, _openai_code(error.code), error.message)
        case RefusedError():
            return _error(error.status, _openai_code(error.code), error.sentence)
        case DatabaseUnavailable():
            sentence = "The database cannot be reached right now. Try again in a moment."
            return _error(503, "database_unavailable", sentence)
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return _http(request, error)
    return None


def _http(request: Request, error: HTTPException) -> ApiError:
    path, method = request.url.path, request.method
    match error.status_code:
        case 404:
            return _error(404, "unknown_url", f"There is nothing at {path}.")
        case 405:
            return _error(405, "method_not_supported", f"{method} is not possible at {path}.")
    return _error(error.status_code, None, str(error.detail))


def _openai_code(code: str) -> str:
    """RGP.AUTH.INVALID_SESSION is invalid_session here."""
    return code.rpartition(".")[2].lower()


def _invalid(error: RequestValidationError) -> ApiError:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return _error(400, "invalid_json", "The body is not JSON.")
    messages: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    for fault in faults:
        place, sentence = _place(fault, error.body), fault["msg"].removeprefix("Value error, ")
        types.setdefault(place, fault["type"])
        if sentence not in messages.setdefault(place, []):
            messages[place].append(sentence)
    # All members of a union complain: those that came furthest know best, and of one place they tell the alternatives.
    inner = [place for place in messages if not any(_is_within(other, place) for other in messages)]
    told = [f"{place or 'the body'}: {', or '.join(messages[place])}" for place in inner[:SHOWN_FAULTS]]
    first = types[inner[0]]
    code = VALIDATION_CODES.get(first, "invalid_type" if first.endswith(("_type", "_parsing")) else "invalid_value")
    return _error(400, code, "; ".join(told), inner[0] or None)


def _is_within(inner: str, outer: str) -> bool:
    return inner != outer and (not outer or inner.startswith(f"{outer}."))


def _place(fault: Any, body: Any) -> str:
    """`messages.0.content`: the way through the body, without the names of union members that Pydantic puts in it."""
    source, *steps = fault["loc"]
    if source != "body":
        return ".".join(str(step) for step in steps)
    place: list[str] = []
    here = body
    for step in steps:
        is_inside = step in here if isinstance(here, dict) else isinstance(here, list) and isinstance(step, int)
        if is_inside:
            here = here[step]
        elif fault["type"] != "missing" or step is not steps[-1]:
            continue
        place.append(str(step))
    return ".".join(place)


def _by_path(kind: type[Exception], base: Handler | None) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        if not is_api(request.scope):
            if base is None:
                raise error
            return await base(request, error)
        translated = as_api_error(request, error)
        assert translated is not None, kind
        answer = error_answer(translated, request.scope)
        if isinstance(error, HTTPException):
            answer.headers.update(error.headers or {})
        return answer

    return handle


BY_PATH: dict[Any, Handler] = {
    **{kind: _by_path(kind, base) for kind, base in HANDLERS.items() if kind is not Exception},
    ApiError: _by_path(ApiError, None),
    Exception: unexpected,
}
"""The Gateway's exception handlers: problems, under /v1 errors of that API."""
