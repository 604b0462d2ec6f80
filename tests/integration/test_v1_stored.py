"""Stored answers over HTTP, on a real PostgreSQL and without models: the tests write the answers themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from db.pool import Database, Grant
from deployments.config import Settings
from deployments.gateway.auth.cookies import csrf_token
from deployments.gateway.services import Services
from deployments.gateway.v1.asking import Asking
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.fields import invalid
from deployments.gateway.v1.stored.answer import message_id_of
from deployments.gateway.v1.stored.store import Store
from deployments.generation import Ask
from deployments.sessions import SESSION_COOKIE
from tests.integration.conftest import HOUR
from tests.integration.conftest import Store as Functions
from tests.integration.gateway import served
from tests.integration.test_stored_tail import NoModels, gone_silent

CHAT: dict[str, Any] = {"model": "default", "store": True, "messages": [{"role": "user", "content": "Hello?"}]}


class Model(Asking):
    """A model that takes everything, until it is told not to."""

    refusal: ApiError | None = None

    async def validate(self, model_id: str, ask: Ask) -> None:
        """As of every model."""
        if self.refusal:
            raise self.refusal


class Deleting(Database):
    """Deletes an answer right after a page with it was read."""

    def __init__(self, pool: asyncpg.Pool, grant: Grant) -> None:
        super().__init__(pool, grant)
        self.doomed: tuple[bytes, UUID] | None = None

    async def value(self, name: str, *args: Any, timeout_seconds: float | None = None) -> Any:
        """As of every database."""
        found = await super().value(name, *args, timeout_seconds=timeout_seconds)
        if name == "list_responses" and self.doomed:
            session, message_id = self.doomed
            await super().value("delete_response", session, HOUR, "chat", message_id)
        return found


@dataclass
class Api:
    """A Gateway as ann uses it."""

    http: httpx.AsyncClient
    model: Model
    database: Deleting
    functions: Functions

    async def post(self, path: str, body: dict[str, Any], once: str | None = None) -> httpx.Response:
        """A request that is written here while it waits for its answer."""
        return await self.http.post(path, json=body, headers={"Idempotency-Key": once} if once else {})

    async def answered(self, path: str, body: dict[str, Any], once: str | None = None) -> dict[str, Any]:
        """The whole answer, which is written as soon as it is asked for."""
        asking = asyncio.create_task(self.post(path, body, once))
        async with asyncio.timeout(30):
            while not (claims := await self.functions.claim("replica")):
                assert not asking.done(), asking.result().text
        for claim in claims:
            await self.functions.append(claim, 0, "Hello!")
            await self.functions.finish(claim)
        answer = await asking
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def api(store: Functions) -> AsyncIterator[Api]:
    settings = Settings()
    database = Deleting(store.app._pool, store.app._grant)  # pyright: ignore[reportPrivateUsage]
    services = Services.build(settings, database)
    model, answers = Model(settings.llm, 1.0), Store(database, NoModels(), services.limits, settings)
    services = replace(services, turns=NoModels(), asking=model, store=answers)
    async with served(services) as http:
        http.headers.update({"Cookie": f"{SESSION_COOKIE}=ann", "X-CSRF-TOKEN": csrf_token("ann")})
        yield Api(http, model, database, store)
    await gone_silent(answers)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", CHAT), ("/v1/responses", {"model": "default", "input": "Hello?"})],
    ids=["chat", "response"],
)
async def test_a_repeat_gets_its_answer_though_the_model_would_not_take_it_now(
    api: Api, path: str, body: dict[str, Any]
) -> None:
    once = str(uuid4())
    answer = await api.answered(path, body, once)
    api.model.refusal = invalid("messages", "Not now.")
    again = await api.post(path, body, once)
    assert (again.status_code, again.json()) == (200, answer)
    assert (await api.post(path, body)).status_code == 400
    assert (await api.post(path, body | {"user": "another"}, once)).status_code == 422


async def test_a_repeat_gets_its_answer_though_the_response_before_it_was_deleted(api: Api) -> None:
    first = await api.answered("/v1/responses", {"model": "default", "input": "Hello?"})
    body = {"model": "default", "input": "Go on.", "previous_response_id": first["id"]}
    once = str(uuid4())
    second = await api.answered("/v1/responses", body, once)
    await api.http.delete(f"/v1/responses/{first['id']}")
    assert (await api.post("/v1/responses", body, once)).json() == second
    assert (await api.post("/v1/responses", body)).json()["error"]["code"] == "previous_response_not_found"


async def test_an_answer_that_is_deleted_while_a_page_is_read_is_left_out(api: Api) -> None:
    body = CHAT | {"logprobs": True, "metadata": {"page": "one"}}  # they are read from the log, after the page
    kept, doomed = [(await api.answered("/v1/chat/completions", body))["id"] for _ in range(2)]
    message_id = message_id_of("chat", doomed)
    assert message_id
    api.database.doomed = (api.functions.sessions["ann"], message_id)
    page = (await api.http.get("/v1/chat/completions?metadata[page]=one")).json()
    assert [shown["id"] for shown in page["data"]] == [kept]
