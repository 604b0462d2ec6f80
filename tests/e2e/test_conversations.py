"""Conversations, invitations, search and files over HTTP: statuses, problems, CSRF and keys."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.test_bad_input import check_problem
from tests.support.person import Person
from tests.support.product import Product


def test_conversation_lives_and_ends(person: Person) -> None:
    made = person.call("POST", "/api/conversations", {"title": "Plans", "reply_mode": "never"}, 201)
    path = f"/api/conversations/{made['conversation_id']}"
    changed = person.call("PATCH", path, {"title": "Holidays", "system_prompt": "Be brief.", "archived": True})
    assert (changed["title"], changed["reply_mode"]) == ("Holidays", "never")
    assert person.call("GET", "/api/conversations")["conversations"] == []
    [listed] = person.call("GET", "/api/conversations?archived=true&query=holi")["conversations"]
    detail = person.call("GET", path)
    assert {name: detail[name] for name in listed} == listed
    assert [item["role"] for item in detail["participants"]] == ["owner"]
    person.call("DELETE", path, status=204)
    check_problem(person.http.get(path), 403)
    assert person.call("GET", "/api/conversations?archived=all")["conversations"] == []


def test_deleting_ends_the_stream_of_those_who_read(admin: Person, person: Person) -> None:
    conversation = person.converse(admin)
    with admin.stream(conversation, "0") as events:
        assert next(events).type == "membership.changed"
        person.call("DELETE", f"/api/conversations/{conversation}", status=204)
        seen = [event.type for event in events]  # ends: nobody may read it any more
    assert "conversation.updated" in seen
    check_problem(admin.http.get(f"/api/stream/conversations/{conversation}"), 403)


def test_unknown_model_is_400_and_names_those_there_are(person: Person) -> None:
    conversation = person.converse()
    for method, path, body in (
        ("POST", "/api/conversations", {"title": "a", "model": "gpt-5"}),
        ("PATCH", f"/api/conversations/{conversation}", {"model": "gpt-5"}),
    ):
        answer = person.http.request(method, path, json=body)
        assert check_problem(answer, 400) == "RGP.LLM.CONFIG"
        assert "default" in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": None},
        {"title": " "},
        {"archived": None},
        {"reply_mode": "sometimes"},
        {"temperature": 2.1},
        {"system_prompt": ""},
        {"deleted_at": "2024-01-01T00:00:00Z"},
    ],
)
def test_impossible_change_is_422(admin: Person, body: dict[str, object]) -> None:
    check_problem(admin.http.patch(f"/api/conversations/{admin.converse()}", json=body), 422)


def test_pages_and_filters_of_another_kind_are_refused(admin: Person) -> None:
    for query, status in (
        ("before=x", 400),
        ("limit=0", 422),
        ("limit=201", 422),
        ("archived=maybe", 422),
        ("query=%00", 422),
    ):
        check_problem(admin.http.get(f"/api/conversations?{query}"), status)


def test_every_change_needs_the_csrf_token(person: Person) -> None:
    conversation = person.converse()
    place = f"/api/conversations/{conversation}"
    token = person.http.headers.pop("X-CSRF-TOKEN")
    for method, path, body in (
        ("POST", "/api/conversations", {"title": "a"}),
        ("PATCH", place, {"title": "a"}),
        ("DELETE", place, None),
        ("POST", f"{place}/participants", {"user_id": person.id}),
        ("PATCH", f"{place}/participants/{person.id}", {"role": "member"}),
        ("DELETE", f"{place}/participants/{person.id}", None),
        ("POST", f"{place}/invites", {"email": "a@example.org"}),
        ("DELETE", f"{place}/invites/{uuid4()}", None),
        ("POST", "/api/invites/accept", {"token": "a"}),
        ("POST", "/api/invites/a/revoke", None),
        ("POST", "/api/conversations/import", {}),
    ):
        assert check_problem(person.http.request(method, path, json=body), 403) == "RGP.AUTH.CSRF", path
    person.http.headers["X-CSRF-TOKEN"] = token
    assert person.call("GET", place)["title"] == "Tests"


def test_request_sent_again_with_its_key_has_no_second_effect(person: Person) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    answers = [person.http.post("/api/conversations", json={"title": "Once"}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(person.call("GET", "/api/conversations?query=once")["conversations"]) == 1
    other = person.http.post("/api/conversations", json={"title": "Twice"}, headers=key)
    assert check_problem(other, 422) == "RGP.IDEMPOTENCY.MISMATCH"


def test_invited_person_joins_and_leaves(admin: Person, person: Person) -> None:
    place = f"/api/conversations/{admin.converse()}"
    email = f"{person.name}@example.org"
    made = admin.call("POST", f"{place}/invites", {"email": email, "role": "viewer"}, 201)
    check_problem(admin.http.post(f"{place}/invites", json={"email": email}), 409)
    check_problem(person.http.get(place), 403)
    accepted = person.call("POST", "/api/invites/accept", {"token": made["token"]})
    assert place.endswith(accepted["conversation_id"])
    check_problem(person.http.post("/api/invites/accept", json={"token": made["token"]}), 409)
    assert admin.call("PATCH", f"{place}/participants/{person.id}", {"role": "member"})["role"] == "member"
    person.call("DELETE", f"{place}/participants/{person.id}", status=204)
    check_problem(person.http.get(f"{place}/participants"), 403)
    check_problem(admin.http.delete(f"{place}/participants/{admin.id}"), 409)


def test_message_is_found_exported_and_imported(person: Person) -> None:
    conversation = person.converse(title="Animals")
    posted = person.ask(conversation, "Is a wombat a marsupial?")
    person.follow(conversation, posted["cursor"])
    results = person.call("GET", "/api/search?query=womb")["results"]
    snippets = {result["message_id"]: result["snippet"] for result in results}  # the answer may speak of it, too
    assert "\ue000wombat\ue001" in snippets[posted["message_id"]]
    check_problem(person.http.get("/api/search?query="), 400)
    for name, media_type in (("json", "application/json"), ("markdown", "text/markdown")):
        file = person.http.get(f"/api/conversations/{conversation}/export?format={name}")
        assert file.headers["content-type"].startswith(media_type)
        headers = {"Content-Type": media_type}
        answer = person.http.post("/api/conversations/import", content=file.content, headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["message_count"] == 2
    assert len(person.call("GET", "/api/search?query=wombat")["results"]) >= 3
    check_problem(person.http.get(f"/api/conversations/{conversation}/export?format=pdf"), 422)
    check_problem(person.http.post("/api/conversations/import", content=b"a", headers={"Content-Type": "a/b"}), 415)


def test_file_beyond_a_megabyte_can_be_imported(person: Person) -> None:
    head = '{"format":"rustygpt.conversation","version":1,"conversation":{"title":"Long"},"messages":['
    message = (
        '{"id":"%d","parent_id":null,"role":"user","author":"ann","created_at":"2024-01-01T00:00:00Z","content":"%s"}'
    )
    body = head + ",".join(message % (number, "word " * 15_000) for number in range(30)) + "]}"
    assert len(body) > 2_000_000
    headers = {"Content-Type": "application/json"}
    answer = person.http.post("/api/conversations/import", content=body.encode(), headers=headers)
    assert answer.status_code == 201, answer.text


@pytest.mark.usefixtures("curl_program")
def test_walk_through_the_api_page_works(product: Product, person: Person) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    [walk] = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    result = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", walk],
        env=os.environ | {"URL": product.url, "NAME": person.name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\ue000tomatoes\ue001 are ripe" in result.stdout
    assert '"message_count":1' in result.stdout
    assert "id: 3\nevent: response.output_item.added\n" in result.stdout
    assert "id: 2\nevent: response." not in result.stdout
    assert person.call("GET", "/api/conversations?archived=all")["conversations"] == []
