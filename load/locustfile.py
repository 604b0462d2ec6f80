"""People who talk with the assistant, for Locust.

    LOAD_ADMIN=admin LOAD_PASSWORD=... locust -f load/locustfile.py --headless -u 8 -r 4 -t 30s --host URL

Besides every request, Locust's table has these entries of type `chat`:
- `answer`: from the question to the end of its answer; failed where it did not end well or at all;
- `time to first token`: from the question to the first piece of the answer, ms;
- `tokens per second`: of each answer. Not ms: Locust has no other unit.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import threading
import time
from typing import Any

from locust import User, between, events, task
from locust.env import Environment

from load.client import Client, LoadError, Report
from load.prompts import QUESTIONS

_admins: dict[str, Client] = {}
# gevent has replaced it by one that greenlets wait on.
_admin_lock = threading.Lock()


@events.init.add_listener
def check_credentials(**_: Any) -> None:
    """Before anything is sent."""
    if not (os.environ.get("LOAD_ADMIN") and os.environ.get("LOAD_PASSWORD")):
        sys.exit("Set LOAD_ADMIN and LOAD_PASSWORD: an administrator's name and password, which a new service gets.")


def reporter(environment: Environment) -> Report:
    """Hands what a client did over to Locust's statistics."""

    def report(method: str, path: str, seconds: float, size_bytes: int, failure: Exception | None) -> None:
        environment.events.request.fire(
            request_type=method,
            name=path,
            response_time=seconds * 1000,
            response_length=size_bytes,
            exception=failure,
            context={},
        )

    return report


def new_account(host: str, report: Report) -> tuple[str, str]:
    """Name and password of an account that nobody uses. One administrator's session makes them all: a user
    has a limited number of sessions."""
    name, password = f"load-{secrets.token_hex(6)}", secrets.token_urlsafe()
    with _admin_lock:
        if host not in _admins:
            admin = Client(host, report)
            admin.enter_as_admin(os.environ["LOAD_ADMIN"], os.environ["LOAD_PASSWORD"])
            _admins[host] = admin
        _admins[host].create_user(name, password)
    return name, password


class Talker(User):
    """Signs in, then again and again: opens a conversation, asks, reads the answer to its end."""

    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        """Gets an account and signs in with it. Raises LoadError: then there is nobody to talk."""
        assert self.host
        report = reporter(self.environment)
        self._client = Client(self.host, report)
        self._client.sign_in(*new_account(self.host, report))

    def on_stop(self) -> None:
        """Closes the connections."""
        self._client.close()

    @task
    def talk(self) -> None:
        """One question and its answer."""
        began = time.perf_counter()
        try:
            conversation = self._client.converse("Load")
            chat = self._client.chat(conversation, random.choice(QUESTIONS))
        except LoadError as error:
            self._count("answer", (time.perf_counter() - began) * 1000, error)
            return
        self._count("answer", (chat.ended - chat.started) * 1000)
        self._count("time to first token", chat.first_token_ms)
        self._count("tokens per second", chat.tokens_per_second)

    def _count(self, name: str, value: float, failure: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="chat",
            name=name,
            response_time=value,
            response_length=0,
            exception=failure,
            context={},
        )
