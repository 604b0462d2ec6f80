"""An answer survives the death of any process that takes part in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx
import pytest

from tests.support.person import Event, Person
from tests.support.product import Product

LONG_QUESTION = "Write a long story about a ship and its crew."


def kill_database(product: Product) -> None:
    """The whole server, as a power cut would."""
    lines = (product.home / "postgres" / "postmaster.pid").read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)


KILLS: dict[str, Callable[[Product], None]] = {
    "Model": lambda product: product.replica("Model").kill(),
    "Streamer": lambda product: product.replica("Streamer").kill(),
    "Gateway": lambda product: product.replica("Gateway").kill(),
    "access actor": lambda product: product.actor("PostgresAccess").kill(),
    "database": kill_database,
}


@pytest.mark.parametrize("victim", KILLS)
def test_reader_sees_the_whole_answer_whatever_is_killed(product: Product, person: Person, victim: str) -> None:
    conversation = person.converse()
    posted = person.ask(conversation, LONG_QUESTION)
    events: list[Event] = []
    killed = False
    while not events or events[-1].type != "message.done":
        try:
            with person.stream(conversation, events[-1].id if events else posted["cursor"]) as stream:
                for event in stream:
                    assert event.type != "stream.reset"
                    events.append(event)
                    if not killed and sum(e.type == "message.delta" for e in events) == 5:
                        KILLS[victim](product)
                        killed = True
                    if event.type == "message.done":
                        break
        except (httpx.TransportError, httpx.HTTPStatusError):
            continue  # while the Streamer starts again the proxy answers 5xx
    assert killed
    stored = person.patiently(lambda: person.message(posted["root_id"], posted["assistant_message_id"]))
    assert stored["finish_reason"] in ("stop", "length")
    assert "".join(event.text for event in events) == stored["content"]
    assert [int(e.id) for e in events] == list(range(int(posted["cursor"]) + 1, int(events[-1].id) + 1))
    assert sum(event.type == "message.done" for event in events) == 1
