"""The Gateway's HTTP application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from deployments.gateway.auth import routes as auth
from deployments.gateway.auth.cookies import require_csrf
from deployments.gateway.conversations import routes as conversations
from deployments.gateway.health import routes as health
from deployments.gateway.invites import routes as invites
from deployments.gateway.keys import routes as keys
from deployments.gateway.messages import routes as messages
from deployments.gateway.middleware import BodyLimit, RequestEnvelope
from deployments.gateway.models import routes as models
from deployments.gateway.presence import routes as presence
from deployments.gateway.search import routes as search
from deployments.gateway.services import Services
from deployments.gateway.threads import routes as threads
from deployments.gateway.transfer import routes as transfer
from deployments.gateway.unread import routes as unread
from deployments.gateway.users import routes as users
from deployments.gateway.v1.chat import routes as chat
from deployments.gateway.v1.completions import routes as completions
from deployments.gateway.v1.embeddings import routes as embeddings
from deployments.gateway.v1.errors import BY_PATH
from deployments.gateway.v1.messages import routes as anthropic_messages
from deployments.gateway.v1.models import routes as served_models
from deployments.gateway.v1.responses import routes as responses
from deployments.gateway.v1.tokens import routes as tokens
from deployments.problems import ProblemError

WEB = Path(__file__).parents[2] / "web"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class PageFiles(StaticFiles):
    """The page's files. Browsers ask each time whether they changed: an old script never meets a new page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """304 where the browser has the file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def build_app(services: Services) -> FastAPI:
    """All routes. No documentation page: its scripts would come from elsewhere; /openapi.json is there."""
    app = FastAPI(
        title="RustyGPT",
        version="0.1.0",
        description="Conversations with local models, whose answers survive anything.",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        exception_handlers=BY_PATH,
    )
    app.state.services = services
    limits = services.settings.server
    app.add_middleware(
        BodyLimit,
        limit_bytes=limits.body_limit_bytes,
        limits_by_path={transfer.IMPORT_PATH: limits.import_limit_bytes},
    )
    app.add_middleware(RequestEnvelope)
    app.include_router(health.router)
    # Who asks there is its own matter: a key needs no CSRF token. Early, since routes are tried one after the other.
    for router in (
        served_models.router,
        chat.router,
        completions.router,
        embeddings.router,
        tokens.router,
        responses.router,
        anthropic_messages.router,
    ):
        app.include_router(router)
    app.include_router(auth.public)
    for router in (
        auth.private,
        users.router,
        conversations.router,
        invites.router,
        search.router,
        transfer.router,
        threads.router,
        messages.router,
        unread.router,
        presence.router,
        models.router,
        keys.router,
    ):
        app.include_router(router, dependencies=[Depends(require_csrf)])

    @app.api_route("/api/stream/{rest:path}", methods=METHODS, include_in_schema=False)
    async def streams_are_starting() -> None:
        # The Streamer's. Until the proxy has heard of it, after a start, what is asked of it comes here.
        raise ProblemError(503, "RGP.STARTING", "Event streams are just starting. Try again in a moment.")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", PageFiles(directory=WEB), name="static")
    return app
