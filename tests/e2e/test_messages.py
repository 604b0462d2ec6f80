"""What may be done with messages, over HTTP, with a real model."""

from __future__ import annotations

import uuid

from tests.support.browser import Visit, answer, expect_done, finish, send, text_of
from tests.support.person import Person


def test_model_gives_the_thread_a_title_that_every_reader_is_told(person: Person) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, "Name three colours.")
    told = person.follow(conversation, posted["cursor"], "message.updated")[-1].payload["message"]
    assert told["id"] == posted["root_id"]
    assert 0 < len(told["title"]) <= 60
    [thread] = person.call("GET", f"/api/conversations/{conversation}/threads")["threads"]
    assert thread["title"] == told["title"]


def test_another_answer_is_written_beside_the_first(person: Person) -> None:
    conversation = person.converse()
    first = finish(person, conversation)
    again = person.call("POST", f"/api/messages/{first['assistant_message_id']}/regenerate", status=201)
    person.follow(conversation, again["cursor"])
    messages = person.call("GET", f"/api/threads/{first['root_id']}/tree")["messages"]
    assert [message["path"][1:] for message in messages] == [[], [1], [2]]
    assert messages[2]["id"] == again["assistant_message_id"]
    assert messages[2]["finish_reason"] in ("stop", "length")


def test_post_sent_twice_with_one_key_is_one_message(person: Person) -> None:
    conversation = person.converse()
    path, body = f"/api/threads/{conversation}/root", {"content": "Say hello."}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answers = [person.http.post(path, json=body, headers=headers) for _ in range(2)]
    assert [each.status_code for each in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(person.call("GET", f"/api/conversations/{conversation}/threads")["threads"]) == 1
    other = person.http.post(path, json={"content": "Say goodbye."}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "RGP.IDEMPOTENCY.MISMATCH")
    refused = person.http.post(path, json=body, headers={"Idempotency-Key": ""})
    assert (refused.status_code, refused.json()["code"]) == (400, "RGP.VALIDATION")


def test_page_shows_edits_deletions_and_titles_of_others(visit: Visit, person: Person) -> None:
    conversation = person.converse()
    first = finish(person, conversation)
    page = visit(person, conversation)
    question = page.locator(f"[data-message-id='{first['message_id']}']")
    person.call("POST", f"/api/messages/{first['message_id']}/edit", {"content": "Say hello twice."})
    question.get_by_text("Say hello twice.").wait_for()
    question.get_by_text("Edited").wait_for()
    person.call("PATCH", f"/api/threads/{first['root_id']}", {"title": "A greeting"})
    page.get_by_role("heading", name="A greeting").wait_for()
    person.call("POST", f"/api/messages/{first['message_id']}/delete", status=204)
    question.get_by_text("Deleted").wait_for()
    assert text_of(question) == ""
    send(page, "And goodbye?")
    expect_done(answer(page))
