"""The product beside the bare engine, in one run on this machine: `python -m load.bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from load.client import Client, Conversation, LoadError
from load.engine_direct import DirectEngine
from load.figures import Chat, first_token_p50_ms, throughput
from load.http_rate import requests_per_second
from load.own_product import OwnProduct, model_settings
from load.prompts import lanes

CONCURRENCIES = (1, 8)
CONNECTIONS = 16
MAX_TOKENS = 128
PATHS = ("/healthz", "/api/conversations")
LABELS = {"tokens_per_second": "output tokens per second", "first_token_ms": "time to first token, ms (p50)"}


@dataclass(frozen=True)
class Plan:
    """How much is measured. `chats_each`: questions of each person a round, by concurrency."""

    rounds: int
    chats_each: dict[int, int]
    http_seconds: float


FULL = Plan(rounds=5, chats_each={1: 2, 8: 1}, http_seconds=3.0)
QUICK = Plan(rounds=1, chats_each={1: 1, 8: 1}, http_seconds=1.0)


@dataclass
class Side:
    """One side's rounds at one concurrency."""

    tokens_per_second: list[float] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)

    def add(self, chats: list[Chat]) -> None:
        """One round more."""
        self.tokens_per_second.append(throughput(chats))
        self.first_token_ms.append(first_token_p50_ms(chats))


class People:
    """As many tabs of one account as chats run at once; each keeps its conversation."""

    def __init__(self, admin: Client) -> None:
        self._seats: list[tuple[Client, Conversation]] = []
        for number in range(max(CONCURRENCIES)):
            tab = admin.again()
            self._seats.append((tab, tab.converse(f"Bench {number + 1}")))

    def run(self, questions: list[list[str]]) -> list[Chat]:
        """All lanes at once, the questions of a lane one after another."""

        def one_after_another(seat: tuple[Client, Conversation], asked: list[str]) -> list[Chat]:
            return [seat[0].chat(seat[1], question) for question in asked]

        with ThreadPoolExecutor(len(questions)) as pool:
            results = pool.map(one_after_another, self._seats[: len(questions)], questions)
            return [chat for result in results for chat in result]


def measure(admin: Client, environment: dict[str, str], max_tokens: int, plan: Plan) -> dict[str, Any]:
    """All figures. The product and the bare engine take turns: never do both compute."""
    rates: dict[str, list[float]] = {path: [] for path in PATHS}
    sides = {n: {"product": Side(), "direct": Side()} for n in CONCURRENCIES}
    people = People(admin)
    with DirectEngine(environment) as direct:
        _say("warming up")
        for side in (people, direct):
            side.run([["Say hello."]])
        for number in range(plan.rounds):
            _say(f"round {number + 1} of {plan.rounds}")
            for path in PATHS:
                cookies = admin.cookies if path.startswith("/api/") else None
                rates[path].append(requests_per_second(admin.url, path, CONNECTIONS, plan.http_seconds, cookies))
            for concurrency in CONCURRENCIES:
                questions = lanes(concurrency, plan.chats_each[concurrency], number)
                sides[concurrency]["product"].add(people.run(questions))
                sides[concurrency]["direct"].add(direct.run(questions))
    return {
        "cores": os.cpu_count(),
        "rounds": plan.rounds,
        "max_tokens": max_tokens,
        "chats": {str(n): _compared(sides[n]) for n in CONCURRENCIES},
        "requests_per_second": {path: _figure(values) for path, values in rates.items()},
        "connections": CONNECTIONS,
    }


def _figure(values: list[float]) -> dict[str, Any]:
    return {"median": round(median(values), 1), "rounds": [round(value, 1) for value in values]}


def _compared(sides: dict[str, Side]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in LABELS:
        values = {side: getattr(sides[side], name) for side in ("product", "direct")}
        ratio = median(values["product"]) / median(values["direct"])
        figures[name] = {side: _figure(value) for side, value in values.items()} | {"ratio": round(ratio, 3)}
    return figures


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'median by round, rounds: ' + str(figures['rounds']):<46}{'product':>10}{'direct':>10}{'ratio':>8}"]
    for name, label in LABELS.items():
        for concurrency, compared in figures["chats"].items():
            row, title = compared[name], f"{label}, {concurrency} at once"
            sides = f"{row['product']['median']:>10.1f}{row['direct']['median']:>10.1f}"
            lines.append(f"{title:<46}{sides}{row['ratio']:>8.2f}")
    for path, rate in figures["requests_per_second"].items():
        title = f"GET {path}, per second, {figures['connections']} at once"
        lines.append(f"{title:<46}{rate['median']:>10.1f}")
    return "\n".join(lines)


@contextmanager
def _service(url: str | None) -> Iterator[tuple[Client, dict[str, str], int]]:
    """The administrator's client, the service's environment, and its longest answer."""
    if url:
        name, password = os.environ.get("LOAD_ADMIN"), os.environ.get("LOAD_PASSWORD")
        if not (name and password):
            raise LoadError("with --url set LOAD_ADMIN and LOAD_PASSWORD to an administrator's name and password")
        admin = Client(url)
        admin.enter_as_admin(name, password)
        yield admin, dict(os.environ), model_settings()["max_tokens"]
        return
    _say("starting the product")
    with OwnProduct(RUSTYGPT__LLM__MODELS__default__MAX_TOKENS=str(MAX_TOKENS)) as product:
        admin = Client(product.url)
        if admin.is_set_up():
            raise LoadError("the product just started is set up already: another one answers in its place")
        admin.enter_as_admin("bench", secrets.token_urlsafe())
        yield admin, product.environment, MAX_TOKENS


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints a table, then, as the last line, one JSON object with all figures."""
    parser = argparse.ArgumentParser(prog="python -m load.bench", description=__doc__)
    parser.add_argument(
        "--url",
        help="a running service here, configured as this shell is; needs LOAD_ADMIN, LOAD_PASSWORD",
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    arguments = parser.parse_args()
    # Others at work on the machine before the start: their share is missing in every figure.
    busy = round(os.getloadavg()[0], 2)
    # Asked to end, it must still stop what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with _service(arguments.url) as (admin, environment, max_tokens):
            figures = measure(admin, environment, max_tokens, QUICK if arguments.quick else FULL)
    except LoadError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(figures))
    print(f"load average of the machine before the start: {busy}")
    print(json.dumps(figures | {"load_average_before": busy}))


if __name__ == "__main__":
    main()
