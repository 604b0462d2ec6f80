"""The API of the whole product beside llama.cpp's own server and LiteLLM's proxy, in one run:
`python -m load.api_bench --help`.

What is measured and how to read it: load/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from deployments.config import bundled_model_file
from deployments.model.engine import Tunings
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.model_file import load_model
from deployments.model.engine.vocabulary import Vocabulary
from load.api_figures import SIDES, compared, summary, table
from load.chat_client import ChatClient
from load.chat_session import SLOTS, session_rate
from load.chat_workloads import ChatPrompts
from load.client import Client, LoadError
from load.completion_client import GREEDY, SAMPLED, CompletionClient
from load.costs import cpu_seconds, product_groups
from load.engine_figures import Wave
from load.http_rate import requests_per_second
from load.own_product import OwnProduct
from load.rivals import LITELLM_KEY, LITELLM_MODEL, litellm_proxy, llama_server

CONCURRENCIES = (1, 8, 16, 32)
ANSWER_TOKENS = 64
SEQUENCE_TOKENS = 1024
CONNECTIONS = 16
# Short, and many in turns: what else the machine does changes within seconds.
HTTP_SECONDS = 1.0
# Limits are on and never reached.
NO_LIMIT = 10**9
# What is sent, by the request's number.
Body = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """Rounds of each kind, of one stream `single_rounds`, of sessions of so many chats, of requests without streams
    `http_rounds`; odd ones sample, even ones are greedy."""

    rounds: int
    single_rounds: int
    shared_rounds: int
    shared_concurrencies: tuple[int, ...]
    session_rounds: int
    session_chats: int
    http_rounds: int
    concurrencies: tuple[int, ...] = CONCURRENCIES


FULL = Plan(
    rounds=3,
    single_rounds=24,
    shared_rounds=2,
    shared_concurrencies=(8, 16, 32),
    session_rounds=2,
    session_chats=8,
    http_rounds=9,
)
QUICK = Plan(
    rounds=1,
    single_rounds=4,
    shared_rounds=1,
    shared_concurrencies=(8,),
    session_rounds=1,
    session_chats=4,
    http_rounds=5,
)


class Bench:
    """One run against a running product with the models `same` and `auto`. Never do two sides compute at once."""

    def __init__(self, folder: Path, given: Path, plan: Plan, product: OwnProduct, key: str) -> None:
        self._folder = folder
        self._given = given
        self._plan = plan
        self._product = product
        self._key = key
        self._threads = usable_cores()
        self._tokenize = Vocabulary(load_model(given, 0)).tokenize
        self._own = {side: ChatClient(product.url, side, key) for side in ("same", "auto")}
        self._idle_cpu: list[float] = []

    async def run(self) -> dict[str, Any]:
        """All figures."""
        at: dict[str, Any] = {}
        for concurrency in self._plan.concurrencies:
            at[str(concurrency)] = await self._at(concurrency)
            _say(f"{concurrency}: {json.dumps(at[str(concurrency)]['ratios'])}")
        sessions = await self._sessions()
        rates, one_token = await self._rates(), await self._one_token()
        return {
            "at": at,
            "sessions": sessions,
            "rates": rates,
            "one_token": one_token,
            "idle_product_cores": round(median(self._idle_cpu), 3),
        }

    async def _rival(self, stack: ExitStack, slots: int) -> ChatClient:
        server = stack.enter_context(llama_server(self._folder, self._given, slots, SEQUENCE_TOKENS, self._threads))
        await CompletionClient(server.url).wait_until_ready()
        return ChatClient(server.url, "rival")

    async def _at(self, concurrency: int) -> dict[str, Any]:
        prompts = ChatPrompts(self._tokenize, concurrency)
        waves: dict[str, dict[str, list[Wave]]] = {kind: {side: [] for side in SIDES} for kind in ("short", "shared")}
        shared_rounds = self._plan.shared_rounds if concurrency in self._plan.shared_concurrencies else 0
        with ExitStack() as stack:
            clients = self._own | {"rival": await self._rival(stack, concurrency)}
            for client in clients.values():
                await _wave(client, prompts.short(min(2, concurrency)), 0)
            # A wave of one stream takes a second; what else the machine does changes over several.
            for number in range(self._plan.single_rounds if concurrency == 1 else self._plan.rounds):
                for side in _turned(number):
                    waves["short"][side].append(await self._measured(side, clients, prompts.short(concurrency), number))
            for number in range(shared_rounds):
                for side in _turned(number):
                    asked = prompts.shared(concurrency)
                    waves["shared"][side].append(await self._measured(side, clients, asked, number))
        return compared(waves)

    async def _measured(self, side: str, clients: dict[str, ChatClient], asked: list[Any], number: int) -> Wave:
        """A wave, and, where it is the rival's, what the product takes from it meanwhile."""
        loop = asyncio.get_running_loop()
        groups = product_groups(self._product.process, self._product.home)
        processes = [process for group in groups.values() for process in group]
        used, began = cpu_seconds(processes), loop.time()
        wave = await _wave(clients[side], asked, number)
        if side == "rival":
            self._idle_cpu.append((cpu_seconds(processes) - used) / (loop.time() - began))
        return wave

    async def _sessions(self) -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        prompts = ChatPrompts(self._tokenize, 77)
        with ExitStack() as stack:
            clients = self._own | {"rival": await self._rival(stack, SLOTS)}
            await _wave(clients["rival"], prompts.short(2), 0)
            for number in range(self._plan.session_rounds):
                sampling = SAMPLED if number % 2 else GREEDY
                for side in _turned(number):
                    rate = await session_rate(clients[side], prompts, sampling, self._plan.session_chats)
                    rates[side].append(rate)
        _say(f"sessions: {json.dumps({side: round(median(values), 1) for side, values in rates.items()})}")
        return rates

    async def _rates(self) -> dict[str, list[float]]:
        """Requests per second of GET /v1/models with a key, and of /healthz."""
        found: dict[str, list[float]] = {"/healthz": [], "/v1/models": []}
        for _ in range(self._plan.http_rounds):
            for path, values in found.items():
                key = self._key if path.startswith("/v1") else None
                values.append(await self._rate(self._product.url, path, key))
        _say(f"requests per second: {json.dumps(found)}")
        return found

    async def _one_token(self) -> dict[str, dict[str, list[float]]]:
        """Answers of one token per second: the product, LiteLLM in front of llama-server, llama-server alone. To the
        same question again and again, whose prompt they have computed: what is around the model is measured. To new
        questions the model's part is added."""
        found: dict[str, dict[str, list[float]]] = {
            kind: {"product": [], "litellm": [], "rival": []} for kind in ("repeated", "new")
        }
        with ExitStack() as stack:
            rival = stack.enter_context(
                llama_server(self._folder, self._given, CONNECTIONS, SEQUENCE_TOKENS, self._threads)
            )
            config = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "litellm.yaml"
            proxy = stack.enter_context(litellm_proxy(self._folder, config, rival.url))
            await CompletionClient(rival.url).wait_until_ready()
            await CompletionClient(proxy.url).wait_until_ready(240, "/health/liveliness")
            targets = {
                "product": (self._product.url, "same", self._key),
                "litellm": (proxy.url, LITELLM_MODEL, LITELLM_KEY),
                "rival": (rival.url, "rival", None),
            }
            for number in range(1 + self._plan.http_rounds):
                for kind, sides in found.items():
                    for side, (url, model, key) in targets.items():
                        body = _question(model, f"{side} {number}, " if kind == "new" else None)
                        rate = await self._rate(url, "/v1/chat/completions", key, body)
                        # The first does not count: LiteLLM loads most of itself with its first requests.
                        sides[side] += [rate] if number else []
        _say(f"one token: {json.dumps(found)}")
        return found

    async def _rate(self, url: str, path: str, key: str | None, body: Body | None = None) -> float:
        return await asyncio.to_thread(requests_per_second, url, path, CONNECTIONS, HTTP_SECONDS, key=key, body=body)


def _question(model: str, mark: str | None) -> Body:
    """The same one for every request, or, with a mark, another one for each."""

    def body(number: int) -> dict[str, Any]:
        said = "Say hello." if mark is None else f"Say hello to number {mark}{number}."
        asked = [{"role": "user", "content": said}]
        return {"model": model, "max_tokens": 1, "temperature": 0, "messages": asked}

    return body


def _turned(number: int) -> tuple[str, ...]:
    """All sides, in an order that turns from round to round."""
    turn = number % len(SIDES)
    return (*SIDES[turn:], *SIDES[:turn])


async def _wave(client: ChatClient, asked: list[Any], number: int) -> Wave:
    sampling = SAMPLED if number % 2 else GREEDY
    return Wave.of(await asyncio.gather(*(client.stream(each, ANSWER_TOKENS, sampling) for each in asked)))


def _product(given: Path) -> OwnProduct:
    """Both ways to run the file as models of one product, its limits on."""
    settings = {"API__REQUESTS_PER_MINUTE": str(NO_LIMIT), "API__TOKENS_PER_MINUTE": str(NO_LIMIT)}
    for side, weights in (("same", "as_is"), ("auto", "auto")):
        model = {"PATH": given, "WEIGHTS": weights, "MAX_SLOTS": max(CONCURRENCIES)}
        model["MAX_SEQUENCE_TOKENS"] = SEQUENCE_TOKENS
        settings |= {f"LLM__MODELS__{side}__{name}": str(value) for name, value in model.items()}
        # Beforehand: it takes a minute, and the product's start has a limit.
        Tunings(Path(tempfile.gettempdir()) / "rustygpt-tuning").obtain(given, weights)
    settings["LLM__DEFAULT_MODEL"] = "auto"
    return OwnProduct(**{f"RUSTYGPT__{name}": value for name, value in settings.items()})


def _measure(folder: Path, given: Path, plan: Plan) -> dict[str, Any]:
    with _product(given) as product:
        admin = Client(product.url)
        admin.enter_as_admin("bench", secrets.token_urlsafe())
        return uvloop.run(Bench(folder, given, plan, product, admin.create_key("bench")).run())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints a table, then, as the last line, one JSON object with the ratios."""
    parser = argparse.ArgumentParser(prog="python -m load.api_bench", description=__doc__)
    parser.add_argument(
        "--rivals", type=Path, required=True, help="filled by load/build_rivals.sh and load/install_litellm.sh"
    )
    parser.add_argument("--model", type=Path, default=None, help="a .gguf file; the bundled model by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about five minutes")
    parser.add_argument("--concurrency", type=int, nargs="+", choices=CONCURRENCIES, help="only these")
    parser.add_argument("--details", type=Path, default=None, help="a file for all figures as JSON")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.concurrency:
        plan = dataclasses.replace(plan, concurrencies=tuple(arguments.concurrency))
    busy = round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures = _measure(arguments.rivals, arguments.model or bundled_model_file(), plan)
    except (LoadError, OSError) as error:
        sys.exit(f"api_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    figures["load_average_before"] = busy
    if arguments.details:
        arguments.details.write_text(json.dumps(figures, indent=1))
    print(table(figures))
    print(json.dumps(summary(figures)))


if __name__ == "__main__":
    main()
