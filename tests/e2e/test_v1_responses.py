"""The Responses API of the running product, used by OpenAI's own client."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Literal, TypeVar

import httpx
import httpx2
import pytest
from openai import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    Stream,
    omit,
)
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseStreamEvent
from pydantic import BaseModel

from tests.support.person import Person
from tests.support.product import Product

T = TypeVar("T")

LONG: dict[str, Any] = {"input": "Count.", "max_output_tokens": 200, "extra_body": {"ignore_eos": True}}
"""An answer of exactly 200 tokens."""
SHORT: dict[str, Any] = {"input": "Say hello.", "max_output_tokens": 12, "temperature": 0}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Bonn", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
BROKEN = (APIConnectionError, InternalServerError, httpx2.TransportError)
"""What a client sees while a replica starts again."""
ENDED = ("completed", "incomplete", "failed", "cancelled")


def client_of(person: Person) -> OpenAI:
    key = person.call("POST", "/api/keys", {"name": f"responses {uuid.uuid4()}"}, 201)["key"]
    return OpenAI(base_url=f"{person.http.base_url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(admin: Person) -> Iterator[OpenAI]:
    with client_of(admin.invite()) as client:
        yield client


def checked(shown: T) -> T:
    """The client itself takes answers that lack fields: here all must be there, and of their types."""
    assert isinstance(shown, BaseModel)
    type(shown).model_validate_json(shown.to_json())  # pyright: ignore[reportAttributeAccessIssue]
    return shown


def create(client: OpenAI, **fields: Any) -> Response:
    return checked(client.responses.create(model="default", **fields))


def stream(client: OpenAI, **fields: Any) -> Stream[ResponseStreamEvent]:
    return client.responses.create(model="default", stream=True, **fields)


def told(events: Iterable[ResponseStreamEvent]) -> list[dict[str, Any]]:
    return [checked(event).to_dict() for event in events]


def first(events: Iterable[ResponseStreamEvent], count: int) -> list[dict[str, Any]]:
    return told(itertools.islice(events, count))


def until(look: Callable[[], T], holds: Callable[[T], bool], seconds: float = 60) -> T:
    deadline = time.monotonic() + seconds
    while not holds(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def ended(client: OpenAI, response_id: str) -> Response:
    return until(lambda: checked(client.responses.retrieve(response_id)), lambda seen: seen.status in ENDED)


def test_a_response_is_made_and_kept(client: OpenAI) -> None:
    response = create(client, **SHORT, metadata={"purpose": "test"})
    assert response.output_text
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert client.responses.retrieve(response.id) == response
    assert response.metadata == {"purpose": "test"}


def test_events_tell_what_the_response_becomes(client: OpenAI) -> None:
    events = told(stream(client, **SHORT))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events][:2] == ["response.created", "response.in_progress"]
    final = Response.model_validate(events[-1]["response"])
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == final.output_text != ""
    assert client.responses.retrieve(final.id) == final


def test_a_response_that_is_not_stored_is_nowhere(client: OpenAI) -> None:
    events = told(stream(client, **SHORT, store=False))
    whole = create(client, **SHORT, store=False)
    assert Response.model_validate(events[-1]["response"]).output_text == whole.output_text != ""
    with pytest.raises(NotFoundError):
        client.responses.retrieve(whole.id)


def test_an_answer_follows_a_schema(client: OpenAI) -> None:
    class Day(BaseModel):
        weekday: Literal["Monday", "Sunday"]
        is_free: bool

    response = client.responses.parse(model="default", input="Which day is it?", text_format=Day)
    assert isinstance(response.output_parsed, Day)
    checked(client.responses.retrieve(response.id))


def test_a_response_goes_on_from_the_one_before_without_its_instructions(client: OpenAI) -> None:
    one = create(client, **SHORT, instructions="You are a parrot.")
    two = create(client, **SHORT | {"input": "Again."}, previous_response_id=one.id)
    three = create(client, **SHORT | {"input": "Once more."}, previous_response_id=two.id)
    said: Any = [
        {"role": "user", "content": "Say hello."},
        *[item.to_dict() for item in one.output],
        {"role": "user", "content": "Again."},
        *[item.to_dict() for item in two.output],
        {"role": "user", "content": "Once more."},
    ]
    whole = create(client, **SHORT | {"input": said}, store=False)
    assert three.usage is not None
    assert whole.usage is not None
    assert three.usage.input_tokens == whole.usage.input_tokens
    assert three.output_text == whole.output_text


def test_a_function_is_called_and_its_output_read(client: OpenAI) -> None:
    asked: Any = {"input": "Weather in Rome?", "tools": [WEATHER], "max_output_tokens": 64}
    asked["parallel_tool_calls"] = False
    response = create(client, **asked, tool_choice="required")
    call = response.output[0]
    assert isinstance(call, ResponseFunctionToolCall)
    assert json.loads(call.arguments)["city"] in ("Bonn", "Rome")
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}]
    answer = create(client, **SHORT | {"input": output}, previous_response_id=response.id, tools=[WEATHER])
    assert answer.output_text
    items = [item.type for item in client.responses.input_items.list(answer.id)]
    assert items == ["function_call_output"]


def test_a_streamed_call_has_its_arguments_in_pieces(client: OpenAI) -> None:
    asked: Any = {"input": "Weather?", "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    events = told(stream(client, **asked, max_output_tokens=64))
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    (done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert "".join(deltas) == done["arguments"]
    assert json.loads(done["arguments"])["city"] in ("Bonn", "Rome")


def test_log_probabilities_are_told(client: OpenAI) -> None:
    response = create(client, **SHORT, top_logprobs=2, include=["message.output_text.logprobs"])
    content: Any = response.output[0].to_dict()["content"]
    assert "".join(entry["token"] for entry in content[0]["logprobs"]).strip() == response.output_text.strip()
    assert all(len(entry["top_logprobs"]) == 2 for entry in content[0]["logprobs"])
    assert client.responses.retrieve(response.id) == response


def test_a_response_in_the_background_is_resumed_by_another_connection(client: OpenAI) -> None:
    with closing(stream(client, **LONG, background=True)) as events:
        seen = first(events, 8)
    assert [event["type"] for event in seen][:2] == ["response.created", "response.queued"]
    response_id = seen[0]["response"]["id"]
    rest = told(client.responses.retrieve(response_id, stream=True, starting_after=seen[-1]["sequence_number"]))
    assert seen + rest == told(client.responses.retrieve(response_id, stream=True))
    final = Response.model_validate(rest[-1]["response"])
    assert (final.status, final.usage and final.usage.output_tokens) == ("incomplete", 200)
    assert ended(client, response_id) == final


def test_a_response_goes_on_after_its_writer_and_its_gateway_were_killed(client: OpenAI, product: Product) -> None:
    seen: list[dict[str, Any]] = []
    with contextlib.suppress(*BROKEN), closing(stream(client, **LONG, background=True)) as events:
        seen += first(events, 8)
        product.replica("Model").kill()
        product.replica("Gateway").kill()
        seen += told(events)
    response_id = seen[0]["response"]["id"]
    seen += resumed(client, response_id, seen[-1]["sequence_number"])
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen == resumed(client, response_id, None)
    final = Response.model_validate(seen[-1]["response"])
    assert (final.status, final.usage and final.usage.output_tokens) == ("incomplete", 200)


def resumed(client: OpenAI, response_id: str, after: int | None) -> list[dict[str, Any]]:
    """All events after one, over as many connections as it takes."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != "response.incomplete":
        last = found[-1]["sequence_number"] if found else after
        with contextlib.suppress(*BROKEN):
            events = client.responses.retrieve(response_id, stream=True, starting_after=omit if last is None else last)
            found.extend(checked(event).to_dict() for event in events)
    return found


def test_a_response_in_the_background_is_asked_for_until_it_has_ended(client: OpenAI) -> None:
    response = create(client, **LONG, background=True)
    assert response.status in ("queued", "in_progress")
    final = ended(client, response.id)
    assert final.output_text
    assert final.background


def test_a_stored_response_goes_on_when_its_reader_leaves(client: OpenAI) -> None:
    with closing(stream(client, **LONG)) as events:
        response_id = first(events, 5)[0]["response"]["id"]
    final = ended(client, response_id)
    assert final.usage is not None
    assert final.usage.output_tokens == 200


def test_a_response_that_is_not_stored_is_cancelled_when_its_reader_leaves(client: OpenAI, admin: Person) -> None:
    def running() -> int:
        (model,) = admin.call("GET", "/api/admin/models")["models"]
        return model["replica"]["engine"]["running"]

    endless = LONG | {"max_output_tokens": 5000}
    with closing(stream(client, **endless, store=False)) as events:
        first(events, 5)
        assert running() >= 1
    until(running, lambda count: count == 0, seconds=10)


def test_events_have_ids_and_the_last_of_them_resumes(client: OpenAI, product: Product) -> None:
    response = create(client, **SHORT)
    headers = {"Authorization": f"Bearer {client.api_key}", "Last-Event-ID": "3"}
    answer = httpx.get(f"{product.url}/v1/responses/{response.id}?stream=true", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("id: 4\nevent: response.output_text.delta\ndata: {")
    preferred = httpx.get(f"{product.url}/v1/responses/{response.id}?stream=true&starting_after=5", headers=headers)
    assert preferred.text.startswith("id: 6\n")


def test_a_running_response_is_cancelled(client: OpenAI) -> None:
    with closing(stream(client, **LONG | {"max_output_tokens": 2000}, background=True)) as events:
        seen = first(events, 8)
        response = checked(client.responses.cancel(seen[0]["response"]["id"]))
        rest = told(events)
    assert response.status == "cancelled"
    assert response.output_text
    assert (rest[-1]["type"], rest[-1]["response"]["status"]) == ("response.incomplete", "cancelled")
    assert client.responses.retrieve(response.id) == response == client.responses.cancel(response.id)
    with pytest.raises(BadRequestError, match="no answer to go on from"):
        create(client, **SHORT, previous_response_id=response.id)


def test_a_deleted_response_is_gone_and_those_after_it_stay(client: OpenAI) -> None:
    one = create(client, **SHORT)
    two = create(client, **SHORT, previous_response_id=one.id)
    client.responses.delete(one.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(one.id)
    with pytest.raises(BadRequestError) as refused:
        create(client, **SHORT, previous_response_id=one.id)
    assert refused.value.code == "previous_response_not_found"
    assert create(client, **SHORT, previous_response_id=two.id).output_text


def test_nobody_sees_the_responses_of_others(client: OpenAI, person: Person) -> None:
    response = create(client, **SHORT)
    with client_of(person) as other:
        for attempt in (other.responses.retrieve, other.responses.cancel, other.responses.delete):
            with pytest.raises(NotFoundError):
                attempt(response.id)
        with pytest.raises(BadRequestError):
            create(other, **SHORT, previous_response_id=response.id)
    assert client.responses.retrieve(response.id) == response


def test_a_request_that_is_sent_again_makes_no_second_response(client: OpenAI) -> None:
    again = {"Idempotency-Key": str(uuid.uuid4())}
    one = create(client, **SHORT, extra_headers=again)
    assert create(client, **SHORT, extra_headers=again) == one
    events = told(stream(client, **LONG, extra_headers={"Idempotency-Key": "s" + again["Idempotency-Key"]}))
    resumed = {"Idempotency-Key": "s" + again["Idempotency-Key"], "Last-Event-ID": "6"}
    assert told(stream(client, **LONG, extra_headers=resumed)) == events[7:]


def test_input_items_are_listed(client: OpenAI) -> None:
    said: Any = [
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": [{"type": "input_text", "text": "Three."}]},
    ]
    response = create(client, **SHORT | {"input": said}, instructions="Be brief.")
    page = client.responses.input_items.list(response.id, order="asc", limit=2)
    assert [checked(item).to_dict()["content"][0]["text"] for item in page] == ["One.", "Two.", "Three."]  # pyright: ignore


@pytest.mark.parametrize(
    ("fields", "param", "word"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]}, "input", "image"),
        ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
        ({"store": False, "background": True}, "background", "stored"),
        ({"extra_body": {"conversation": "conv_1"}}, "conversation", "previous_response_id"),
        ({"input": "word " * 20_000}, None, "tokens"),
        ({"previous_response_id": "resp_x"}, "previous_response_id", "resp_x"),
        ({"temperature": 3}, "temperature", "2"),
        ({"max_output_tokens": 0}, "max_output_tokens", "1"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "time"}}, "tool_choice", "time"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_place(
    client: OpenAI, fields: dict[str, Any], param: str | None, word: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        create(client, **SHORT | fields)
    assert refused.value.type == "invalid_request_error"
    assert (refused.value.param or "").split(".")[0] == (param or "")
    assert word in refused.value.message


def test_an_unknown_model_is_refused_with_those_there_are(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="default"):
        client.responses.create(model="gpt-4o", input="Hello")


def test_a_place_in_a_stream_must_be_one(client: OpenAI, product: Product) -> None:
    response = create(client, **SHORT)
    for query, headers in (("stream=true&starting_after=x", {}), ("stream=true", {"Last-Event-ID": "x"})):
        with pytest.raises(APIStatusError) as refused:
            client.get(
                f"/responses/{response.id}?{query}",
                cast_to=Response,
                options={"headers": headers},
            )
        assert refused.value.status_code == 400
