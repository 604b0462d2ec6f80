"""Stored chat completions of the running product: whatever is killed, each event comes once, from any replica."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletion

from tests.support.person import Person
from tests.support.product import Product

PATH = "/v1/chat/completions"
_numbers = itertools.count(1)

Stored = tuple[str, str]
"""An event: its id and its data."""


def asked(**fields: Any) -> dict[str, Any]:
    """A request for an answer that is stored."""
    message = {"role": "user", "content": f"Tell the story of ship number {next(_numbers)}."}
    return {"model": "default", "messages": [message], "store": True, "max_tokens": 12, "temperature": 0} | fields


def long(**fields: Any) -> dict[str, Any]:
    """One of exactly 200 tokens, as a stream."""
    return asked(stream=True, max_tokens=200, ignore_eos=True) | fields


@contextmanager
def events(
    person: Person, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Iterator[Iterator[Stored]]:
    """The events of one connection. Raises HTTPStatusError where the service answers 5xx."""
    with person.http.stream(method, path, json=body, headers=headers) as answer:
        if answer.status_code >= 500:
            answer.read()
            answer.raise_for_status()
        assert answer.status_code == 200, answer.read()
        yield parsed(answer)


def parsed(answer: httpx.Response) -> Iterator[Stored]:
    """The events in what arrives; not the comments."""
    event_id, data = "", ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "data":
            data = value
        elif not line and data:
            yield event_id, data
            event_id, data = "", ""


def resumed(person: Person, completion_id: str, had: list[Stored]) -> list[Stored]:
    """All events after those that were had, over as many connections as it takes."""
    found = list(had)
    while not found or found[-1][1] != "[DONE]":
        query = f"?stream=true&starting_after={found[-1][0]}" if found else "?stream=true"
        try:
            with events(person, "GET", f"{PATH}/{completion_id}{query}") as stream:
                found.extend(stream)
        except (httpx.TransportError, httpx.HTTPStatusError):
            continue  # while a replica starts again the proxy answers 5xx
    return found[len(had) :]


def replay(person: Person, completion_id: str) -> list[Stored]:
    """Every event, over one connection."""
    return person.patiently(lambda: resumed(person, completion_id, []))


def id_of(event: Stored) -> str:
    """The id of the completion."""
    return json.loads(event[1])["id"]


def text_of(found: list[Stored]) -> str:
    """The text of all chunks."""
    chunks = [json.loads(data) for _, data in found if data != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.fixture(scope="module")
def owner(admin: Person) -> Person:
    """Somebody who has answers stored."""
    return admin.invite()


@pytest.fixture(scope="module")
def client(owner: Person) -> Iterator[OpenAI]:
    """OpenAI's own client, with a key of theirs."""
    key = owner.call("POST", "/api/keys", {"name": "stored"}, 201)["key"]
    with OpenAI(base_url=f"{owner.http.base_url}/v1", api_key=key, max_retries=0, timeout=60) as client:
        yield client


KILLS: dict[str, Callable[[Product], None]] = {
    "Model": lambda product: product.replica("Model").kill(),
    "Gateway": lambda product: product.replica("Gateway").kill(),
}


@pytest.mark.parametrize("victim", KILLS)
def test_stream_is_gone_on_with_after_its_replica_was_killed(product: Product, owner: Person, victim: str) -> None:
    had: list[Stored] = []
    with events(owner, "POST", PATH, long(stream_options={"include_usage": True})) as stream:
        had += itertools.islice(stream, 5)
        KILLS[victim](product)
    completion_id = id_of(had[0])
    found = had + resumed(owner, completion_id, had)
    assert len(found) > 2 * len(had), "it was in the middle"
    assert [event_id for event_id, _ in found] == [str(number) for number in range(len(found) - 1)] + [""]
    assert found == replay(owner, completion_id)
    usage = json.loads(found[-2][1])["usage"]
    assert usage["completion_tokens"] == 200
    whole = owner.patiently(lambda: owner.call("GET", f"{PATH}/{completion_id}"))
    assert whole["choices"][0]["message"]["content"] == text_of(found)
    assert whole["choices"][0]["finish_reason"] == "length"


def test_answer_is_written_to_its_end_though_its_client_leaves(owner: Person) -> None:
    with events(owner, "POST", PATH, long()) as stream:
        first = next(stream)
    assert owner.call("GET", f"{PATH}/{id_of(first)}")["usage"]["completion_tokens"] == 200


def test_same_request_again_gets_the_same_answer_from_where_its_reader_was(owner: Person) -> None:
    body, key = long(), {"Idempotency-Key": f"stored {next(_numbers)}"}
    with events(owner, "POST", PATH, body, key) as stream:
        had = list(itertools.islice(stream, 4))
    with events(owner, "POST", PATH, body, key | {"Last-Event-ID": had[-1][0]}) as stream:
        rest = list(stream)
    assert had + rest == replay(owner, id_of(had[0]))
    refused = owner.http.post(PATH, json=long(), headers=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "mismatch")


def test_last_event_id_is_a_number(owner: Person) -> None:
    with events(owner, "POST", PATH, long()) as stream:
        completion_id = id_of(next(stream))
    for path, headers in (
        (f"{PATH}/{completion_id}?stream=true", {"Last-Event-ID": "chunk 7"}),
        (f"{PATH}/{completion_id}?stream=true&starting_after=-1", {}),
        (f"{PATH}/{completion_id}?starting_after=3", {}),
    ):
        answer = owner.http.get(path, headers=headers)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
    # What is beyond the last one is nothing.
    with events(owner, "GET", f"{PATH}/{completion_id}?stream=true&starting_after=100000") as stream:
        assert list(stream) == [("", "[DONE]")]


def test_openais_client_finds_changes_and_deletes_what_it_stored(client: OpenAI) -> None:
    made = [
        client.chat.completions.create(**asked(metadata={"n": str(number), "odd": str(number % 2)}))
        for number in range(3)
    ]
    for completion in made:
        found = client.chat.completions.retrieve(completion.id)
        ChatCompletion.model_validate_json(found.to_json())
        assert found == completion
    listed = list(client.chat.completions.list(metadata={"odd": "0"}, limit=1))
    assert [completion.id for completion in listed] == [made[0].id, made[2].id]
    newest = client.chat.completions.list(order="desc", limit=2)
    assert [completion.id for completion in newest.data] == [made[2].id, made[1].id]
    changed = client.chat.completions.update(made[1].id, metadata={"odd": "yes"})
    assert changed.to_dict()["metadata"] == {"odd": "yes"}
    [message] = client.chat.completions.messages.list(made[1].id)
    assert (message.role, (message.content or "")[:14]) == ("user", "Tell the story")
    assert client.chat.completions.delete(made[1].id).deleted
    for call in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(NotFoundError):
            call(made[1].id)


def test_answer_of_somebody_else_is_not_there(owner: Person, person: Person) -> None:
    completion_id = owner.call("POST", PATH, asked())["id"]
    for method, path, body in (
        ("GET", f"{PATH}/{completion_id}", None),
        ("GET", f"{PATH}/{completion_id}?stream=true", None),
        ("GET", f"{PATH}/{completion_id}/messages", None),
        ("POST", f"{PATH}/{completion_id}", {"metadata": {}}),
        ("POST", f"{PATH}/{completion_id}/cancel", None),
        ("DELETE", f"{PATH}/{completion_id}", None),
    ):
        error = person.call(method, path, body, 404)["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
    assert person.call("GET", PATH)["data"] == []
    owner.call("GET", f"{PATH}/{completion_id}")


def test_cancelled_answer_ends_where_it_is(owner: Person) -> None:
    with events(owner, "POST", PATH, long(max_tokens=2000)) as stream:
        had = [next(stream)]
        cancelled = owner.call("POST", f"{PATH}/{id_of(had[0])}/cancel")
        had += stream
    assert cancelled["finish_reason"] == "cancelled"
    assert json.loads(had[-1][1])["error"]["code"] == "cancelled"
    assert had == replay_of_failed(owner, id_of(had[0]))


def replay_of_failed(person: Person, completion_id: str) -> list[Stored]:
    """Every event of an answer that did not come to its end."""
    with events(person, "GET", f"{PATH}/{completion_id}?stream=true") as stream:
        return list(stream)


def test_deleted_answer_is_written_no_further(owner: Person) -> None:
    with events(owner, "POST", PATH, long(max_tokens=2000)) as stream:
        first = next(stream)
        owner.call("DELETE", f"{PATH}/{id_of(first)}")
        *_, last = stream
    assert (last[0], json.loads(last[1])["error"]["code"]) == ("", "not_found")
    owner.call("GET", f"{PATH}/{id_of(first)}", status=404)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "order=up", "model=a%00b", "after=chatcmpl-7", "after=%00", "metadata[a]=b%00", "limit=x"],
)
def test_pages_that_cannot_be_are_refused(owner: Person, query: str) -> None:
    answer = owner.http.get(f"{PATH}?{query}")
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"n": 2}, 400, "n"),
        ({"model": "another"}, 404, "model"),
        ({"metadata": {"a": 1}}, 400, "metadata.a"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}}},
            400,
            None,
        ),
        ({"messages": [{"role": "user", "content": "word " * 20_000}]}, 400, None),
        ({"metadata": {"rustygpt": {"conversation_id": "7"}}}, 400, "metadata.rustygpt.conversation_id"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_is_stored(
    person: Person, fields: dict[str, Any], status: int, param: str | None
) -> None:
    error = person.call("POST", PATH, asked(**fields), status)["error"]
    assert error["type"] == "invalid_request_error"
    assert param is None or error["param"] == param
    assert person.call("GET", PATH)["data"] == []


def test_log_probabilities_are_kept_with_the_answer(owner: Person) -> None:
    made = owner.call("POST", PATH, asked(logprobs=True, top_logprobs=2))
    content = made["choices"][0]["logprobs"]["content"]
    assert len(content) == made["usage"]["completion_tokens"]
    assert all(len(token["top_logprobs"]) == 2 for token in content)
    assert owner.call("GET", f"{PATH}/{made['id']}") == made


def test_calls_are_kept_with_the_answer(owner: Person) -> None:
    city = {"type": "object", "properties": {"city": {"enum": ["Bonn", "Rome"]}}, "required": ["city"]}
    weather = {"type": "function", "function": {"name": "weather", "parameters": city, "strict": True}}
    wanted = asked(tools=[weather], tool_choice="required", parallel_tool_calls=False, max_tokens=60)
    made = owner.call("POST", PATH, wanted)
    [call] = made["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["city"] in ("Bonn", "Rome")
    assert made["choices"][0]["finish_reason"] == "tool_calls"
    assert owner.call("GET", f"{PATH}/{made['id']}") == made
    chunks = [json.loads(data) for _, data in replay(owner, made["id"])[:-1]]
    calls = [
        call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls") or ()
    ]
    assert calls[0]["id"] == call["id"]
    assert "".join(part["function"]["arguments"] for part in calls) == call["function"]["arguments"]


def test_chat_in_a_thread_is_seen_by_all_and_answered_from_the_thread(owner: Person, person: Person) -> None:
    conversation = owner.converse(person)
    posted = owner.ask(conversation, "My cat is called Mimi. Remember that.")
    seen = person.follow(conversation, posted["cursor"])
    place = {"conversation_id": conversation, "parent_message_id": posted["assistant_message_id"]}
    body = long(max_tokens=40, metadata={"rustygpt": place})
    body["messages"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it called?"}]
    with events(owner, "POST", PATH, body) as stream:
        found = list(stream)
    tree = person.call("GET", f"/api/threads/{posted['root_id']}/tree")["messages"]
    assert [said["role"] for said in tree] == ["user", "assistant", "user", "assistant"]
    question, answer = tree[2:]
    assert (question["content"], question["author_id"]) == ("What is it called?", owner.id)
    assert (question["parent_id"], answer["parent_id"]) == (posted["assistant_message_id"], question["id"])
    assert answer["content"] == text_of(found)
    assert answer["usage"]["completion_tokens"] == 40
    # The thread's prompt is longer than the one question that was sent.
    assert answer["usage"]["prompt_tokens"] > 40
    told = person.follow(conversation, seen[-1].id)
    assert "".join(event.text for event in told if event.payload.get("message_id") == answer["id"]) == text_of(found)
    assert found == replay(owner, id_of(found[0]))
    warnings = json.loads(found[0][1])["warnings"]
    assert any("thread" in warning for warning in warnings)
    person.call("GET", f"{PATH}/{id_of(found[0])}", status=404)


def test_chat_in_a_thread_of_others_is_refused(owner: Person, person: Person) -> None:
    conversation = owner.converse()
    posted = owner.ask(conversation, "Hello.")
    place = {"conversation_id": conversation, "parent_message_id": posted["message_id"]}
    error = person.call("POST", PATH, asked(metadata={"rustygpt": place}), 403)["error"]
    assert error["type"] == "permission_error"
    elsewhere = {"conversation_id": owner.converse(), "parent_message_id": posted["message_id"]}
    owner.call("POST", PATH, asked(metadata={"rustygpt": elsewhere}), 404)
    weather = {"type": "function", "function": {"name": "weather"}}
    owner.call("POST", PATH, asked(metadata={"rustygpt": place}, tools=[weather]), 400)
