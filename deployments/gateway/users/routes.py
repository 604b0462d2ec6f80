"""Accounts: made by administrators, found by everyone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from deployments.gateway.auth.passwords import hash_password
from deployments.gateway.auth.schemas import Account
from deployments.gateway.once import OnceOf
from deployments.gateway.schemas import Text
from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.gateway.users.schemas import NewUser, People

router = APIRouter(tags=["Users"])


@router.post("/api/users", response_model=Account, status_code=201)
async def create_user(body: NewUser, services: ServicesOf, session: SessionOf, once: OnceOf) -> Response:
    """Makes an account. Administrators only."""
    phc = await hash_password(body.password)
    name = (body.display_name or "").strip() or None
    account = (body.username, body.email, phc, name, body.is_admin)
    created = await services.database.value("create_user", session, once, *account)
    return json_answer(created, 201)


@router.get("/api/users", response_model=People)
async def find_users(
    services: ServicesOf, session: SessionOf, query: Annotated[Text, Query(max_length=128)] = ""
) -> Response:
    """People whose name begins with `query`."""
    return json_answer(await services.database.value("find_users", session, query))
