"""/v1/tokenize and /v1/detokenize of the running product, with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.person import Person

TEXT = "Grüße, 世界! <|im_end|> is no special token here."
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def client(admin: Person) -> Iterator[httpx.Client]:
    person = admin.invite()
    key = person.call("POST", "/api/keys", {"name": "tokens", "scopes": ["v1.read", "v1.write"]}, 201)["key"]
    with httpx.Client(base_url=person.http.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        yield client


def post(client: httpx.Client, path: str, status: int = 200, **fields: Any) -> dict[str, Any]:
    answer = client.post(path, json={"model": "default"} | fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_text_becomes_tokens_and_these_the_text(client: httpx.Client) -> None:
    made = post(client, "/v1/tokenize", text=TEXT)
    assert made.keys() == {"tokens", "pieces", "count"}
    assert made["count"] == len(made["tokens"]) == len(made["pieces"])
    assert post(client, "/v1/detokenize", tokens=made["tokens"]) == {"text": TEXT}


@pytest.mark.parametrize("more", [{}, {"tools": [ADD]}])
def test_a_chat_has_as_many_tokens_as_its_answer_tells(client: httpx.Client, more: dict[str, Any]) -> None:
    counted = [post(client, "/v1/tokenize", messages=MESSAGES, **more)["count"] for _ in range(2)]
    answer = post(client, "/v1/chat/completions", messages=MESSAGES, max_tokens=1, **more)
    assert counted == [answer["usage"]["prompt_tokens"]] * 2


def test_fields_that_have_no_effect_are_named(client: httpx.Client) -> None:
    made = post(client, "/v1/tokenize", messages=[MESSAGES[1] | {"mood": "good"}], user="Ann")
    assert [warning.split()[0] for warning in made["warnings"]] == ["user", "messages.*.mood"]
    [warning] = post(client, "/v1/detokenize", tokens=made["tokens"], skip=1)["warnings"]
    assert warning.startswith("skip ")


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/v1/tokenize", {}, "either"),
        ("/v1/tokenize", {"text": TEXT, "messages": MESSAGES}, "either"),
        ("/v1/tokenize", {"text": TEXT, "add_special": True}, "add_special"),
        ("/v1/detokenize", {"tokens": [10**6]}, "token ids"),
        ("/v1/detokenize", {"tokens": ["a"]}, "tokens"),
    ],
)
def test_what_cannot_be_told_is_refused(client: httpx.Client, path: str, fields: dict[str, Any], words: str) -> None:
    error = post(client, path, 400, **fields)["error"]
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
