"""How many requests each replica of a product has, from Ray's own metrics of this machine."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from statistics import mean

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from load.client import LoadError

GAUGE = "ray_serve_replica_processing_queries"
# Replicas report once in 2 s.
SAMPLE_SECONDS = 2.0

Loads = dict[str, float]


class ReplicaLoads:
    """Of the product that `command`, its `rustygpt serve`, runs. Raises LoadError where Ray's metrics are not found."""

    def __init__(self, command: psutil.Process) -> None:
        self._command = command
        self._address = ""

    async def watch(self, application: str, until: asyncio.Event) -> list[Loads]:
        """Requests in flight of each replica of an application's deployment, once a period."""
        samples: list[Loads] = []
        while not until.is_set():
            samples.append(await self._sample(application))
            try:
                await asyncio.wait_for(until.wait(), SAMPLE_SECONDS)
            except TimeoutError:
                continue
        return samples

    async def _sample(self, application: str) -> Loads:
        text = await self._text()
        lines = "\n".join(line for line in text.splitlines() if GAUGE in line) + "\n"
        loads: Loads = {}
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if sample.labels.get("application") == application:
                    loads[sample.labels["replica"]] = sample.value
        return loads

    async def _text(self) -> str:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            if not self._address:
                self._address = await self._find(session)
            async with session.get(self._address) as answer:
                return await answer.text()

    async def _find(self, session: aiohttp.ClientSession) -> str:
        """Where the node's agent tells of metrics: at a port that it has chosen itself."""
        for process in self._command.children(recursive=True):
            if "DashboardAgent" not in " ".join(process.cmdline()):
                continue
            for connection in process.net_connections("inet"):
                if connection.status != psutil.CONN_LISTEN:
                    continue
                address = f"http://127.0.0.1:{connection.laddr.port}/metrics"
                try:
                    async with session.get(address) as answer:
                        if answer.status == 200 and "ray_" in await answer.text():
                            return address
                except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
                    continue  # another of its ports, which does not speak HTTP
        raise LoadError("Ray's metrics of this machine were not found")


def over_mean(samples: list[Loads]) -> float:
    """Average load of the replica that had the most, over the average of all, of the time when they had any."""
    totals: dict[str, list[float]] = defaultdict(list)
    for loads in samples:
        if sum(loads.values()):
            for replica, load in loads.items():
                totals[replica].append(load)
    averages = [mean(values) for values in totals.values()]
    if not averages:
        raise LoadError("no replica was ever seen to have a request")
    return max(averages) / mean(averages)
