"""A person of the service, over HTTP: sign in, converse, ask, and follow the answer to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests

from load.figures import Chat

# The service sends a ping after 15 s of silence: nothing at all for so long means that it is gone.
TIMEOUT_SECONDS = 40.0
GOOD_ENDS = ("stop", "length")

Report = Callable[[str, str, float, int, Exception | None], None]
"""Told of each request: method, path with its parameters' names, seconds until the answer (of a stream: its
headers), bytes of the answer, what went wrong."""


class LoadError(Exception):
    """The service did not do what it promises; the message says what was asked and what came."""


@dataclass(frozen=True)
class Event:
    """One event of a stream. `id` is empty for notices of the connection."""

    id: str
    type: str
    payload: dict[str, Any]


@dataclass
class Conversation:
    """A conversation, and the place up to which its events were read."""

    id: str
    cursor: str


class Client:
    """One browser: its cookies and connections. Not for several threads at once; see `again`.

    Every method raises LoadError, also where the service cannot be reached.
    """

    def __init__(self, url: str, report: Report | None = None) -> None:
        self.url = url.rstrip("/")
        self._report = report
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy of this machine's environment is not what is measured

    def close(self) -> None:
        """Closes the connections; the session at the service stays."""
        self._http.close()

    def again(self) -> Client:
        """Another tab: connections of its own in the same session."""
        other = Client(self.url, self._report)
        other._http.headers.update(self._http.headers)
        other._http.cookies.update(self._http.cookies)
        return other

    @property
    def cookies(self) -> dict[str, str]:
        """The session, for requests that are made elsewhere."""
        return {cookie.name: cookie.value or "" for cookie in self._http.cookies}

    def is_set_up(self) -> bool:
        """Whether the service has its first account."""
        return self._call("GET", "/api/setup")["is_setup"]

    def enter_as_admin(self, name: str, password: str) -> None:
        """Makes the first account where the service is new; signs in."""
        if not self.is_set_up():
            account = {"username": name, "email": f"{name}@example.org", "password": password}
            self._call("POST", "/api/setup", account)
        self.sign_in(name, password)

    def sign_in(self, name: str, password: str) -> None:
        """Opens a session."""
        answer = self._call("POST", "/api/auth/login", {"email": name, "password": password})
        self._http.headers["X-CSRF-TOKEN"] = answer["csrf_token"]

    def create_user(self, name: str, password: str) -> None:
        """As an administrator: makes an account."""
        account = {"username": name, "email": f"{name}@example.org", "password": password}
        self._call("POST", "/api/users", account)

    def create_key(self, name: str) -> str:
        """Makes an API key that may read and generate."""
        return self._call("POST", "/api/keys", {"name": name, "scopes": ["v1.read", "v1.write"]})["key"]

    def converse(self, title: str) -> Conversation:
        """Opens a conversation."""
        created = self._call("POST", "/api/conversations", {"title": title})
        return Conversation(created["conversation_id"], created["cursor"])

    def chat(self, conversation: Conversation, content: str) -> Chat:
        """Begins a thread and reads its answer to the end. As in a page, the stream is open before.

        An answer that does not end well, or whose stream does not bring the end, is a LoadError.
        """
        source = self._open_stream(conversation)
        started, first_token = time.perf_counter(), 0.0
        try:
            path = "/api/threads/{conversation_id}/root"
            posted = self._call("POST", path, {"content": content}, conversation_id=conversation.id)
            while True:
                for event in self._events(source, conversation):
                    if event.type == "stream.reconnect":
                        break
                    if event.payload.get("message_id") != posted["assistant_message_id"]:
                        continue
                    if event.type == "message.delta" and not first_token:
                        first_token = time.perf_counter()
                    elif event.type == "message.done":
                        return self._finished(event, started, first_token)
                else:
                    raise LoadError("the stream ended before message.done")
                source.close()
                source = self._open_stream(conversation)
        finally:
            source.close()

    @staticmethod
    def _finished(event: Event, started: float, first_token: float) -> Chat:
        ended, reason = time.perf_counter(), event.payload["finish_reason"]
        if reason not in GOOD_ENDS:
            raise LoadError(f"the answer ended with {reason}")
        # An answer without a single token has no first one: it begins when it ends.
        return Chat(started, first_token or ended, ended, event.payload["usage"]["completion_tokens"])

    def _open_stream(self, conversation: Conversation) -> requests.Response:
        path = "/api/stream/conversations/{conversation_id}"
        headers = {"Last-Event-ID": conversation.cursor}
        return self._send("GET", path, {"conversation_id": conversation.id}, headers=headers, stream=True)

    @staticmethod
    def _events(source: requests.Response, conversation: Conversation) -> Iterator[Event]:
        try:
            for event in _parse(source.iter_content(None)):
                if event.type == "stream.reset":
                    raise LoadError("the stream lost its place: stream.reset")
                conversation.cursor = event.id or conversation.cursor
                yield event
        except requests.RequestException as error:
            raise LoadError(f"the stream was cut: {error}") from error

    def _call(self, method: str, path: str, body: object = None, **parameters: str) -> Any:
        answer = self._send(method, path, parameters, json=body)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, parameters: dict[str, str], **options: Any) -> requests.Response:
        started, size = time.perf_counter(), 0
        failure: Exception | None = None
        try:
            address = self.url + path.format(**parameters)
            answer = self._http.request(method, address, timeout=TIMEOUT_SECONDS, **options)
            size = 0 if options.get("stream") else len(answer.content)
            if not answer.ok:
                failure = LoadError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
                raise failure
            return answer
        except requests.RequestException as error:
            failure = LoadError(f"{method} {path}: {error}")
            raise failure from error
        finally:
            if self._report:
                self._report(method, path, time.perf_counter() - started, size, failure)


def _parse(chunks: Iterator[bytes]) -> Iterator[Event]:
    """Server-sent events, as this service writes them: lines end with a line feed, data are one line."""
    rest = b""
    for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
            if "data" in fields:
                yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"])["payload"])
