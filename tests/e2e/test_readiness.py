"""`/readyz` tells the truth of a model whose replica is killed, hangs, or has more to do than it can."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest

from tests.support.person import Person
from tests.support.product import Product

# What is promised from the loss of a model's last replica on, with what one look takes.
NOTICE_SECONDS = 5.0
START_SECONDS = 120.0
BUSY_SECONDS = 6.0
LONG = {
    "model": "default",
    "messages": [{"role": "user", "content": "Tell a long story."}],
    "max_tokens": 4000,
    "ignore_eos": True,
    "stream": True,
}


def look(product: Product) -> dict[str, Any]:
    """What /readyz says now."""
    answer = httpx.get(f"{product.url}/readyz", timeout=10)
    assert answer.status_code == (200 if answer.json()["ready"] else 503)
    return answer.json()


def seconds_until(product: Product, ready: bool, limit: float) -> tuple[float, list[str]]:
    """How long it takes until /readyz says so, and what is missing then."""
    began = time.monotonic()
    while (said := look(product))["ready"] is not ready:
        assert time.monotonic() - began < limit, said
        time.sleep(0.05)
    return time.monotonic() - began, said["missing"] if not ready else []


def kill(product: Product) -> Callable[[], None]:
    """Serve starts another one by itself."""
    product.replica("Model").kill()
    return lambda: None


def stop(product: Product) -> Callable[[], None]:
    """As a replica that hangs. Returns what lets it go on."""
    replica = product.replica("Model")
    replica.send_signal(signal.SIGSTOP)
    return lambda: replica.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("lose", [kill, stop])
def test_not_ready_soon_after_the_last_replica_is_lost_and_ready_when_one_is_back(
    product: Product, lose: Callable[[Product], Callable[[], None]]
) -> None:
    seconds_until(product, True, START_SECONDS)
    bring_back = lose(product)
    try:
        seconds, missing = seconds_until(product, False, 2 * NOTICE_SECONDS)
    finally:
        bring_back()
    assert seconds < NOTICE_SECONDS
    assert len(missing) == 1
    assert missing[0].startswith(("model default: no replica has answered for ", "model default: starting"))
    seconds_until(product, True, START_SECONDS)


@contextmanager
def all_slots_taken(admin: Person) -> Iterator[None]:
    """More answers are asked for than the model can make at once."""
    slots = engine(admin)["max_slots"]
    with ExitStack() as asked:
        for _ in range(slots + 2):
            asked.enter_context(admin.http.stream("POST", "/v1/chat/completions", json=LONG))
        deadline = time.monotonic() + 60
        while engine(admin)["engine"]["running"] < slots:
            assert time.monotonic() < deadline, engine(admin)
            time.sleep(0.2)
        yield
        now = engine(admin)["engine"]
        assert now["running"] == slots, "it was not busy all the time"
        assert now["waiting"] > 0


def engine(admin: Person) -> dict[str, Any]:
    """What the replica says of itself."""
    [model] = admin.call("GET", "/api/admin/models")["models"]
    return model["replica"]


def test_a_replica_whose_slots_are_all_taken_stays_ready(product: Product, admin: Person) -> None:
    seconds_until(product, True, START_SECONDS)
    with all_slots_taken(admin):
        ends = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < ends:
            assert look(product) == {"ready": True}
            time.sleep(0.1)


def stopped(processes: list[psutil.Process]) -> ExitStack:
    """Hang until it is closed."""
    stack = ExitStack()
    for process in processes:
        process.send_signal(signal.SIGSTOP)
        stack.callback(process.send_signal, signal.SIGCONT)
    return stack


def test_a_database_that_hangs_is_missing_and_the_answer_does_not_wait_for_it(product: Product) -> None:
    seconds_until(product, True, START_SECONDS)
    with stopped(product.database_processes()):
        for _ in range(8):  # more than a Gateway has connections
            began = time.monotonic()
            assert look(product) == {"ready": False, "missing": ["database"]}
            assert time.monotonic() - began < 2.5
    seconds_until(product, True, START_SECONDS)


def test_a_controller_of_serve_that_hangs_keeps_nobody_waiting(product: Product) -> None:
    seconds_until(product, True, START_SECONDS)
    with stopped([product.actor("ServeController")]):
        assert look(product) == {"ready": True}
        with stopped([product.replica("Model")]):
            seconds_until(product, False, NOTICE_SECONDS)
            for _ in range(3):
                began = time.monotonic()
                [sentence] = look(product)["missing"]
                assert sentence.startswith("model default: no replica has answered for ")
                assert time.monotonic() - began < 2.5
    seconds_until(product, True, START_SECONDS)


def test_readiness_is_asked_for_by_many_at_once(product: Product) -> None:
    seconds_until(product, True, START_SECONDS)
    found: list[dict[str, Any]] = []
    askers = [threading.Thread(target=lambda: found.append(look(product))) for _ in range(20)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == [{"ready": True}] * len(askers)
