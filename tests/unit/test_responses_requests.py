"""What a request for a response asks of the model, and what it is refused for."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.config import Model
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.responses.input_items import page_of
from deployments.gateway.v1.responses.items import listed
from deployments.gateway.v1.responses.prompt import ask_of, echo_of, history_of, warnings_of
from deployments.gateway.v1.responses.schemas import ResponseRequest
from deployments.generation import Ask, Json
from deployments.tool_syntax import with_tools

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
TIME = {"type": "function", "name": "time", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Bonn"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "Rain."}


def request(**fields: Any) -> ResponseRequest:
    return ResponseRequest.model_validate({"model": "default", "input": "Hello"} | fields)


def ask(**fields: Any) -> Ask:
    body = request(**fields)
    warnings_of(body)
    return ask_of(body, [], "ann", 60)


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_text_is_what_a_user_says_after_the_instructions() -> None:
    assert ask(instructions="Be brief.").messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    )


def test_items_become_messages() -> None:
    said = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "How is"}, {"type": "input_text", "text": "it?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        CALL,
        OUTPUT,
    ]
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    assert ask(input=said).messages == (
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How is\nit?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "content": "Rain.", "tool_call_id": "call_1"},
    )


def test_calls_of_one_answer_are_one_message() -> None:
    other = CALL | {"call_id": "call_2"}
    messages = ask(input=[{"role": "user", "content": "Hello"}, CALL, other, OUTPUT]).messages
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_1", "call_2"]


@pytest.mark.parametrize("template_knows_tools", [True, False])
def test_calls_and_their_outputs_can_be_rendered(template_knows_tools: bool) -> None:
    messages = ask(input=[{"role": "user", "content": "Hello"}, CALL, OUTPUT]).messages
    called, answered = with_tools(messages, None, template_knows_tools)[1:]
    assert "Rain." in answered["content"]
    if template_knows_tools:
        assert called["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Bonn"}}
    else:
        assert '{"name": "weather", "arguments": {"city": "Bonn"}}' in called["content"]


def test_an_output_without_its_call_is_refused() -> None:
    assert "call_1" in refused(input=[OUTPUT]).message


@pytest.mark.parametrize("kind", ["input_image", "input_file", "input_audio"])
def test_what_no_model_reads_is_named(kind: str) -> None:
    error = refused(input=[{"role": "user", "content": [{"type": "input_text", "text": "See"}, {"type": kind}]}])
    assert kind in error.message
    assert error.param == "input.0.content.1.type"


def test_an_item_that_nothing_makes_here_is_named() -> None:
    error = refused(input=[{"role": "user", "content": "Hello"}, {"type": "computer_call", "id": "x"}])
    assert "computer_call" in error.message
    assert error.param == "input.1.type"


def test_an_empty_input_is_refused() -> None:
    assert refused(input=[], instructions="Be brief.").param == "input"


@pytest.mark.parametrize("kind", ["web_search", "file_search", "mcp", "code_interpreter", "custom"])
def test_tools_that_do_not_run_here_are_named(kind: str) -> None:
    error = refused(tools=[WEATHER, {"type": kind}])
    assert kind in error.message
    assert error.param == "tools.1.type"


def test_allowed_tools_are_those_that_the_model_sees() -> None:
    only = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    tools = ask(tools=[WEATHER, TIME], tool_choice=only).tools
    assert tools is not None
    assert ([function.name for function in tools.functions], tools.choice) == (["time"], "required")


def test_a_named_function_must_be_one_of_the_tools() -> None:
    error = refused(tools=[WEATHER], tool_choice={"type": "function", "name": "time"})
    assert "time" in error.message


def test_no_tools_are_shown_where_none_may_be_called() -> None:
    assert ask(tools=[WEATHER], tool_choice="none").tools is None


def test_a_schema_is_followed() -> None:
    schema = {"type": "object", "properties": {"day": {"type": "string"}}}
    assert ask(text={"format": {"type": "json_schema", "name": "day", "schema": schema}}).json_schema == schema
    assert ask(text={"format": {"type": "json_object"}}).json_schema == {"type": "object"}
    assert ask(text={"format": {"type": "text"}}).json_schema is None


def test_a_forced_call_and_a_schema_exclude_each_other() -> None:
    error = refused(tools=[WEATHER], tool_choice="required", text={"format": {"type": "json_object"}})
    assert error.param == "tool_choice"


@pytest.mark.parametrize(
    ("fields", "top"),
    [
        ({}, None),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"top_logprobs": 0}, None),
    ],
)
def test_logprobs_are_given_to_whoever_asks(fields: Json, top: int | None) -> None:
    assert ask(**fields).sampling.top_logprobs == top


@pytest.mark.parametrize("name", ["conversation", "prompt", "max_tokens", "messages", "response_format"])
def test_fields_that_change_the_answer_are_not_ignored(name: str) -> None:
    assert refused(**{name: "x"}).param == name


def test_what_is_ignored_is_told() -> None:
    body = request(
        prompt_cache_retention="24h",
        reasoning={"effort": "low"},
        include=["reasoning.encrypted_content"],
        text={"verbosity": "low"},
        service_tier="flex",
    )
    warnings = warnings_of(body)
    assert echo_of(body, Model(), True, warnings)["warnings"] == warnings
    named = " ".join(warnings)
    for name in ("prompt_cache_retention", "reasoning.effort", "encrypted_content", "text.verbosity", "service_tier"):
        assert name in named


def test_what_the_model_is_set_to_is_shown() -> None:
    echo = echo_of(request(), Model(temperature=0.3), True, [])
    assert echo["temperature"] == 0.3
    assert echo_of(request(temperature=0), Model(temperature=0.3), True, [])["temperature"] == 0


def test_the_next_response_goes_on_without_the_instructions_of_the_one_before() -> None:
    body = request(instructions="Be brief.")
    first = ask_of(body, [], "", 60)
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]}]
    before = history_of(first, echo_of(body, Model(), True, []), output)
    second = ask_of(request(input="And you?", instructions="Rhyme."), before, "", 60)
    assert [message["content"] for message in second.messages] == ["Rhyme.", "Hello", "Hi.", "And you?"]


def test_input_items_come_in_pages() -> None:
    items = listed(request(input=[{"role": "user", "content": str(n)} for n in range(5)]).input)
    first = page_of("resp_1", items, None, 2, "asc")
    second = page_of("resp_1", items, first["last_id"], 3, "asc")
    texts = [item["content"][0]["text"] for item in first["data"] + second["data"]]
    assert texts == ["0", "1", "2", "3", "4"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert page_of("resp_1", items, None, 1, "desc")["data"][0]["content"][0]["text"] == "4"


def test_a_page_after_an_unknown_item_is_refused() -> None:
    with pytest.raises(ApiError, match="no input item"):
        page_of("resp_1", listed("Hello"), "msg_x", 20, "asc")
