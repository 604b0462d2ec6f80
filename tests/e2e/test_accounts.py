"""Signing in, and what every answer carries."""

from __future__ import annotations

import httpx

from tests.support.person import Person
from tests.support.product import Product


def test_session_cookie_is_out_of_reach_of_scripts(product: Product, person: Person) -> None:
    login = {"email": f"{person.name}@example.org", "password": "correct horse battery"}
    answer = httpx.post(f"{product.url}/api/auth/login", json=login)
    session, csrf = sorted(answer.headers.get_list("set-cookie"), key=lambda text: text.startswith("CSRF"))
    assert session.startswith("SESSION_ID=")
    assert "HttpOnly" in session
    assert "HttpOnly" not in csrf
    assert "SameSite=strict" in csrf


def test_me_tells_who_is_signed_in(person: Person) -> None:
    me = person.call("GET", "/api/auth/me")
    assert me["user"]["username"] == person.name
    assert me["user"]["roles"] == ["member"]
    assert me["csrf_token"] == person.http.headers["X-CSRF-TOKEN"]


def test_outsider_gets_403_on_everything(admin: Person) -> None:
    ann, eve = admin.invite(), admin.invite()
    conversation = ann.converse()
    posted = ann.ask(conversation, "Hello?")
    root, answer = posted["root_id"], posted["assistant_message_id"]
    for method, path, body in (
        ("GET", f"/api/conversations/{conversation}", None),
        ("GET", f"/api/conversations/{conversation}/threads", None),
        ("POST", f"/api/conversations/{conversation}/participants", {"user_id": eve.id}),
        ("DELETE", f"/api/conversations/{conversation}/participants/{ann.id}", None),
        ("POST", f"/api/threads/{conversation}/root", {"content": "hi"}),
        ("POST", f"/api/messages/{root}/reply", {"content": "hi"}),
        ("GET", f"/api/threads/{root}/tree", None),
        ("POST", f"/api/messages/{answer}/cancel", None),
        ("GET", f"/api/stream/conversations/{conversation}", None),
        ("GET", f"/api/stream/{ann.id}", None),
    ):
        refused = eve.http.request(method, path, json=body)
        assert refused.status_code == 403, f"{method} {path}: {refused.text}"
    assert eve.call("GET", "/api/conversations")["conversations"] == []


def test_people_are_found_by_name(admin: Person, person: Person) -> None:
    found = admin.call("GET", f"/api/users?query={person.name}")["users"]
    assert person.id in [user["id"] for user in found]


def test_every_route_is_in_the_openapi_document(product: Product) -> None:
    paths = httpx.get(f"{product.url}/openapi.json").json()["paths"]
    assert {"/api/auth/login", "/api/conversations", "/api/messages/{message_id}/reply", "/healthz"} <= set(paths)


def test_answers_carry_security_headers(product: Product) -> None:
    for path in ("/", "/healthz", "/api/nothing", "/static/app.js"):
        headers = httpx.get(product.url + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert len(headers.get_list("x-request-id")) == 1


def test_ready_and_healthy(product: Product) -> None:
    assert httpx.get(f"{product.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{product.url}/readyz").json()["ready"] is True


def test_branches_and_pages_of_a_thread(person: Person) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, "Say one word.")
    person.follow(conversation, posted["cursor"])
    for content in ("Another one.", "Yet another."):
        reply = person.reply(posted["assistant_message_id"], content)
        person.follow(conversation, reply["cursor"])
    root = posted["root_id"]
    whole = person.call("GET", f"/api/threads/{root}/tree")["messages"]
    assert [m["path"] for m in whole] == [[1], [1, 1], [1, 1, 1], [1, 1, 1, 1], [1, 1, 2], [1, 1, 2, 1]]
    pages, after = [], ""
    while after is not None:
        page = person.call("GET", f"/api/threads/{root}/tree?limit=4" + (f"&after={after}" if after else ""))
        pages += page["messages"]
        after = page["next_after"]
    assert pages == whole
