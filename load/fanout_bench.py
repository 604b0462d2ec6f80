"""One conversation's events to many readers, beside nginx with nchan: `python -m load.fanout_bench --help`.

What is measured and how to read it: load/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil
import uvloop

from load.client import Client, LoadError
from load.costs import cpu_seconds, memory_bytes
from load.engine_figures import percentile
from load.fanout_sides import NchanSide, ProductSide, Side
from load.own_product import OwnProduct
from load.readers import Readers

READERS = (1, 100, 1000)
BATCH = 16  # answers written at once: deltas of one flush
WINDOW = 512  # events that a reader may lack before the writer waits
PACE_PER_SECOND = 24.0  # flushes of one answer on a fast model
TEXT = " and so on, until"  # with its stamp, about what a flush brings
ARRIVAL_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    flat_out_seconds: float
    paced_seconds: float


FULL = Plan(rounds=5, flat_out_seconds=4.0, paced_seconds=8.0)
QUICK = Plan(rounds=1, flat_out_seconds=2.0, paced_seconds=3.0)


@dataclass(frozen=True)
class Round:
    """One round of one side. Deliveries are events times readers; `cpu_us_per_delivery` is by group of processes, and
    the client's share is of all cores."""

    deliveries_per_second: float
    events_per_second: float
    cpu_us_per_delivery: dict[str, float]
    client_cpu_share: float
    late_ms: list[float]


async def settle(side: Side, readers: Readers) -> None:
    """Returns when an event reaches every reader. (nchan answers a reader before its workers have agreed on it.)"""
    for _ in range(20):
        before = readers.counts()
        await side.publish([TEXT])
        await asyncio.sleep(0.5)
        if all(after == count + 1 for count, after in zip(before, readers.counts(), strict=True)):
            return
    raise LoadError(f"{side.name}: an event does not reach all readers")


async def flat_out(side: Side, readers: Readers, seconds: float) -> Round:
    """As fast as the slowest part allows: the writer goes on while readers lack fewer than WINDOW events."""
    meter = Meter(side, readers)
    published = 0
    while time.monotonic() - meter.began < seconds:
        await side.publish([_stamped() for _ in range(BATCH)])
        published += BATCH
        meter.wait_for((published - WINDOW) * len(readers))
    return meter.ended(published)


async def paced(side: Side, readers: Readers, seconds: float) -> Round:
    """One event at a time, as one answer brings them."""
    meter = Meter(side, readers)
    count = int(seconds * PACE_PER_SECOND)
    for number in range(count):
        await asyncio.sleep(max(0.0, meter.began + number / PACE_PER_SECOND - time.monotonic()))
        await side.publish([_stamped()])
    return meter.ended(count)


def _stamped() -> str:
    return f"{TEXT} @{time.monotonic_ns()}@"


class Meter:
    """Counts from its making to `ended`."""

    def __init__(self, side: Side, readers: Readers) -> None:
        self._side, self._readers, self._groups = side, readers, side.groups()
        self._counts = readers.counts()
        self._total = readers.total
        readers.stamps()
        self._cpu = self._cpu_seconds()
        self.began = time.monotonic()

    def wait_for(self, deliveries: int) -> float:
        """Until there were so many since the beginning; the time then."""
        return self._readers.wait_for(self._total + deliveries, ARRIVAL_SECONDS)

    def ended(self, published: int) -> Round:
        """When everything has arrived. Raises LoadError if a reader got more or less than what was published."""
        deliveries = published * len(self._readers)
        ended = self.wait_for(deliveries)
        cpu = {name: after - self._cpu[name] for name, after in self._cpu_seconds().items()}
        client = cpu.pop("client")
        got = {after - before for before, after in zip(self._counts, self._readers.counts(), strict=True)}
        if got != {published}:
            raise LoadError(f"{self._side.name}: of {published} events readers got {sorted(got)[:5]}")
        seconds = ended - self.began
        return Round(
            deliveries_per_second=deliveries / seconds,
            events_per_second=published / seconds,
            cpu_us_per_delivery={name: used / deliveries * 1e6 for name, used in cpu.items()},
            client_cpu_share=client / (os.cpu_count() or 1) / seconds,
            late_ms=[(arrived - sent) / 1e6 for sent, arrived in self._readers.stamps()],
        )

    def _cpu_seconds(self) -> dict[str, float]:
        """By group; `client` are the readers and this process, which writes."""
        used = {name: cpu_seconds(group) for name, group in self._groups.items()}
        own = psutil.Process().cpu_times()
        return used | {"all": sum(used.values()), "client": self._readers.cpu_seconds() + own.user + own.system}


async def measure(sides: list[Side], plan: Plan) -> dict[str, Any]:
    """All figures: the sides take turns, and never do both deliver."""
    figures: dict[str, Any] = {"memory_per_idle_reader_bytes": {}, "flat_out": {}, "paced": {}}
    for side in sides:
        _say(f"memory of {max(READERS)} idle readers: {side.name}")
        figures["memory_per_idle_reader_bytes"][side.name] = await _memory_per_reader(side, max(READERS))
    for count in READERS:
        flat: dict[str, list[Round]] = {side.name: [] for side in sides}
        slow: dict[str, list[Round]] = {side.name: [] for side in sides}
        for number in range(plan.rounds):
            _say(f"{count} readers, round {number + 1} of {plan.rounds}")
            for side in sides:
                with Readers(side.target(count)) as readers:
                    await settle(side, readers)
                    flat[side.name].append(await flat_out(side, readers, plan.flat_out_seconds))
                with Readers(side.target(count), stamped=True) as readers:
                    await settle(side, readers)
                    slow[side.name].append(await paced(side, readers, plan.paced_seconds))
        figures["flat_out"][str(count)] = _compared(flat)
        figures["paced"][str(count)] = _compared(slow)
    return figures


async def _memory_per_reader(side: Side, count: int) -> dict[str, int]:
    """What so many readers that nothing is sent to add, by group of processes and in all."""
    with Readers(side.target(10)):
        await asyncio.sleep(1)
    before = {name: memory_bytes(group) for name, group in side.groups().items()}
    with Readers(side.target(count)):
        await asyncio.sleep(5)
        after = {name: memory_bytes(group) for name, group in side.groups().items()}
    grown = {name: round((after[name] - before.get(name, 0)) / count) for name in after}
    return grown | {"all": sum(grown.values())}


def _compared(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, taken in rounds.items():
        late = [value for each in taken for value in each.late_ms]
        figures[name] = {
            "deliveries_per_second": round(median(each.deliveries_per_second for each in taken)),
            "deliveries_per_second_rounds": [round(each.deliveries_per_second) for each in taken],
            "events_per_second": round(median(each.events_per_second for each in taken), 1),
            "cpu_us_per_delivery": round(median(each.cpu_us_per_delivery["all"] for each in taken), 2),
            "cpu_us_per_delivery_by_group": {
                group: round(median(each.cpu_us_per_delivery[group] for each in taken), 2)
                for group in taken[0].cpu_us_per_delivery
            },
            "client_cpu_share": round(median(each.client_cpu_share for each in taken), 3),
        }
        if late:
            figures[name] |= {
                "publish_to_reader_p50_ms": round(median(late), 2),
                "publish_to_reader_p99_ms": round(percentile(late, 0.99), 2),
            }
    ours, theirs = (figures[name]["deliveries_per_second"] for name in rounds)
    return figures | {"ratio": round(ours / theirs, 3)}


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'':<34}{'product':>12}{'nchan':>12}"]
    for kind in ("flat_out", "paced"):
        for count, compared in figures[kind].items():
            for name in next(iter(compared.values())):
                if not name.endswith(("_rounds", "_by_group")):
                    values = [f"{compared[side][name]:>12,}" for side in ("product", "nchan")]
                    lines.append(f"{kind + ', ' + count + ': ' + name:<58}{''.join(values)}")
    memory = figures["memory_per_idle_reader_bytes"]
    lines.append(f"{'bytes per idle reader':<58}{memory['product']['all']:>12,}{memory['nchan']['all']:>12,}")
    return "\n".join(lines)


@asynccontextmanager
async def _sides() -> AsyncIterator[list[Side]]:
    _say("starting the product and nginx")
    with OwnProduct() as product:
        admin = Client(product.url)
        admin.enter_as_admin("bench", secrets.token_urlsafe())
        async with ProductSide.open(product, admin, BATCH) as ours:
            with NchanSide.open(ours) as theirs:
                yield [ours, theirs]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def run(plan: Plan) -> dict[str, Any]:
    """Starts both sides and measures."""
    async with _sides() as sides:
        return await measure(sides, plan)


def main() -> None:
    """Prints a table, then, as the last line, one JSON object with all figures."""
    parser = argparse.ArgumentParser(prog="python -m load.fanout_bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    plan = QUICK if parser.parse_args().quick else FULL
    busy = round(os.getloadavg()[0], 2)
    # Asked to end, it must still stop what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures = uvloop.run(run(plan))
    except LoadError as error:
        sys.exit(f"fanout-bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(figures))
    print(json.dumps({"cores": os.cpu_count(), "rounds": plan.rounds, "load_average_before": busy} | figures))


if __name__ == "__main__":
    main()
