"""Setup, login, logout, me."""

from __future__ import annotations

import secrets
from datetime import timedelta
from uuid import UUID

import orjson
from fastapi import APIRouter, Response

from db.errors import RefusedError
from deployments.gateway.auth.cookies import clear_cookies, csrf_token, set_cookies
from deployments.gateway.auth.passwords import hash_password, verify_password
from deployments.gateway.auth.schemas import Login, Setup, SetupDone, SetupState, SignedIn
from deployments.gateway.schemas import Ok
from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.observability.metrics import LOGINS
from deployments.problems import ProblemError
from deployments.sessions import token_hash

# Setup and login are called by people without a session: nothing to protect by a CSRF token.
public = APIRouter(tags=["Auth"])
private = APIRouter(tags=["Auth"])


@public.get("/api/setup", response_model=SetupState)
async def read_setup(services: ServicesOf) -> Response:
    """Whether the first account exists."""
    return json_answer(orjson.dumps({"is_setup": await services.database.value("is_setup")}).decode())


@public.post("/api/setup", response_model=SetupDone, status_code=201)
async def set_up(body: Setup, services: ServicesOf) -> Response:
    """Makes the first account, an administrator. 409 once there is one."""
    if await services.database.value("is_setup"):
        raise ProblemError(409, "RGP.SETUP.DONE", "This service is set up already. Sign in.")
    phc = await hash_password(body.password)
    return json_answer(await services.database.value("setup", body.username, body.email, phc), 201)


@public.post("/api/auth/login", response_model=SignedIn)
async def log_in(body: Login, services: ServicesOf) -> Response:
    """Opens a session and sets its cookies."""
    found = await services.database.value("login_lookup", body.email.strip())
    account = orjson.loads(found) if found else None
    if not await verify_password(body.password, account and account["password_hash"]) or account is None:
        LOGINS.inc(tags={"result": "invalid_credentials"})
        raise ProblemError(
            401,
            "RGP.AUTH.INVALID_CREDENTIALS",
            "The name or the password is wrong. Check both and try again.",
        )
    token = secrets.token_urlsafe(32)
    settings = services.settings.session
    try:
        opened = await services.database.value(
            "open_session",
            UUID(account["user_id"]),
            token_hash(token),
            csrf_token(token),
            services.idle,
            timedelta(seconds=settings.absolute_seconds),
            settings.max_sessions_per_user,
        )
    except RefusedError:
        LOGINS.inc(tags={"result": "disabled"})
        raise
    LOGINS.inc(tags={"result": "success"})
    response = json_answer(opened)
    set_cookies(response, token, settings)
    return response


@private.post("/api/auth/logout", response_model=Ok)
async def log_out(services: ServicesOf, session: SessionOf) -> Response:
    """Ends the session."""
    response = json_answer(await services.database.value("logout", session))
    clear_cookies(response)
    return response


@private.get("/api/auth/me", response_model=SignedIn)
async def me(services: ServicesOf, session: SessionOf) -> Response:
    """Who is signed in."""
    return json_answer(await services.database.value("me", session, services.idle))
