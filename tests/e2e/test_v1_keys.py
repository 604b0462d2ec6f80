"""API keys and refusals under /v1 as clients meet them: through the proxy, on the running product."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.person import Person
from tests.support.product import Product

PROMISED_SECONDS = 2.0


@pytest.fixture(scope="module")
def api(product: Product) -> Iterator[httpx.Client]:
    """A client without any credential."""
    with httpx.Client(base_url=product.url, timeout=30) as http:
        yield http


def key_of(person: Person, **more: object) -> dict[str, Any]:
    """A new key."""
    return person.call("POST", "/api/keys", {"name": "tests"} | more, 201)


def bearer(made: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['key']}"}


def code(answer: httpx.Response, status: int) -> str:
    """Of OpenAI's error object, checked; each answer has an id to ask an operator about."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    [(name, body)] = answer.json().items()
    assert name == "error"
    assert set(body) == {"message", "type", "param", "code"}
    return body["code"]


def test_a_key_lists_the_models(api: httpx.Client, person: Person) -> None:
    made = key_of(person)
    for headers in (bearer(made), {"x-api-key": made["key"]}):
        answer = api.get("/v1/models", headers=headers | {"x-request-id": "mine"})
        assert answer.status_code == 200
        assert answer.headers.get_list("x-request-id") == ["mine"]
        assert [model["id"] for model in answer.json()["data"]] == ["default"]


def test_a_revoked_key_is_refused_within_2_seconds(api: httpx.Client, person: Person) -> None:
    made = key_of(person)
    assert api.get("/v1/models", headers=bearer(made)).status_code == 200
    person.call("DELETE", f"/api/keys/{made['id']}", status=204)
    revoked = last = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = api.get("/v1/models", headers=bearer(made))
        if answer.status_code != 200:
            break
        last = asked
        assert last - revoked < 20
    assert code(answer, 401) == "invalid_api_key"
    assert last - revoked < PROMISED_SECONDS


def test_a_key_that_expires_is_refused(api: httpx.Client, person: Person) -> None:
    made = key_of(person, expires_in_seconds=1)
    began = time.monotonic()
    while (answer := api.get("/v1/models", headers=bearer(made))).status_code == 200:
        assert time.monotonic() - began < 20
    assert code(answer, 401) == "expired_api_key"


def test_scopes_are_kept(api: httpx.Client, person: Person) -> None:
    body = {"model": "default", "input": "hello"}
    reader, writer = key_of(person, scopes=["v1.read"]), key_of(person, scopes=["v1.write"])
    assert code(api.post("/v1/embeddings", json=body, headers=bearer(reader)), 403) == "insufficient_scope"
    assert code(api.get("/v1/models", headers=bearer(writer)), 403) == "insufficient_scope"


def test_without_a_key_there_is_a_session_or_nothing(api: httpx.Client, person: Person) -> None:
    assert code(api.get("/v1/models"), 401) == "missing_api_key"
    assert person.call("GET", "/v1/models")["object"] == "list"
    unprotected = httpx.Client(base_url=person.http.base_url, cookies=person.http.cookies)
    assert code(unprotected.post("/v1/embeddings", json={"model": "no such model", "input": "a"}), 403) == "csrf"


def test_refusals_have_the_shape_of_openai(api: httpx.Client, person: Person) -> None:
    headers = bearer(key_of(person))
    json = {"Content-Type": "application/json"}
    assert code(api.get("/v1/nothing", headers=headers), 404) == "unknown_url"
    assert code(api.get("/v1/models/other", headers=headers), 404) == "model_not_found"
    assert code(api.put("/v1/models", headers=headers), 405) == "method_not_supported"
    assert code(api.post("/v1/embeddings", content=b"{", headers=headers | json), 400) == "invalid_json"
    assert code(api.post("/v1/embeddings", content=b" " * 1_048_577, headers=headers | json), 413) == "body_too_large"


def test_checks_of_keys_are_counted(api: httpx.Client, person: Person) -> None:
    headers = bearer(key_of(person))
    deadline = time.monotonic() + 60
    while True:
        assert api.get("/v1/models", headers=headers).status_code == 200
        text = api.get("/metrics").text
        if all(f'rustygpt_api_key_checks_total{{result="{result}"}}' in text for result in ("looked_up", "remembered")):
            break
        assert time.monotonic() < deadline, text
