"""The request that a task serves, as its log lines and metrics name it: never by what people typed."""

from __future__ import annotations

import re
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.routing import Mount
from starlette.types import Scope

SERVED: ContextVar[Scope | None] = ContextVar("served", default=None)
"""The ASGI scope of the request, which the router completes. Set it where a request arrives, reset it at its end."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Clients may choose their request's id: what could be words, or control a terminal, is no id.
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def request_fields() -> dict[str, str]:
    """Id, method and path template of the request that the current task serves; nothing outside of requests."""
    scope = SERVED.get()
    if scope is None:
        return {}
    fields = {"method": method(scope), "path": path_template(scope)}
    # Serve gives each request an id (the client's, if it sent one) and returns it in the answer.
    request_id = Headers(scope=scope).get("x-request-id", "")
    if REQUEST_ID.fullmatch(request_id):
        fields["request_id"] = request_id
    return fields


def method(scope: Scope) -> str:
    """The HTTP method, or `other`."""
    return scope["method"] if scope["method"] in METHODS else "other"


def path_template(scope: Scope) -> str:
    """Path of the route, not of the request: it neither grows with the data nor tells any. `other` without a route."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    # What is mounted has its own path in `root_path` by then.
    prefix = scope.get("app_root_path" if isinstance(route, Mount) else "root_path", "").rstrip("/")
    return f"{prefix}{path}" if path else "other"
