"""Functions called in chat completions of the running product, with the bundled model, which knows no tools itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from httpx_sse import connect_sse

from tests.support.person import Person

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
SUM = {
    "type": "object",
    "properties": {"numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}},
    "required": ["numbers"],
}
SCHEMAS: dict[str, Any] = {"weather": CITY, "add": SUM}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
ASKED: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "How is the weather in Bonn and in Rome?"}],
    "tools": TOOLS,
    "tool_choice": "required",
    "temperature": 0,
    "max_tokens": 90,
}


@pytest.fixture(scope="module")
def client(admin: Person) -> Iterator[httpx.Client]:
    person = admin.invite()
    key = person.call("POST", "/api/keys", {"name": "tools"}, 201)["key"]
    with httpx.Client(base_url=person.http.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        yield client


def choice(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/chat/completions", json=ASKED | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def streamed(client: httpx.Client, **changes: Any) -> tuple[list[dict[str, Any]], str]:
    """The deltas, and the reason of the end."""
    deltas, reason = [], ""
    with connect_sse(client, "POST", "/v1/chat/completions", json=ASKED | changes | {"stream": True}) as source:
        for event in source.iter_sse():
            if event.data != "[DONE]":
                [made] = json.loads(event.data)["choices"]
                deltas.append(made["delta"])
                reason = made["finish_reason"] or reason
    return deltas, reason


def check(call: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])


@pytest.mark.parametrize("name", ["weather", "add"])
def test_the_function_that_is_named_is_called_by_its_schema(client: httpx.Client, name: str) -> None:
    made = choice(client, tool_choice={"type": "function", "function": {"name": name}})
    assert made["finish_reason"] == "tool_calls"
    [call] = made["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", name)
    assert made["message"]["content"] is None
    check(call)


def test_a_streamed_call_begins_with_its_name_and_gives_its_arguments_as_they_come(client: httpx.Client) -> None:
    deltas, reason = streamed(client, parallel_tool_calls=False)
    assert reason == "tool_calls"
    assert not any(delta.get("content") for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["id"].startswith("call_")
    assert len(calls) > 2
    arguments = "".join(call["function"]["arguments"] for call in calls)
    check({"function": {"name": calls[0]["function"]["name"], "arguments": arguments}})


def test_several_functions_are_called_at_once_unless_that_is_forbidden(client: httpx.Client) -> None:
    # This model must not end by itself: it goes on calling, as far as that is allowed.
    made = choice(client, ignore_eos=True)
    calls = made["message"]["tool_calls"]
    assert len(calls) > 1
    assert len({call["id"] for call in calls}) == len(calls)
    for call in calls[:-1]:  # the last one may be cut off
        check(call)
    deltas, _ = streamed(client, ignore_eos=True)
    assert {call["index"] for delta in deltas for call in delta.get("tool_calls", ())} >= {0, 1}
    made = choice(client, ignore_eos=True, parallel_tool_calls=False)
    assert len(made["message"]["tool_calls"]) == 1


def test_what_a_function_gave_is_answered_with_text(client: httpx.Client) -> None:
    called = choice(client, parallel_tool_calls=False)["message"]
    [call] = called["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees <|im_end|>"}
    made = choice(client, messages=[*ASKED["messages"], called, result], tool_choice="none")
    assert made["message"]["content"]
    assert "tool_calls" not in made["message"]


def test_a_model_that_may_choose_answers(client: httpx.Client) -> None:
    for tools in (TOOLS, [tool | {"function": tool["function"] | {"strict": True}} for tool in TOOLS]):
        made = choice(client, tools=tools, tool_choice="auto", max_tokens=30)
        assert made["message"]["content"] or made["message"]["tool_calls"]


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "$ref": "https://x"}}}
            ]
        },
        {"tool_choice": {"type": "function", "function": {"name": "nobody"}}},
        {"tools": None},
    ],
)
def test_tools_that_cannot_be_called_are_refused(client: httpx.Client, changes: dict[str, Any]) -> None:
    answer = client.post("/v1/chat/completions", json=ASKED | changes)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["message"]
