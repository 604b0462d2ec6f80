"""Where the time of a request to the API goes, layer by layer: `python -m load.profile_api`.

What is measured and how to read it: docs/performance.md.
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
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import aiohttp
import psutil
import uvloop

from deployments.config import bundled_model_file
from deployments.model.engine.model_file import load_model
from deployments.model.engine.vocabulary import Vocabulary
from load.chat_client import ChatClient
from load.chat_workloads import ChatPrompts
from load.client import Client, LoadError
from load.completion_client import SAMPLED
from load.costs import cpu_seconds, product_groups
from load.layers import GATEWAY, MODEL, Sampler
from load.own_product import OwnProduct

STREAMS, STREAM_TOKENS = 16, 64
QUESTION = [{"role": "user", "content": "Say hello."}]
LIMITS = {f"RUSTYGPT__API__{name}": str(10**9) for name in ("REQUESTS_PER_MINUTE", "TOKENS_PER_MINUTE")}
ROUNDS = 100

Ask = Callable[[], Awaitable[None]]


class Profile:
    """One running product, and one client that it has for itself."""

    def __init__(self, product: OwnProduct, key: str) -> None:
        self._product = product
        self._headers = {"Authorization": f"Bearer {key}"}
        self._chat = ChatClient(product.url, "default", key)
        self._prompts = ChatPrompts(Vocabulary(load_model(bundled_model_file(), 0)).tokenize, 3)

    async def run(self, seconds: int) -> dict[str, Any]:
        """All figures."""
        await self._streams(1)
        return {"milliseconds": await self._ladder(), "streams": await self._processor_time(seconds)}

    async def _ladder(self) -> dict[str, float]:
        """Milliseconds of one request after another, median; each goes further into the product than those above it.
        They take turns, so that a disturbance meets all."""
        gateway = await self._gateway_address()
        chat = {"model": "default", "messages": QUESTION, "temperature": 0}
        async with aiohttp.ClientSession() as session:

            def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Ask:
                async def once() -> None:
                    method = "GET" if body is None else "POST"
                    async with session.request(method, url + path, json=body, headers=self._headers) as answer:
                        await answer.read()
                        if answer.status != 200:
                            raise LoadError(f"{method} {path}: {answer.status} {(await answer.text())[:300]}")

                return once

            whole = self._product.url
            asks = {
                "Gateway alone: /healthz": ask(gateway, "/healthz"),
                "+ HAProxy": ask(whole, "/healthz"),
                "+ API key and limits: /v1/models": ask(whole, "/v1/models"),
                "+ validation, Serve handle, template, tokens: /v1/tokenize": ask(
                    whole, "/v1/tokenize", {"model": "default", "messages": QUESTION}
                ),
                "+ stream of the handle, one token: /v1/chat/completions": ask(
                    whole, "/v1/chat/completions", chat | {"max_tokens": 1}
                ),
                "+ 15 tokens more": ask(whole, "/v1/chat/completions", chat | {"max_tokens": 16, "ignore_eos": True}),
            }
            times: dict[str, list[float]] = {name: [] for name in asks}
            for number in range(ROUNDS + 10):
                for name, once in asks.items():
                    began = time.perf_counter()
                    await once()
                    if number >= 10:
                        times[name].append(time.perf_counter() - began)
        return {name: round(1000 * median(values), 2) for name, values in times.items()}

    async def _gateway_address(self) -> str:
        """Where the Gateway's replica itself listens."""
        [replica] = self._replicas("gateway:Gateway")
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            for connection in replica.net_connections("inet"):
                address = f"http://127.0.0.1:{connection.laddr.port}"
                if connection.status != psutil.CONN_LISTEN:
                    continue
                try:
                    async with session.get(f"{address}/healthz") as answer:
                        if answer.status == 200:
                            return address
                except (aiohttp.ClientError, TimeoutError):
                    continue  # its port for gRPC
        raise LoadError("the Gateway's own port was not found")

    def _replicas(self, name: str) -> list[psutil.Process]:
        children = self._product.process.children(recursive=True)
        return [child for child in children if f"ServeReplica:{name}" in " ".join(child.cmdline())]

    async def _processor_time(self, seconds: int) -> dict[str, Any]:
        """Under streams that follow each other without a pause: milliseconds of processor time that each process takes
        for 1,000 tokens, and what the Gateway and the Model replica spend theirs on."""
        groups = product_groups(self._product.process, self._product.home)
        models = self._replicas("model-default:Model")
        groups["model"] = models
        groups["other"] = [process for process in groups["other"] if process not in models]
        groups["this client"] = [psutil.Process(os.getpid())]
        samplers = {
            "gateway": (Sampler(self._replicas("gateway:Gateway")[0].pid, seconds), GATEWAY),
            "model": (Sampler(models[0].pid, seconds), MODEL),
        }
        tokens = await self._streams(2)  # the sizes of batches are learnt
        used = {name: cpu_seconds(processes) for name, processes in groups.items()}
        began = time.perf_counter()
        tokens = await self._streams(seconds)
        wall = time.perf_counter() - began
        spent = {name: cpu_seconds(processes) - used[name] for name, processes in groups.items()}
        for sampler, _ in samplers.values():
            sampler.start()
        await self._streams(seconds + 3)
        return {
            "tokens_per_second": round(tokens / wall, 1),
            "milliseconds_for_1000_tokens": {name: round(1e6 * cpu / tokens, 1) for name, cpu in spent.items()},
            "layers": {name: sampler.shares(rules) for name, (sampler, rules) in samplers.items()},
        }

    async def _streams(self, seconds: int) -> int:
        """Tokens of the streams that ended; those that run when the time is over are waited for."""
        ends = time.perf_counter() + seconds

        async def one_after_another() -> int:
            tokens = 0
            while time.perf_counter() < ends:
                asked = self._prompts.short(1)[0]
                tokens += (await self._chat.stream(asked, STREAM_TOKENS, SAMPLED)).tokens
            return tokens

        return sum(await asyncio.gather(*(one_after_another() for _ in range(STREAMS))))


def main() -> None:
    """Prints tables, then, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m load.profile_api", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of streams")
    arguments = parser.parse_args()
    busy = round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with OwnProduct(**LIMITS) as product:
            admin = Client(product.url)
            admin.enter_as_admin("bench", secrets.token_urlsafe())
            found = uvloop.run(Profile(product, admin.create_key("profile")).run(arguments.seconds))
    except (LoadError, OSError) as error:
        sys.exit(f"profile_api: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    before = 0.0
    for name, value in found["milliseconds"].items():
        print(f"{name:<62}{value:>8.2f} ms{value - before:>+8.2f}")
        before = value
    for name, value in found["streams"]["milliseconds_for_1000_tokens"].items():
        print(f"{name:<14}{value:>8.1f} ms of processor time for 1,000 tokens")
    for name, shares in found["streams"]["layers"].items():
        print(f"{name}: " + ", ".join(f"{layer} {100 * share:.0f} %" for layer, share in shares.items()))
    print(json.dumps(found | {"load_average_before": busy}))


if __name__ == "__main__":
    main()
