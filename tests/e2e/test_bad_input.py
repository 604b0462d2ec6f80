"""Whatever is sent, the answer is one clear problem+json and nothing is half-done."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from tests.support.person import PASSWORD, Person
from tests.support.product import Product

LEAKS = ("Traceback", "asyncpg", "select ", "SQLSTATE", "rustygpt.api_", "/site-packages/")


def check_problem(answer: httpx.Response, status: int) -> str:
    """The answer is a problem of this status that leaks nothing; its code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["message"].endswith((".", "!")) or ": " in problem["message"], problem
    assert not any(leak in answer.text for leak in LEAKS), answer.text
    return problem["code"]


@pytest.fixture(scope="module")
def conversation(admin: Person) -> str:
    return admin.converse()


def test_malformed_json_is_400(admin: Person, conversation: str) -> None:
    json = {"Content-Type": "application/json"}
    path = f"/api/threads/{conversation}/root"
    for body in (b"{", b'{"content": "a"', b"\xff\xfe", b"nonsense"):
        check_problem(admin.http.post(path, content=body, headers=json), 400)


@pytest.mark.parametrize(
    "body",
    [
        {"content": 5},
        {"content": ["a"]},
        {"content": None},
        {"content": ""},
        {"content": "  \n\t "},
        {"content": "a\0b"},
        {"content": "x" * 100_001},
        {"content": "a", "surplus": 1},
        {"text": "a"},
        [],
        "a",
        None,
        5,
    ],
)
def test_body_of_a_wrong_shape_is_422(admin: Person, conversation: str, body: object) -> None:
    answer = admin.http.post(f"/api/threads/{conversation}/root", json=body)
    assert check_problem(answer, 422) == "RGP.VALIDATION"
    assert admin.call("GET", f"/api/conversations/{conversation}/threads")["threads"] == []


def test_lone_surrogate_is_refused(admin: Person, conversation: str) -> None:
    body = b'{"content": "\\ud800"}'
    headers = {"Content-Type": "application/json"}
    check_problem(admin.http.post(f"/api/threads/{conversation}/root", content=body, headers=headers), 422)


def test_empty_body_is_422(admin: Person, conversation: str) -> None:
    check_problem(admin.http.post(f"/api/threads/{conversation}/root", content=b""), 422)


def test_ten_megabyte_body_is_413(admin: Person, conversation: str) -> None:
    path = f"/api/threads/{conversation}/root"
    body = b'{"content": "' + b"x" * 10_000_000 + b'"}'
    json = {"Content-Type": "application/json"}
    assert check_problem(admin.http.post(path, content=body, headers=json), 413) == "RGP.BODY_TOO_LARGE"
    chunks = (body[place : place + 65_536] for place in range(0, len(body), 65_536))
    assert check_problem(admin.http.post(path, content=chunks, headers=json), 413) == "RGP.BODY_TOO_LARGE"


def test_id_that_is_no_uuid_is_422(admin: Person) -> None:
    for path in ("/api/conversations/5", "/api/threads/x/tree", "/api/conversations/'; drop table users"):
        check_problem(admin.http.get(path), 422)


def test_unknown_ids_are_404_or_403(admin: Person) -> None:
    check_problem(admin.http.get(f"/api/threads/{uuid4()}/tree"), 404)
    check_problem(admin.http.post(f"/api/messages/{uuid4()}/reply", json={"content": "a"}), 404)
    check_problem(admin.http.post(f"/api/messages/{uuid4()}/cancel"), 404)
    check_problem(admin.http.get(f"/api/conversations/{uuid4()}"), 403)
    check_problem(admin.http.get(f"/api/stream/conversations/{uuid4()}"), 403)
    check_problem(admin.http.get(f"/api/stream/{uuid4()}"), 403)


def test_unknown_path_and_method_are_problems(admin: Person) -> None:
    check_problem(admin.http.get("/api/nothing"), 404)
    check_problem(admin.http.get("/static/nothing.js"), 404)
    check_problem(admin.http.put("/api/conversations"), 405)
    check_problem(admin.http.post("/api/stream/me"), 405)


def test_page_marks_of_another_kind_are_refused(admin: Person, conversation: str) -> None:
    check_problem(admin.http.get(f"/api/conversations/{conversation}/threads?before=x"), 400)
    check_problem(admin.http.get(f"/api/conversations/{conversation}/threads?limit=0"), 422)
    posted = admin.ask(admin.converse(), "Hello?")
    check_problem(admin.http.get(f"/api/threads/{posted['root_id']}/tree?after=1.x"), 422)
    check_problem(admin.http.get(f"/api/threads/{posted['root_id']}/tree?before={conversation}"), 400)


def test_nothing_private_without_a_session(product: Product, conversation: str) -> None:
    stranger = httpx.Client(base_url=product.url)
    for path in ("/api/auth/me", "/api/conversations", f"/api/conversations/{conversation}", "/api/users"):
        check_problem(stranger.get(path), 401)
    check_problem(stranger.get(f"/api/stream/conversations/{conversation}"), 401)
    stranger.cookies["SESSION_ID"] = "guess"
    check_problem(stranger.get("/api/conversations"), 401)
    check_problem(stranger.get("/api/stream/me"), 401)


@pytest.mark.parametrize("token", [None, "", "wrong", "ä", "x" * 5000])
def test_change_without_the_right_csrf_token_is_403(person: Person, token: str | None) -> None:
    headers: dict[bytes, bytes] = {} if token is None else {b"X-CSRF-TOKEN": token.encode()}
    del person.http.headers["X-CSRF-TOKEN"]
    answer = person.http.post("/api/conversations", json={"title": "a"}, headers=headers)
    assert check_problem(answer, 403) == "RGP.AUTH.CSRF"


def test_csrf_token_of_another_session_is_refused(admin: Person, person: Person) -> None:
    headers = {"X-CSRF-TOKEN": admin.http.headers["X-CSRF-TOKEN"]}
    answer = person.http.post("/api/conversations", json={"title": "a"}, headers=headers)
    assert check_problem(answer, 403) == "RGP.AUTH.CSRF"


def test_wrong_password_and_unknown_name_look_alike(product: Product) -> None:
    stranger = httpx.Client(base_url=product.url)
    answers = [
        stranger.post("/api/auth/login", json={"email": name, "password": "wrong password"})
        for name in ("admin", "nobody")
    ]
    assert {check_problem(answer, 401) for answer in answers} == {"RGP.AUTH.INVALID_CREDENTIALS"}
    assert answers[0].json()["message"] == answers[1].json()["message"]


def test_second_setup_is_409(product: Product) -> None:
    account = {"username": "eve", "email": "eve@example.org", "password": PASSWORD}
    check_problem(httpx.post(f"{product.url}/api/setup", json=account), 409)


def test_only_an_administrator_makes_accounts(person: Person) -> None:
    account = {"username": "mallory", "email": "mallory@example.org", "password": PASSWORD, "is_admin": True}
    check_problem(person.http.post("/api/users", json=account), 403)


def test_taken_name_is_409(admin: Person, person: Person) -> None:
    account = {"username": person.name.upper(), "email": "other@example.org", "password": PASSWORD}
    assert check_problem(admin.http.post("/api/users", json=account), 409) == "RGP.USER.EXISTS"


def test_logout_ends_the_session(person: Person) -> None:
    cookies = dict(person.http.cookies)
    person.call("POST", "/api/auth/logout", {})
    check_problem(person.http.get("/api/auth/me"), 401)
    person.http.cookies.update(cookies)
    check_problem(person.http.get("/api/auth/me"), 401)


def test_message_too_long_for_the_model_is_told(person: Person) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, "word " * 8000)
    events = person.follow(conversation, posted["cursor"], last="error")
    assert [event.type for event in events][-2:] == ["message.done", "error"]
    assert "too long" in events[-1].payload["message"]
