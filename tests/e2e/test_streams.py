"""Durable streams, against the running product."""

from __future__ import annotations

import json
import random
import socket
from uuid import UUID

import asyncpg
import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import events as contract
from tests.support.person import Event, Person
from tests.support.product import Product
from tests.support.streams import arrivals, parsed

LONG_QUESTION = "Write a long story about a ship and its crew."


@pytest.fixture(scope="module")
def answered(admin: Person) -> tuple[Person, str, str, list[Event]]:
    """A finished answer: who asked, where, the cursor before it, and all its events."""
    person = admin.invite()
    conversation = person.converse()
    posted = person.ask(conversation, "Name three colours and say where they are seen.")
    return person, conversation, posted["cursor"], person.follow(conversation, posted["cursor"])


def test_tokens_are_streamed_and_their_sum_is_the_stored_message(
    answered: tuple[Person, str, str, list[Event]],
) -> None:
    person, _, cursor, events = answered
    done = events[-1].payload
    stored = person.message(done["root_id"], done["message_id"])
    assert sum(event.type == "message.delta" for event in events) > 3
    assert "".join(event.text for event in events) == stored["content"]
    assert stored["finish_reason"] == done["finish_reason"] == "stop"
    assert done["usage"]["completion_tokens"] > 0
    assert [int(event.id) for event in events] == list(range(int(cursor) + 1, int(events[-1].id) + 1))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_reader_cut_anywhere_resumes_with_exactly_the_rest(
    answered: tuple[Person, str, str, list[Event]], data: st.DataObject
) -> None:
    person, conversation, cursor, events = answered
    seen: list[Event] = []
    while not seen or seen[-1].type != "message.done":
        patience = data.draw(st.integers(min_value=1, max_value=len(events)), label="events before the cut")
        with person.stream(conversation, seen[-1].id if seen else cursor) as stream:
            for _, event in zip(range(patience), stream, strict=False):
                seen.append(event)
                if event.type == "message.done":
                    break
    assert seen == events


def test_reader_cut_at_random_while_the_answer_is_written_misses_nothing(person: Person) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, LONG_QUESTION)
    chance = random.Random(7)
    seen: list[Event] = []
    while not seen or seen[-1].type != "message.done":
        with person.stream(conversation, seen[-1].id if seen else posted["cursor"]) as stream:
            for event in stream:
                seen.append(event)
                if event.type == "message.done" or chance.random() < 0.05:
                    break
    assert seen == person.follow(conversation, posted["cursor"])


async def tokens_in_log(postgres: str, message: str) -> int:
    """How many tokens the log holds of an answer."""
    connection = await asyncpg.connect(postgres)
    query = "select sum(cardinality(token_ids)) from rustygpt.events where message_id = $1"
    count = await connection.fetchval(query, UUID(message))
    await connection.close()
    return count


async def test_answer_survives_kill_of_the_model_replica(product: Product, person: Person, postgres: str) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, LONG_QUESTION)
    events: list[Event] = []
    with person.stream(conversation, posted["cursor"]) as stream:
        for event in stream:
            events.append(event)
            if sum(e.type == "message.delta" for e in events) == 5:
                product.replica("Model").kill()
            if event.type == "message.done":
                break
    stored = person.message(posted["root_id"], posted["assistant_message_id"])
    assert "".join(event.text for event in events) == stored["content"]
    assert [e.type for e in events].count("message.done") == 1
    assert [int(e.id) for e in events] == list(range(int(posted["cursor"]) + 1, int(events[-1].id) + 1))
    # The second replica went on from the tokens of the first: it counts them, and did not begin anew.
    assert await tokens_in_log(postgres, stored["id"]) == stored["usage"]["completion_tokens"]
    numbers = [int(e.payload["id"].split(":")[1]) for e in events if e.type == "message.delta"]
    assert numbers == list(range(len(numbers)))


def test_two_people_see_the_same_events_in_the_same_order(admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(ben)
    first = ann.ask(conversation, "Say hello to both of us.")
    ben.ask(conversation, "And say goodbye.")
    seen_by_ben = ben.follow(conversation, first["cursor"])
    seen_by_ann = ann.follow(conversation, first["cursor"])
    both = min(len(seen_by_ann), len(seen_by_ben))
    assert both > 6
    assert seen_by_ann[:both] == seen_by_ben[:both]


def test_cursor_beyond_the_log_gets_one_reset(person: Person) -> None:
    conversation = person.converse()
    with person.stream(conversation, "999999") as stream:
        assert [event.type for event in stream] == ["stream.reset"]


def test_malformed_cursor_is_refused(person: Person) -> None:
    conversation = person.converse()
    answer = person.http.get(f"/api/stream/conversations/{conversation}", headers={"Last-Event-ID": "x:y:z"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "RGP.VALIDATION"


def test_reader_without_a_cursor_is_told_where_it_stands(person: Person) -> None:
    conversation = person.converse()
    with person.http.stream("GET", f"/api/stream/conversations/{conversation}") as answer:
        text = next(answer.iter_text())
        while "id: " not in text:
            text += next(answer.iter_text())
    assert "id: 1\n\n" in text


def test_removed_participant_loses_the_stream(admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(ben)
    with ben.stream(conversation, "0") as stream:
        events = [next(stream)]
        ann.call("DELETE", f"/api/conversations/{conversation}/participants/{ben.id}", status=204)
        events += list(stream)
    assert events[-1].payload["action"] in ("added", "removed")
    ben.call("GET", f"/api/conversations/{conversation}", status=403)
    assert ben.http.get(f"/api/stream/conversations/{conversation}").status_code == 403


def test_cancelled_answer_ends_with_what_was_shown(person: Person) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, LONG_QUESTION)
    answer = posted["assistant_message_id"]
    events: list[Event] = []
    with person.stream(conversation, posted["cursor"]) as stream:
        for event in stream:
            events.append(event)
            if sum(e.type == "message.delta" for e in events) == 2:
                person.call("POST", f"/api/messages/{answer}/cancel", {}, 202)
            if event.type == "message.done":
                break
    assert events[-1].payload["finish_reason"] == "cancelled"
    stored = person.message(posted["root_id"], answer)
    assert stored["content"] == "".join(event.text for event in events) != ""
    assert person.call("POST", f"/api/messages/{answer}/cancel", {}, 202)["status"] == "cancelled"


def test_inbox_hears_of_a_new_conversation(admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    with ben.stream("me", "0") as stream:
        conversation = ann.converse(ben)
        event = next(stream)
    assert (event.type, event.payload["conversation_id"]) == ("membership.changed", conversation)


def test_schema_is_published_and_every_event_of_an_answer_is_of_it(
    product: Product, answered: tuple[Person, str, str, list[Event]]
) -> None:
    schema = httpx.get(f"{product.url}/api/stream/schema").raise_for_status().json()
    assert schema == json.loads(json.dumps(contract.json_schema()))
    validator = jsonschema.Draft202012Validator(schema)
    for event in answered[3]:
        validator.validate({"type": event.type, "payload": event.payload})
    assert not validator.is_valid({"type": "message.done", "payload": answered[3][-1].payload | {"more": 1}})


async def test_reader_of_one_byte_at_a_time_costs_little_memory_and_loses_nothing(
    product: Product, person: Person, postgres: str
) -> None:
    conversation = person.converse()
    database = await asyncpg.connect(postgres)
    path = [product.actor("ServeReplica:streamer"), product.actor("haproxy.cfg")]
    slow = socket.create_connection(("127.0.0.1", product.port), timeout=60)
    slow.sendall(
        f"GET /api/stream/conversations/{conversation}?after=1 HTTP/1.1\r\nHost: here\r\n"
        f"Cookie: SESSION_ID={person.http.cookies['SESSION_ID']}\r\n\r\n".encode()
    )
    read = slow.recv(1)
    before = sum(process.memory_info().rss for process in path)
    append = "select rustygpt.append_event($1, 'error', $2)"
    with person.stream(conversation, "1") as stream:
        for number in range(400):
            payload = {"code": "assistant_timeout", "message": f"{number} {'x' * 200_000}", "message_id": person.id}
            await database.execute(append, UUID(conversation), json.dumps(payload))
            assert next(stream).payload == payload
            read += slow.recv(1)
    await database.close()
    # 80 MB went by. Of them the ring holds 8 MiB, and the reader two writes.
    assert sum(process.memory_info().rss for process in path) - before < 40 << 20
    assert read.startswith(b"HTTP/1.1 200 ")
    slow.setblocking(False)
    seen: list[Event] = []
    async for event in parsed(arrivals(slow, read)):
        seen.append(event)
        if event.id == "401":
            break
    slow.close()
    assert [event.id for event in seen] == [str(number) for number in range(2, 402)]
    assert all(event.payload["message"].startswith(f"{number} ") for number, event in enumerate(seen))


def test_streams_are_counted(product: Product, answered: tuple[Person, str, str, list[Event]]) -> None:
    person, conversation, cursor, _ = answered
    person.follow(conversation, cursor)

    def counted() -> None:
        text = httpx.get(f"{product.url}/metrics").raise_for_status().text
        for sample in (
            'sse_events_sent_total{type="message.delta"}',
            'rustygpt_sse_replay_events_total{type="message.delta"}',
            'rustygpt_sse_replay_duration_ms_bucket{le="1000.0"}',
            "sse_queue_depth",
            "sse_queue_occupancy_ratio",
        ):
            assert f"\n{sample} " in text

    person.patiently(counted)
