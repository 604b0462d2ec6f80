"""Our metrics of the whole cluster in Prometheus' text format.

Every process reports to the metrics agent of its node. This asks all agents, keeps our names, drops the labels
that tell replicas apart and sums: a counter must not shrink because the next replica answered the scrape.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import aiohttp
import ray
from prometheus_client.parser import text_string_to_metric_families

PREFIXES = ("ray_http_", "ray_rustygpt_", "ray_llm_", "ray_sse_")
OUR_LABELS = {"method", "path", "status", "type", "model", "finish_reason", "result", "le"}
# Of these the cluster's value is the largest of its processes, of all others the sum.
LARGEST = {"sse_queue_depth", "sse_queue_occupancy_ratio"}
SCRAPE_SECONDS = 2.0

Sample = tuple[str, tuple[tuple[str, str], ...]]


async def collect() -> str:
    """The exposition. Nodes that do not answer in time are left out."""
    nodes = await asyncio.to_thread(ray.nodes)
    agents = {(n["NodeManagerAddress"], n["MetricsExportPort"]) for n in nodes if n["Alive"]}
    timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_scrape(session, host, port) for host, port in agents))
    return await asyncio.to_thread(merge, texts)


async def _scrape(session: aiohttp.ClientSession, host: str, port: int) -> str:
    try:
        async with session.get(f"http://{host}:{port}/metrics") as response:
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""


def merge(texts: list[str]) -> str:
    """Sums the samples of several expositions that differ only in labels that are not ours."""
    sums: dict[str, dict[Sample, float]] = defaultdict(lambda: defaultdict(float))
    heads: dict[str, tuple[str, str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(_ours(text)):
            # The parser takes _total off a counter's name.
            name = family.name.removeprefix("ray_") + ("_total" if family.type == "counter" else "")
            heads[name] = (family.type, family.documentation)
            for sample in family.samples:
                # Histogram sums of the agent are made of bucket middles: wrong, so not passed on.
                if sample.name.endswith("_created") or (family.type == "histogram" and sample.name.endswith("_sum")):
                    continue
                labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k in OUR_LABELS))
                place = sample.name.removeprefix("ray_"), labels
                value = sums[name][place]
                sums[name][place] = max(value, sample.value) if name in LARGEST else value + sample.value
    lines: list[str] = []
    for name, samples in sorted(sums.items()):
        kind, documentation = heads[name]
        lines += [f"# HELP {name} {documentation}", f"# TYPE {name} {kind}"]
        for (sample, labels), value in samples.items():
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(f"{sample}{{{inside}}} {value!r}" if inside else f"{sample} {value!r}")
    return "\n".join(lines) + "\n"


def _ours(text: str) -> str:
    heads = tuple(f"# {word} {prefix}" for word in ("HELP", "TYPE") for prefix in PREFIXES)
    return "\n".join(line for line in text.splitlines() if line.startswith(PREFIXES + heads)) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
