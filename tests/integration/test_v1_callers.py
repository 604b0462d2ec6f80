"""Who is let in under /v1 and how refusals look: OpenAI's error object, under /v1/messages Anthropic's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.gateway.auth.cookies import csrf_token
from deployments.gateway.v1.models.served import ServedModels
from deployments.sessions import SESSION_COOKIE
from tests.integration.browser import browser
from tests.integration.conftest import Store
from tests.integration.gateway import bearer, gateway

EMBED: dict[str, Any] = {"model": "no such model", "input": "hello"}


@pytest.fixture(scope="module")
async def key(store: Store) -> str:
    async with browser(store, "ann") as ann:
        return (await ann.call("POST", "/api/keys", {"name": "tests"}, 201))["key"]


@pytest.fixture(scope="module")
async def api(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(store.app) as http:
        yield http


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """OpenAI's error object, checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    [(name, body)] = answer.json().items()
    assert name == "error"
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"]
    return body


async def test_nobody_is_let_in_without_a_credential(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/models")
    assert error(answer, 401) | {"message": ""} == {
        "message": "",
        "type": "authentication_error",
        "param": None,
        "code": "missing_api_key",
    }
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert error(await api.get("/v1/models", headers=bearer("sk-other")), 401)["code"] == "invalid_api_key"
    assert error(await api.get("/v1/models", headers=bearer("")), 401)["code"] == "invalid_api_key"


async def test_anybody_is_let_in_where_that_is_set_but_not_with_a_bad_key(store: Store) -> None:
    async with gateway(store.app, anonymous=True) as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await http.get("/v1/models", headers=bearer("sk-none-needed"))).status_code == 200
        assert error(await http.get("/v1/models", headers=bearer("rgpt_mistyped")), 401)["code"] == "invalid_api_key"
        assert error(await http.post("/v1/embeddings", json=EMBED), 404)["code"] == "model_not_found"


async def test_a_session_reads_and_needs_the_csrf_token_to_write(store: Store, api: httpx.AsyncClient) -> None:
    cookies = {"Cookie": f"{SESSION_COOKIE}=ann"}
    assert (await api.get("/v1/models", headers=cookies)).status_code == 200
    assert error(await api.post("/v1/embeddings", json=EMBED, headers=cookies), 403)["code"] == "csrf"
    headers = cookies | {"X-CSRF-TOKEN": csrf_token("ann")}
    assert error(await api.post("/v1/embeddings", json=EMBED, headers=headers), 404)["code"] == "model_not_found"
    unknown = {"Cookie": f"{SESSION_COOKIE}=nobody"}
    assert error(await api.get("/v1/models", headers=unknown), 401)["code"] == "invalid_session"


async def test_a_key_needs_no_csrf_token_even_beside_a_cookie(api: httpx.AsyncClient, key: str) -> None:
    headers = {"Cookie": f"{SESSION_COOKIE}=ann"} | bearer(key)
    assert error(await api.post("/v1/embeddings", json=EMBED, headers=headers), 404)["code"] == "model_not_found"


async def test_sessions_have_a_limit_each_user_one(store: Store) -> None:
    async with gateway(store.app, requests_per_minute=1) as http:
        statuses = [
            (await http.get("/v1/models", headers={"Cookie": f"{SESSION_COOKIE}={name}"})).status_code
            for name in ("ann", "ann", "ben")
        ]
    assert statuses == [200, 429, 200]


async def test_models_are_listed_with_a_time_that_stays(store: Store, api: httpx.AsyncClient, key: str) -> None:
    listed = (await api.get("/v1/models", headers=bearer(key))).json()
    [card] = listed["data"]
    assert listed["object"] == "list"
    assert card == {"id": "default", "object": "model", "created": card["created"], "owned_by": "rustygpt"}
    assert card["created"] > 1_700_000_000
    async with gateway(store.app) as another:
        assert (await another.get("/v1/models/default", headers=bearer(key))).json() == card


async def test_an_unknown_model_is_404_that_names_those_there_are(api: httpx.AsyncClient, key: str) -> None:
    for name in ("gpt-9", "some/model"):
        body = error(await api.get(f"/v1/models/{name}", headers=bearer(key)), 404)
        assert (body["code"], body["param"], body["type"]) == ("model_not_found", "model", "invalid_request_error")
        assert name in body["message"]
        assert "default" in body["message"]


async def test_unknown_routes_and_methods(api: httpx.AsyncClient, key: str) -> None:
    assert error(await api.get("/v1/nothing", headers=bearer(key)), 404)["code"] == "unknown_url"
    answer = await api.delete("/v1/models", headers=bearer(key))
    assert error(answer, 405)["code"] == "method_not_supported"
    assert answer.headers["Allow"] == "GET"


async def test_bodies_that_are_not_json_or_too_large(api: httpx.AsyncClient, key: str) -> None:
    headers = bearer(key) | {"Content-Type": "application/json"}
    broken = error(await api.post("/v1/embeddings", content=b'{"model"', headers=headers), 400)
    assert (broken["type"], broken["code"]) == ("invalid_request_error", "invalid_json")
    large = error(await api.post("/v1/embeddings", content=b" " * 1_048_577, headers=headers), 413)
    assert (large["type"], large["code"]) == ("invalid_request_error", "body_too_large")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": "default"}, "input", "missing_required_parameter"),
        ({"model": 5, "input": "a"}, "model", "invalid_type"),
        ({"model": "default", "input": [[1, "a"]]}, "input.0.1", "invalid_type"),
        ([], None, "invalid_type"),
    ],
)
async def test_a_wrong_field_is_named(
    api: httpx.AsyncClient, key: str, body: object, param: str | None, code: str
) -> None:
    fault = error(await api.post("/v1/embeddings", json=body, headers=bearer(key)), 400)
    assert (fault["type"], fault["code"]) == ("invalid_request_error", code)
    assert fault["param"] == param


async def test_a_failure_of_ours_tells_nothing_internal(
    api: httpx.AsyncClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: ServedModels) -> bytes:
        raise RuntimeError("something internal")

    monkeypatch.setattr(ServedModels, "all", fail)
    answer = await api.get("/v1/models", headers=bearer(key))
    assert error(answer, 500)["type"] == "server_error"
    assert "internal" not in answer.json()["error"]["message"]


async def test_refusals_under_messages_have_anthropics_shape(api: httpx.AsyncClient, key: str) -> None:
    headers = {"x-api-key": key, "x-request-id": "request-1", "Content-Type": "application/json"}
    for answer, status, kind in (
        (await api.get("/v1/messages/nothing/here", headers=headers), 404, "not_found_error"),
        (await api.post("/v1/messages", content=b" " * 1_048_577, headers=headers), 413, "request_too_large"),
    ):
        assert answer.status_code == status
        assert answer.headers["request-id"] == "request-1"
        body = answer.json()
        assert set(body) == {"type", "error", "request_id"}
        assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "request-1")


async def test_the_rest_of_the_product_keeps_its_problems(api: httpx.AsyncClient) -> None:
    for path in ("/api/auth/me", "/v10", "/nothing"):
        answer = await api.get(path)
        assert answer.headers["content-type"] == "application/problem+json", path


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/v1/chat/completions", '"logit_bias": {"\\ud800": 1}', 400),
        ("/v1/chat/completions", '"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]', 400),
        ("/v1/messages", '"max_tokens": 1, "tools": [{"name": "f", "input_schema": DEEP}]', 400),
        ("/v1/messages", '"max_tokens": 1, "tools": [{"name": "f", "input_schema": {"maximum": HUGE}}]', 404),
    ],
    ids=["half a character", "deep", "deep of Anthropic's", "a huge number"],
)
async def test_odd_json_is_no_failure(api: httpx.AsyncClient, key: str, path: str, more: str, status: int) -> None:
    more = more.replace("DEEP", '{"a": ' * 800 + "1" + "}" * 800).replace("HUGE", str(2**70))
    body = f'{{"model": "no such model", "messages": [{{"role": "user", "content": "Hi"}}], {more}}}'
    answer = await api.post(path, content=body, headers=bearer(key) | {"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text


async def test_streams_are_told_to_come_again_while_the_proxy_does_not_know_the_streamer(
    api: httpx.AsyncClient,
) -> None:
    for path in ("/api/stream/me", "/api/stream/conversations/01a21545-a568-7111-a298-4badcac41ab4"):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "RGP.STARTING")
        assert answer.headers["Retry-After"]
