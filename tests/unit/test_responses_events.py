"""Items become the events of a response's stream: every event is one of the `openai` package's types."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent

from deployments.config import Model
from deployments.gateway.v1.responses.events import Event, ResponseFold
from deployments.gateway.v1.responses.prompt import ask_of, echo_of, warnings_of
from deployments.gateway.v1.responses.schemas import ResponseRequest
from deployments.gateway.v1.responses.shape import Shape
from deployments.generation import Ended, EndReason, Item, Logprob, Piece, Refused, Started

TYPES = {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])}
RESPONSE_ID = "resp_" + "0" * 31 + "7"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'


def folded(
    batches: Iterable[Sequence[Item]], tools: Sequence[dict[str, Any]] = (), **fields: Any
) -> tuple[ResponseFold, list[Event]]:
    """All events of a response to a request with these fields; each is checked against its type."""
    request = {"model": "default", "input": "Hello", "tools": list(tools)} | fields
    body = ResponseRequest.model_validate(request)
    shape = Shape(RESPONSE_ID, 1_790_000_000, "default", echo_of(body, Model(), True, warnings_of(body)))
    fold = ResponseFold(shape, ask_of(body, [], "", 600))
    events = fold.begin()
    for batch in batches:
        events += fold.feed(batch)
    for event in events:
        TYPES[event.type].model_validate(event.body)
    return fold, events


def pieces(*texts: str) -> list[Item]:
    return [Piece(0, text, (1,)) for text in texts]


def ended(reason: EndReason = "stop", message: str = "") -> Ended:
    return Ended(0, reason, 10, 6, 4, message)


def answer(*texts: str, reason: EndReason = "stop") -> list[Item]:
    return [Started(10), *pieces(*texts), ended(reason)]


def types(events: Iterable[Event]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


def test_a_text_is_told_from_its_beginning_to_its_end() -> None:
    fold, events = folded([answer("Good ", "morning.")])
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.number for event in events] == list(range(10))
    assert fold.response["status"] == "completed"
    assert fold.response["output"][0]["content"][0]["text"] == "Good morning."
    assert events[-1].fields["response"] == fold.response


def test_usage_counts_what_was_read_and_written() -> None:
    fold, _ = folded([answer("Good morning.")])
    assert fold.response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 16,
    }


def test_a_call_streams_its_arguments() -> None:
    fold, events = folded([answer(CALL[:30], CALL[30:50], CALL[50:])], [WEATHER])
    (call,) = fold.response["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "weather", "completed")
    assert json.loads(call["arguments"]) == {"city": "Bonn"}
    deltas = [event.fields["delta"] for event in events if event.type.endswith("arguments.delta")]
    assert "".join(deltas) == call["arguments"]
    assert types(events)[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]


def test_calls_and_a_text_before_them_are_items_of_their_own() -> None:
    fold, events = folded([answer("I look.\n", CALL, "\n", CALL)], [WEATHER])
    output = fold.response["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert len({item["id"] for item in output} | {item.get("call_id") for item in output}) == 6
    places = [event.fields["output_index"] for event in events if event.type == "response.output_item.added"]
    assert places == [0, 1, 2]


def test_one_call_is_all_where_no_parallel_ones_are_wanted() -> None:
    fold, _ = folded([answer(CALL, CALL)], [WEATHER], parallel_tool_calls=False)
    assert [item["type"] for item in fold.response["output"]] == ["function_call"]


def test_without_tools_a_call_is_a_text() -> None:
    fold, _ = folded([answer(CALL)])
    assert [item["type"] for item in fold.response["output"]] == ["message"]


def test_reasoning_is_an_item_before_the_message() -> None:
    fold, events = folded([answer("<think>Is it day", "?</think>", "Yes.")])
    reasoning, message = fold.response["output"]
    assert reasoning["content"][0]["text"].strip() == "Is it day?"
    assert message["content"][0]["text"].strip() == "Yes."
    assert "response.reasoning_text.delta" in {event.type for event in events}
    assert 0 < fold.response["usage"]["output_tokens_details"]["reasoning_tokens"] < 6


def test_an_answer_that_is_cut_off_is_incomplete() -> None:
    fold, events = folded([answer("Good ", reason="length")])
    assert types(events)[-1] == "incomplete"
    assert fold.response["status"] == "incomplete"
    assert fold.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert fold.response["output"][0]["status"] == "incomplete"


def test_a_failure_is_told_with_what_there_was() -> None:
    fold, events = folded([[Started(10), *pieces("Good "), ended("error", "The model broke.")]])
    assert types(events)[-2:] == ["error", "failed"]
    assert fold.response["error"] == {"code": "server_error", "message": "The model broke."}
    assert fold.response["output"][0]["content"][0]["text"] == "Good "


def test_a_refusal_of_the_model_is_a_failure_with_its_code() -> None:
    fold, _ = folded([[Refused("queue_full", "Too many wait.")]])
    assert fold.response["status"] == "failed"
    assert fold.response["error"] == {"code": "rate_limit_exceeded", "message": "Too many wait."}


def test_a_lost_model_ends_the_stream_with_the_next_numbers() -> None:
    fold, events = folded([[Started(10), *pieces("Good ")]])
    last = fold.fail("server_error", "The model cannot be reached.")
    for event in last:
        TYPES[event.type].model_validate(event.body)
    assert [event.number for event in [*events, *last]] == list(range(len(events) + len(last)))
    assert fold.response["status"] == "failed"
    assert fold.ended


def test_a_cancelled_answer_keeps_what_was_written() -> None:
    fold, events = folded([answer("Good ", reason="cancelled")])
    assert types(events)[-1] == "incomplete"
    assert fold.response["status"] == "cancelled"
    assert fold.response["output"][0]["content"][0]["text"] == "Good "


def test_an_answer_in_the_background_waits_before_it_is_in_progress() -> None:
    fold, events = folded([], background=True)
    assert types(events) == ["created", "queued"]
    assert fold.response["status"] == "queued"
    assert types(fold.feed([Started(10)])) == ["in_progress"]


def test_one_that_is_cancelled_while_it_waits_was_never_in_progress() -> None:
    fold, events = folded([[ended("cancelled")]], background=True)
    assert types(events) == ["created", "queued", "incomplete"]
    assert (fold.response["status"], fold.response["output"]) == ("cancelled", [])


def test_an_answer_that_says_nothing_is_an_empty_message() -> None:
    fold, _ = folded([answer()])
    assert fold.response["output"][0]["content"][0]["text"] == ""


def test_logprobs_come_with_their_text() -> None:
    token = Logprob("Good", b"Good", -0.5, (("Good", b"Good", -0.5), ("Bad", b"Bad", -1.5)))
    items = [Started(10), Piece(0, "Good", (1,), (token,)), ended()]
    fold, events = folded([items], top_logprobs=2)
    delta = next(event for event in events if event.type == "response.output_text.delta")
    assert [entry["token"] for entry in delta.fields["logprobs"][0]["top_logprobs"]] == ["Good", "Bad"]
    assert fold.response["output"][0]["content"][0]["logprobs"] == delta.fields["logprobs"]


def test_the_request_is_repeated() -> None:
    schema = {"type": "json_schema", "name": "day", "schema": {"type": "object"}, "strict": True}
    fold, _ = folded(
        [answer("{}")],
        [WEATHER],
        instructions="Be brief.",
        metadata={"a": "b"},
        temperature=0.25,
        text={"format": schema},
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
        user="ann",
    )
    shown = fold.response
    assert (shown["instructions"], shown["metadata"], shown["temperature"]) == ("Be brief.", {"a": "b"}, 0.25)
    assert shown["text"]["format"]["schema"] == {"type": "object"}
    assert shown["tool_choice"]["tools"] == [{"type": "function", "name": "weather"}]
    assert shown["tools"][0]["name"] == "weather"
    assert shown["user"] == "ann"


@settings(deadline=None)
@given(
    texts=st.lists(st.sampled_from(["Good ", "\n", CALL, "<think>", "so", "</think>", "<tool", "[", '{"name"', " "])),
    cuts=st.lists(st.integers(0, 12)),
    reason=st.sampled_from(get_args(EndReason)),
    background=st.booleans(),
)
def test_the_events_are_the_same_however_the_items_come(
    texts: list[str], cuts: list[int], reason: EndReason, background: bool
) -> None:
    items = answer(*texts, reason=reason)
    borders = sorted({min(cut, len(items)) for cut in cuts} | {0, len(items)})
    batches = [items[a:b] for a, b in itertools.pairwise(borders)]
    _, in_batches = folded(batches, [WEATHER], background=background)
    fold, at_once = folded([items], [WEATHER], background=background)
    assert [event.body for event in in_batches] == [event.body for event in at_once]
    assert [event.number for event in at_once] == list(range(len(at_once)))
    _check_whole(fold, at_once)
    stored, _ = folded([[Started(0), Piece(0, "".join(texts)), items[-1]]], [WEATHER], background=background)
    assert stored.response == fold.response, "what is kept of it is its text"


def test_whoever_goes_on_after_a_stream_that_broke_off_misses_nothing() -> None:
    fold, told = folded([[Started(10), *pieces("Good ")]])
    [error] = fold.break_off("not_found", "It is gone.")
    TYPES[error.type].model_validate(error.body)
    assert error.number == told[-1].number
    assert fold.feed(pieces("morning."))[0].number == error.number + 1


def _check_whole(fold: ResponseFold, events: Sequence[Event]) -> None:
    """What the events told piece by piece is what the response has at the end."""
    told: dict[str, str] = {}
    for event in events:
        if event.type.endswith(".delta"):
            told[event.fields["item_id"]] = told.get(event.fields["item_id"], "") + event.fields["delta"]
    for item in fold.response["output"]:
        whole = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert told.get(item["id"], "") == whole
    done = [event.fields["item"] for event in events if event.type == "response.output_item.done"]
    assert done == fold.response["output"]
