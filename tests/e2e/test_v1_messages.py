"""Anthropic's Messages API of the running product, with the bundled model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from httpx_sse import connect_sse

from tests.support.person import Person

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "Rome"]}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
WEATHER = {"name": "weather", "description": "Tells the weather of a city.", "input_schema": SCHEMA}
HELLO: dict[str, Any] = {
    "model": "default",
    "max_tokens": 24,
    "messages": [{"role": "user", "content": "Say hello."}],
}
CALL = HELLO | {
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "How will the weather be in Bonn in the next three days?"}],
    "tools": [WEATHER],
    "tool_choice": {"type": "tool", "name": "weather"},
}


@pytest.fixture(scope="module")
def client(admin: Person) -> Iterator[httpx.Client]:
    person = admin.invite()
    key = person.call("POST", "/api/keys", {"name": "messages"}, 201)["key"]
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    with httpx.Client(base_url=person.http.base_url, headers=headers, timeout=60) as client:
        yield client


def create(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/messages", json=HELLO | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(client: httpx.Client, **changes: Any) -> list[dict[str, Any]]:
    with connect_sse(client, "POST", "/v1/messages", json=HELLO | changes | {"stream": True}) as source:
        assert source.response.status_code == 200, source.response.read()
        events = list(source.iter_sse())
    made = [json.loads(event.data) for event in events]
    assert [event.event for event in events] == [event["type"] for event in made]
    return made


def prompt_tokens(usage: dict[str, int]) -> int:
    return usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]


def test_a_message_is_answered_with_text(client: httpx.Client) -> None:
    made = create(client, system="You are friendly.")
    assert (made["type"], made["role"], made["model"]) == ("message", "assistant", "default")
    assert made["id"].startswith("msg_")
    assert [block["type"] for block in made["content"]] == ["text"]
    assert made["content"][0]["text"]
    assert made["stop_reason"] in ("end_turn", "max_tokens")
    assert 0 < made["usage"]["output_tokens"] <= 24


def test_a_stream_tells_the_message_piece_by_piece(client: httpx.Client) -> None:
    events = stream(client)
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert len(deltas) > 1
    assert all(delta["type"] == "text_delta" for delta in deltas)
    assert events[-2]["delta"]["stop_reason"] in ("end_turn", "max_tokens")
    assert events[-2]["usage"]["output_tokens"] > 0
    assert prompt_tokens(events[-2]["usage"]) == prompt_tokens(events[0]["message"]["usage"])


def test_the_limit_of_tokens_ends_an_answer(client: httpx.Client) -> None:
    made = create(client, max_tokens=2)
    assert (made["stop_reason"], made["usage"]["output_tokens"]) == ("max_tokens", 2)


def test_an_answer_follows_a_schema_and_the_stop_sequence_that_ends_it_is_told(client: httpx.Client) -> None:
    output = {"format": {"type": "json_schema", "schema": {"enum": ["alpha beta gamma"]}}}
    made = create(client, output_config=output)
    assert (made["content"][0]["text"], made["stop_reason"]) == ('"alpha beta gamma"', "end_turn")
    made = create(client, output_config=output, stop_sequences=["never", " beta"])
    assert made["content"][0]["text"] == '"alpha'
    assert (made["stop_reason"], made["stop_sequence"]) == ("stop_sequence", " beta")


def test_a_tool_that_must_be_used_is_used_by_its_schema(client: httpx.Client) -> None:
    made = create(client, **CALL)
    [block] = made["content"]
    assert (block["type"], block["name"], made["stop_reason"]) == ("tool_use", "weather", "tool_use")
    jsonschema.validate(block["input"], SCHEMA)


def test_a_streamed_call_gives_its_input_as_it_comes(client: httpx.Client) -> None:
    events = stream(client, **CALL)
    [start] = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert (start["type"], start["name"], start["input"]) == ("tool_use", "weather", {})
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert len(deltas) > 1
    jsonschema.validate(json.loads("".join(delta["partial_json"] for delta in deltas)), SCHEMA)
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_what_a_tool_gave_is_answered(client: httpx.Client) -> None:
    called = create(client, **CALL)
    [call] = called["content"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "12 degrees"}]}
    turns = [
        *CALL["messages"],
        {"role": "assistant", "content": called["content"]},
        {"role": "user", "content": [result]},
    ]
    made = create(client, messages=turns, tools=[WEATHER], tool_choice={"type": "none"})
    assert [block["type"] for block in made["content"]] == ["text"]


def test_counted_tokens_are_those_that_usage_tells(client: httpx.Client) -> None:
    for asked in (HELLO | {"system": "Be brief."}, CALL):
        counted = {key: value for key, value in asked.items() if key != "max_tokens"}
        answer = client.post("/v1/messages/count_tokens", json=counted)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"input_tokens": prompt_tokens(create(client, **asked)["usage"])}


@pytest.mark.parametrize(
    ("changes", "status", "kind", "words"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"model": "nobody"}, 404, "not_found_error", "default"),
        ({"mcp_servers": [{}]}, 400, "invalid_request_error", "mcp_servers"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            400,
            "invalid_request_error",
            "image",
        ),
        (
            {"tools": [WEATHER | {"input_schema": {"type": "array"}}], "tool_choice": {"type": "any"}},
            400,
            "invalid_request_error",
            "weather",
        ),
        ({"messages": [{"role": "user", "content": "long " * 20_000}]}, 400, "invalid_request_error", "tokens"),
    ],
)
def test_errors_have_the_shape_that_clients_expect(
    client: httpx.Client, changes: dict[str, Any], status: int, kind: str, words: str
) -> None:
    body = {key: value for key, value in (HELLO | changes).items() if value is not None}
    answer = client.post("/v1/messages", json=body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert words in told["error"]["message"]


def test_a_key_that_is_none_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/messages", json=HELLO, headers={"x-api-key": "rgpt_nothing"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


def test_a_field_that_has_no_effect_is_named_in_a_warning(client: httpx.Client) -> None:
    [warning] = create(client, context_management={})["warnings"]
    assert "context_management" in warning
