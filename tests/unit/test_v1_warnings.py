"""Fields of requests to /v1 that have no effect are named, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.gateway.v1.chat.schemas import ChatRequest
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.fields import OpenBody
from deployments.gateway.v1.messages.schemas import MessagesRequest
from deployments.gateway.v1.responses.schemas import ResponseRequest

MODEL: dict[str, Any] = {"model": "default"}
SCHEMA = {"type": "object", "properties": {"unknown": {"type": "string"}}}


def chat(message: dict[str, Any], **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate(MODEL | {"messages": [message]} | fields)


def response(item: dict[str, Any], **fields: Any) -> ResponseRequest:
    return ResponseRequest.model_validate(MODEL | {"input": [item]} | fields)


def message(block: dict[str, Any], **fields: Any) -> MessagesRequest:
    turn = {"role": "user", "content": [{"type": "text", "text": "Hello?"} | block]}
    return MessagesRequest.model_validate(MODEL | {"max_tokens": 9, "messages": [turn]} | fields)


USER = {"role": "user", "content": "Hello?"}
FUNCTION = {"name": "add", "parameters": SCHEMA}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (chat(USER, verbosity="low"), ["verbosity"]),
        (chat(USER | {"mood": "good"}), ["messages.*.mood"]),
        (
            chat({"role": "user", "content": [{"type": "text", "text": "Hello?", "mood": 1}]}),
            ["messages.*.content.*.mood"],
        ),
        (chat(USER, tools=[{"type": "function", "function": FUNCTION | {"mood": 1}}]), ["tools.*.function.mood"]),
        (
            chat(USER, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "x": 1}}),
            ["response_format.json_schema.x"],
        ),
        (
            chat(USER, tools=[{"type": "function", "function": FUNCTION}], tool_choice="auto", stream_options={"x": 1}),
            ["stream_options.x"],
        ),
        (response(USER | {"mood": 1}, text={"format": {"type": "text", "x": 1}}), ["input.*.mood", "text.format.x"]),
        (response(USER, tools=[FUNCTION | {"type": "function", "mood": 1}]), ["tools.*.mood"]),
        (message({"citations": [1]}), ["messages.*.content.*.citations"]),
        (message({}, thinking={"type": "enabled", "budget_tokens": 2000}), ["thinking.budget_tokens"]),
        (message({}, output_config={"effort": "low"}), ["output_config.effort"]),
    ],
)
def test_what_has_no_effect_is_named(body: OpenBody, names: list[str]) -> None:
    assert body.warnings({}) == [f"{name} is not supported here and was ignored" for name in names]


@pytest.mark.parametrize(
    "body",
    [
        chat({"role": "assistant", "content": "Yes.", "reasoning_content": "Hm.", "audio": None}),
        chat(USER, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}),
        response({"type": "message", "role": "assistant", "content": "Yes.", "id": "msg_1", "status": "completed"}),
        message({"cache_control": {"type": "ephemeral"}}, tools=[{"name": "add", "input_schema": SCHEMA}]),
        message(
            {}, messages=[{"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": ""}]}]
        ),
    ],
)
def test_what_is_not_missed_is_not_named(body: OpenBody) -> None:
    assert body.warnings({}) == []


def test_a_field_is_named_once_however_often_it_stands_there() -> None:
    body = ChatRequest.model_validate(MODEL | {"messages": [USER | {"mood": 1}] * 3})
    assert body.warnings({}) == ["messages.*.mood is not supported here and was ignored"]


def test_what_is_named_is_not_echoed() -> None:
    tools = response(USER, tools=[FUNCTION | {"type": "function", "mood": 1}]).tools
    assert tools
    assert "mood" not in tools[0].model_dump()


def test_fields_that_change_the_meaning_are_refused_all_the_same() -> None:
    with pytest.raises(ApiError):
        chat(USER | {"mood": 1}, functions=[FUNCTION]).warnings({"functions": "Use `tools`."})
