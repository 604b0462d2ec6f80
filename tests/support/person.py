"""Somebody who uses the product over HTTP."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from deployments.events import validate

T = TypeVar("T")
PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    id: str
    type: str
    payload: dict[str, Any]

    @property
    def text(self) -> str:
        """What a message.delta adds."""
        return self.payload["choices"][0]["delta"].get("content", "") if self.type == "message.delta" else ""


class Person:
    """A browser without a screen: cookies, the CSRF header, and the calls that the page makes."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.http = httpx.Client(base_url=url, timeout=30)
        self.id = ""

    def sign_in(self) -> Person:
        answer = self.http.post("/api/auth/login", json={"email": self.name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.id = answer.json()["user"]["id"]
        self.http.headers["X-CSRF-TOKEN"] = answer.json()["csrf_token"]
        return self

    def invite(self, name: str | None = None) -> Person:
        """As an administrator: makes an account and signs in with it."""
        name = name or f"person{next(_numbers)}"
        account = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        answer = self.http.post("/api/users", json=account)
        assert answer.status_code == 201, answer.text
        return Person(str(self.http.base_url), name).sign_in()

    def call(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        """One call; the status must be the expected one. Returns the JSON answer, or None."""
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def converse(self, *others: Person, title: str = "Tests") -> str:
        """A new conversation with others as members; its id."""
        conversation = self.call("POST", "/api/conversations", {"title": title}, 201)["conversation_id"]
        for other in others:
            path = f"/api/conversations/{conversation}/participants"
            self.call("POST", path, {"user_id": other.id, "role": "member"}, 204)
        return conversation

    def ask(self, conversation: str, content: str) -> dict[str, Any]:
        """Posts a root message."""
        return self.call("POST", f"/api/threads/{conversation}/root", {"content": content}, 201)

    def reply(self, message: str, content: str) -> dict[str, Any]:
        """Posts a reply."""
        return self.call("POST", f"/api/messages/{message}/reply", {"content": content}, 201)

    def message(self, root: str, message: str) -> dict[str, Any]:
        """One message of a thread."""
        tree = self.call("GET", f"/api/threads/{root}/tree")
        return next(item for item in tree["messages"] if item["id"] == message)

    def patiently(self, action: Callable[[], T], seconds: float = 30) -> T:
        """What `action` returns once the service answers it; it is tried again while it does not."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return action()
            except (AssertionError, httpx.TransportError):
                if time.monotonic() > deadline:
                    raise

    @contextmanager
    def stream(self, channel: str, after: str | None = None) -> Iterator[Iterator[Event]]:
        """Events of a conversation, or of `me`, over one connection. Each is checked against the published schema."""
        path = "/api/stream/me" if channel == "me" else f"/api/stream/conversations/{channel}"
        headers = {"Last-Event-ID": after} if after is not None else {}
        with connect_sse(self.http, "GET", path, headers=headers) as source:
            if source.response.status_code >= 500:
                source.response.raise_for_status()
            assert source.response.status_code == 200, source.response.read()
            yield (_checked(item) for item in source.iter_sse() if item.data)

    def follow(self, channel: str, after: str, last: str = "message.done") -> list[Event]:
        """Every event after a cursor up to the first of type `last`, connecting again as often as needed."""
        events: list[Event] = []
        while not events or events[-1].type != last:
            try:
                with self.stream(channel, events[-1].id if events else after) as stream:
                    for event in stream:
                        assert event.type not in ("stream.reset",), event
                        if event.type == "stream.reconnect":
                            break
                        events.append(event)
                        if event.type == last:
                            break
            except (httpx.TransportError, httpx.HTTPStatusError):
                continue
        return events


def _checked(item: ServerSentEvent) -> Event:
    """Raises ValidationError for an event that is none of the published schema."""
    validate(item.data)
    content = json.loads(item.data)
    assert content["type"] == item.event
    return Event(item.id, item.event, content["payload"])
