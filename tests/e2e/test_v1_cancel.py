"""Who leaves takes no more of the model: the engine's own counters show it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.person import Person

LIMIT = 1500
QUESTION = [{"role": "user", "content": "Count as far as you can."}]
# Does not end by itself before LIMIT tokens.
ENDLESS: dict[str, Any] = {"model": "default", "max_tokens": LIMIT, "ignore_eos": True}


def wait_for(look: Callable[[], dict[str, Any]], is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first figures of which `is_so` holds."""
    deadline = time.monotonic() + 60
    while not is_so(now := look()):
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    return now


def engine(admin: Person) -> dict[str, Any]:
    """Of the one replica, at this moment."""
    [model] = admin.call("GET", "/api/admin/models")["models"]
    return model["replica"]["engine"]


def active_sequences(admin: Person) -> dict[str, Any]:
    """What operators see of it, a few seconds late."""
    families = text_string_to_metric_families(admin.http.get("/metrics").text)
    values = [s.value for family in families for s in family.samples if s.name == "llm_active_sequences"]
    return {"running": sum(values), "replicas": len(values)}


def leave_stream(person: Person, path: str, body: dict[str, Any]) -> None:
    """In the middle."""
    with person.http.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        chunks = (line for line in answer.iter_lines() if line.startswith("data: "))
        assert len(list(itertools.islice(chunks, 8))) == 8


def leave_while_waiting(person: Person, path: str, body: dict[str, Any]) -> None:
    """Before the whole answer is there."""
    with contextlib.suppress(httpx.ReadTimeout):
        person.http.post(path, json=body, timeout=2)
        pytest.fail("the answer was there in no time")


@pytest.mark.parametrize(
    ("leave", "path", "body", "sequences"),
    [
        (leave_stream, "/v1/chat/completions", {"messages": QUESTION}, 1),
        (leave_stream, "/v1/chat/completions", {"messages": QUESTION, "n": 3}, 3),
        (leave_while_waiting, "/v1/chat/completions", {"messages": QUESTION}, 1),
        (leave_while_waiting, "/v1/completions", {"prompt": ["One, two,", "Monday, Tuesday,"]}, 2),
    ],
    ids=["stream", "stream of several choices", "whole answer", "whole answers to several prompts"],
)
def test_the_generation_of_a_client_that_leaves_ends(
    admin: Person,
    person: Person,
    leave: Callable[[Person, str, dict[str, Any]], None],
    path: str,
    body: dict[str, Any],
    sequences: int,
) -> None:
    before = wait_for(lambda: engine(admin), lambda now: now["running"] == now["waiting"] == 0)
    leave(person, path, ENDLESS | body)
    after = wait_for(
        lambda: engine(admin),
        lambda now: (
            now["running"] == now["waiting"] == 0 and now["finished_total"] == before["finished_total"] + sequences
        ),
    )
    # They had not simply come to their ends.
    made = after["decode_tokens_total"] - before["decode_tokens_total"]
    assert 0 < made < sequences * LIMIT / 2
    # Nothing goes on unseen.
    wait_for(lambda: active_sequences(admin), lambda now: now["replicas"] > 0 and now["running"] == 0)
    assert engine(admin)["decode_tokens_total"] == after["decode_tokens_total"]
