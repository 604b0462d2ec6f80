"""Readers who wait: what they cost, and how soon somebody beside them gets what was posted or written.

`python -m load.idle_readers --help`; what is measured and how to read it: load/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop

from load.client import Client, LoadError
from load.costs import cpu_seconds, memory_bytes, product_groups
from load.database.delta_feed import DeltaFeed
from load.engine_figures import percentile
from load.fanout_sides import stream_target
from load.own_product import OwnProduct
from load.readers import Readers

IDLE = (1, 100, 1000)
CONVERSATIONS = 50  # the idle readers are spread over them
PACE_PER_SECOND = 24.0
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How much is measured. `crowd`: readers of one conversation, held for so long."""

    posts: int
    deltas: int
    crowd: int
    hold_seconds: float


FULL = Plan(posts=200, deltas=480, crowd=5000, hold_seconds=60.0)
QUICK = Plan(posts=30, deltas=96, crowd=5000, hold_seconds=20.0)


class Poster:
    """Posts replies in a thread where the assistant does not answer, over one connection."""

    def __init__(self, client: Client) -> None:
        address = urlsplit(client.url)
        assert address.hostname
        self._http = http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT_SECONDS)
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        csrf = client.cookies["CSRF-TOKEN"]
        self._headers = {"Content-Type": "application/json", "Cookie": cookies, "X-CSRF-TOKEN": csrf}
        self.conversation = self._call("/api/conversations", {"title": "Posts", "reply_mode": "never"})[
            "conversation_id"
        ]
        self._root = self._call(f"/api/threads/{self.conversation}/root", {"content": "The first."})["message_id"]

    def post(self) -> None:
        """A reply whose text says when it was sent."""
        self._call(f"/api/messages/{self._root}/reply", {"content": f"Another @{time.monotonic_ns()}@"})

    def close(self) -> None:
        """The next post opens another connection: the proxy closes those that nobody uses."""
        self._http.close()

    def _call(self, path: str, body: dict[str, str]) -> Any:
        self._http.request("POST", path, json.dumps(body), self._headers)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != 201:
            raise LoadError(f"POST {path}: {answer.status} {text[:300].decode(errors='replace')}")
        return json.loads(text)


async def lateness_ms(reader: Readers, send: Callable[[], Awaitable[None]], count: int, pause: float) -> list[float]:
    """From just before each sending to the reader's having it."""
    reader.stamps()
    for _ in range(count):
        before = reader.total
        await send()
        await asyncio.to_thread(reader.wait_for, before + 1, WAIT_SECONDS)
        await asyncio.sleep(pause)
    first: dict[int, int] = {}
    for stamp, arrived in reader.stamps():
        first.setdefault(stamp, arrived)
    return [(arrived - stamp) / 1e6 for stamp, arrived in first.items()]


class IdleBench:
    """The measurements on one product."""

    def __init__(self, product: OwnProduct, admin: Client, plan: Plan) -> None:
        self._product, self._admin, self._plan = product, admin, plan
        self._poster = Poster(admin)

    async def beside_idle_readers(self) -> dict[str, Any]:
        """How late posts and deltas are at one reader while others wait in other conversations."""
        places = [self._admin.converse(f"Idle {number}").id for number in range(CONVERSATIONS)]
        written = self._admin.converse("Deltas").id
        feed = await DeltaFeed.open(self._product.home, self._admin.cookies["SESSION_ID"], written, 1)
        figures = {}
        for count in IDLE:
            _say(f"{count} idle readers")
            idle = [places[number % len(places)] for number in range(count)]
            with Readers(stream_target(self._admin, idle)):
                with Readers(stream_target(self._admin, [self._poster.conversation]), stamped=True) as reader:
                    posts = await lateness_ms(reader, self._post, self._plan.posts, 0.05)
                with Readers(stream_target(self._admin, [written]), stamped=True) as reader:
                    deltas, commits = await self._deltas(reader, feed)
            figures[str(count)] = {
                "post_to_created_p50_ms": round(percentile(posts, 0.5), 2),
                "post_to_created_p99_ms": round(percentile(posts, 0.99), 2),
                "append_to_reader_p50_ms": round(percentile(deltas, 0.5), 2),
                "append_to_reader_p99_ms": round(percentile(deltas, 0.99), 2),
                "commit_to_reader_p50_ms": round(percentile(commits, 0.5), 2),
                "commit_to_reader_p99_ms": round(percentile(commits, 0.99), 2),
            }
        await feed.close()
        return figures

    async def _post(self) -> None:
        await asyncio.to_thread(self._poster.post)

    async def _deltas(self, reader: Readers, feed: DeltaFeed) -> tuple[list[float], list[float]]:
        """From the call of the append, and from its return, to the reader. A reader may be faster than the return."""
        reader.stamps()
        committed: dict[int, int] = {}
        for _ in range(self._plan.deltas):
            before, stamp = reader.total, time.monotonic_ns()
            await feed.append([f" and so on @{stamp}@"])
            committed[stamp] = time.monotonic_ns()
            await asyncio.to_thread(reader.wait_for, before + 1, WAIT_SECONDS)
            await asyncio.sleep(1 / PACE_PER_SECOND)
        arrivals = reader.stamps()
        return (
            [(arrived - stamp) / 1e6 for stamp, arrived in arrivals],
            [max(0.0, (arrived - committed[stamp]) / 1e6) for stamp, arrived in arrivals],
        )

    async def crowd(self) -> dict[str, Any]:
        """Many readers of one conversation are held, and one post reaches all of them."""
        count = self._plan.crowd
        _say(f"{count} readers of one conversation")
        with Readers(stream_target(self._admin, [self._poster.conversation] * 10)):
            await asyncio.sleep(1)
        before = self._memory()
        began = time.monotonic()
        with Readers(stream_target(self._admin, [self._poster.conversation] * count), stamped=True) as readers:
            connected = time.monotonic() - began
            cpu = self._cpu_seconds()
            await asyncio.sleep(self._plan.hold_seconds)
            waiting = (self._cpu_seconds() - cpu) / self._plan.hold_seconds / (os.cpu_count() or 1)
            after = self._memory()
            events = readers.total
            self._poster.close()
            await self._post()
            await asyncio.to_thread(readers.wait_for, events + count, WAIT_SECONDS)
            late = [(arrived - stamp) / 1e6 for stamp, arrived in readers.stamps()]
        grown = {name: after[name] - before.get(name, 0) for name in after}
        return {
            "readers": count,
            "held_seconds": self._plan.hold_seconds,
            "connected_within_seconds": round(connected, 1),
            "cpu_share_while_waiting": round(waiting, 3),
            "post_reached_all_within_ms": round(max(late), 1),
            "memory_grown_bytes": grown | {"all": sum(grown.values())},
            "memory_per_reader_bytes": round(sum(grown.values()) / count),
        }

    def _memory(self) -> dict[str, int]:
        groups = product_groups(self._product.process, self._product.home)
        return {name: memory_bytes(group) for name, group in groups.items()}

    def _cpu_seconds(self) -> float:
        groups = product_groups(self._product.process, self._product.home)
        return sum(cpu_seconds(group) for group in groups.values())


async def run(plan: Plan) -> dict[str, Any]:
    """Starts a product and measures."""
    _say("starting the product")
    with OwnProduct() as product:
        admin = Client(product.url)
        admin.enter_as_admin("bench", secrets.token_urlsafe())
        bench = IdleBench(product, admin, plan)
        return {"beside_idle_readers": await bench.beside_idle_readers(), "crowd": await bench.crowd()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints the figures, then, as the last line, one JSON object with all of them."""
    parser = argparse.ArgumentParser(prog="python -m load.idle_readers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer posts, shorter")
    plan = QUICK if parser.parse_args().quick else FULL
    busy = round(os.getloadavg()[0], 2)
    # Asked to end, it must still stop what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures = uvloop.run(run(plan))
    except LoadError as error:
        sys.exit(f"idle-readers: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(figures, indent=2))
    print(json.dumps({"cores": os.cpu_count(), "load_average_before": busy} | figures))


if __name__ == "__main__":
    main()
