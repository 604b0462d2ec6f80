"""Messages of Anthropic's API from what a model made, and requests for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.json_text import json_bytes
from deployments.gateway.v1.messages.encode import Frame, MessageFold
from deployments.gateway.v1.messages.prompt import ask_of, messages_of
from deployments.gateway.v1.messages.schemas import CountRequest, MessagesRequest
from deployments.generation import Ended, Item, Json, Piece, Started

ANSWER = (
    "<think>\nHm.\n</think>\n\nLet me see.\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
)
HI = [{"role": "user", "content": "Hi"}]


def frame(**changes: Any) -> Frame:
    return Frame(**({"id": "msg_1", "model": "m", "tool_names": ("weather",)} | changes))


def ended(reason: Any = "stop", stop: str | None = None, message: str = "") -> Ended:
    return Ended(0, reason, 12, 5, 8, message, stop)


def told(*items: Item, **changes: Any) -> tuple[list[Json], Json]:
    fold = MessageFold(frame(**changes))
    return fold.feed([Started(12), *items]), fold.whole()


def assembled(events: list[Json]) -> Json:
    """The message as a client puts it together."""
    message = events[0]["message"]
    for event in events[1:]:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                block, delta = message["content"][event["index"]], event["delta"]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "input_json_delta":
                        block["json"] = block.get("json", "") + delta["partial_json"]
            case "content_block_stop":
                block = message["content"][event["index"]]
                if "json" in block:
                    block["input"] = json.loads(block.pop("json"))
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    return message


def test_events_come_in_the_order_that_clients_expect() -> None:
    events, _ = told(Piece(0, "Hel"), Piece(0, "lo"), ended())
    assert [event["type"] for event in events] == [
        *("message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert events[0]["message"]["stop_reason"] is None
    assert events[0]["message"]["usage"]["input_tokens"] == 12


@given(cuts=st.lists(st.integers(1, len(ANSWER) - 1), max_size=12))
def test_what_a_stream_adds_up_to_is_the_whole_message(cuts: list[int]) -> None:
    ends = [*sorted(set(cuts)), len(ANSWER)]
    pieces = [Piece(0, ANSWER[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    events, whole = told(*pieces, ended())
    assert assembled(events) == whole
    thinking, text, oslo, rome = whole["content"]
    assert thinking == {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert text == {"type": "text", "text": "Let me see."}
    assert (oslo["type"], oslo["name"], oslo["input"]) == ("tool_use", "weather", {"city": "Oslo"})
    assert rome["input"] == {"city": "Rome"}
    assert oslo["id"].startswith("toolu_")
    assert oslo["id"] != rome["id"]
    assert whole["stop_reason"] == "tool_use"


def test_cached_tokens_are_told_apart_from_other_tokens_of_the_prompt() -> None:
    _, whole = told(ended())
    assert whole["usage"] == {
        "input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 8,
        "output_tokens": 5,
    }
    assert whole["content"] == []


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        (ended(), "end_turn", None),
        (ended("length"), "max_tokens", None),
        (ended(stop="\n\n"), "stop_sequence", "\n\n"),
    ],
)
def test_why_it_ended_is_told(end: Ended, reason: str, sequence: str | None) -> None:
    events, whole = told(Piece(0, "Hi"), end)
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert assembled(events) == whole


def test_thinking_is_left_out_where_it_is_disabled() -> None:
    _, whole = told(Piece(0, ANSWER), ended(), thinking=False)
    assert [block["type"] for block in whole["content"]] == ["text", "tool_use", "tool_use"]


def test_a_call_that_is_cut_off_has_the_input_so_far() -> None:
    cut = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo", "unit": "cel'
    _, whole = told(Piece(0, cut), ended("length"))
    assert whole["content"][0]["input"] == {"city": "Oslo"}
    broken = '<tool_call>{"name": "weather", "arguments": {city}}</tool_call>'
    _, whole = told(Piece(0, broken), ended())
    assert whole["content"] == [{"type": "text", "text": "weather: {city}"}]
    assert whole["stop_reason"] == "end_turn"


def test_an_answer_that_fails_ends_with_an_error() -> None:
    fold = MessageFold(frame(request_id="r1"))
    events = fold.feed([Started(12), Piece(0, "Hel"), ended("error", message="It broke.")])
    assert events[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "It broke."},
        "request_id": "r1",
    }
    with pytest.raises(ApiError, match="It broke"):
        fold.whole()


def request(**changes: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"model": "m", "max_tokens": 9, "messages": HI} | changes)


def test_a_request_becomes_what_models_are_asked() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    ask = ask_of(
        request(
            system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", "cache_control": {}}],
            tools=[{"name": "weather", "description": "Weather", "input_schema": schema}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            temperature=0.5,
            top_k=3,
        ),
        "somebody",
        60.0,
    )
    assert ask.messages == ({"role": "system", "content": "Be brief.\nBe kind."}, HI[0])
    assert ask.tools is not None
    assert (ask.tools.choice, ask.tools.parallel) == ("required", False)
    assert ask.tools.functions[0].parameters == schema
    assert (ask.sampling.max_tokens, ask.sampling.stop) == (9, ("END",))
    assert (ask.sampling.temperature, ask.sampling.top_k) == (0.5, 3)


def test_calls_and_their_results_become_messages_of_their_own() -> None:
    turns = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "12"}]},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no", "is_error": True},
                {"type": "text", "text": "And now?"},
            ],
        },
        {"role": "user", "content": "Well?"},
    ]
    made = messages_of(CountRequest.model_validate({"model": "m", "messages": turns}))
    function = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert made == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "12", "tool_call_id": "toolu_1"},
        {"role": "tool", "content": "Error: no", "tool_call_id": "toolu_1"},
        {"role": "user", "content": "And now?\nWell?"},
    ]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages.0.content.0.type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "1"}]}]},
            "messages.0.content.0.tool_use_id",
        ),
        ({"messages": [*HI, {"role": "assistant", "content": "Well"}]}, "messages.1.role"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "x"}]}, *HI]},
            "messages.0.content.0.type",
        ),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_place(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        ask_of(request(**changes), "", 60.0)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_numbers_of_any_size_come_and_go() -> None:
    called = f'<tool_call>\n{{"name": "weather", "arguments": {{"n": {2**70}}}}}\n</tool_call>'
    _, message = told(Piece(0, called), ended())
    assert json.loads(json_bytes(message))["content"][0]["input"] == {"n": 2**70}
    answered = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}
    turns = [
        *HI,
        {"role": "assistant", "content": [message["content"][0] | {"id": "toolu_1"}]},
        {"role": "user", "content": [answered]},
    ]
    [_, said, _] = messages_of(CountRequest.model_validate({"model": "m", "messages": turns}))
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"n": 2**70}
