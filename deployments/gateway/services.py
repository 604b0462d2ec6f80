"""What a request handler needs of its replica, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response

from db.pool import Database
from deployments.config import Settings
from deployments.gateway.threads.dispatcher import TurnDispatcher
from deployments.gateway.v1.asking import Asking
from deployments.gateway.v1.key_check import KeyCheck
from deployments.gateway.v1.limits import Limits
from deployments.gateway.v1.models.served import ServedModels
from deployments.gateway.v1.stored.store import Store
from deployments.sessions import session_of


@dataclass(frozen=True)
class Services:
    """Made once a replica."""

    settings: Settings
    database: Database
    turns: TurnDispatcher
    asking: Asking
    limits: Limits
    keys: KeyCheck
    served: ServedModels
    store: Store

    @property
    def idle(self) -> timedelta:
        """A session unused for so long ends."""
        return timedelta(seconds=self.settings.session.idle_seconds)

    @classmethod
    def build(cls, settings: Settings, database: Database) -> Services:
        """Services of a replica that is connected to the database."""
        turns = TurnDispatcher()
        limits = Limits(settings.api.requests_per_minute, settings.api.tokens_per_minute)
        return cls(
            settings=settings,
            database=database,
            turns=turns,
            asking=Asking(settings.llm, settings.api.start_seconds),
            limits=limits,
            keys=KeyCheck(database, limits),
            served=ServedModels(database, settings.llm),
            store=Store(database, turns, limits, settings),
        )


# Both are coroutines, though they wait for nothing: FastAPI runs other functions in threads, which takes longer.
async def services_of(request: Request) -> Services:
    """The replica's services."""
    return request.app.state.services


async def _session_of(request: Request) -> bytes:
    return session_of(request)


ServicesOf = Annotated[Services, Depends(services_of)]
SessionOf = Annotated[bytes, Depends(_session_of)]


def json_answer(text: str, status: int = 200) -> Response:
    """What a stored function returned, passed on as it is."""
    return Response(text, status, {"Cache-Control": "no-store"}, media_type="application/json")
