"""The engine beside llama.cpp's own server and batch loop, in one run: `python -m load.engine_bench --help`.

What is measured and how to read it: load/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from deployments.config import bundled_model_file
from deployments.model.engine import EngineOptions, Tunings
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.model_file import load_model
from deployments.model.engine.vocabulary import Vocabulary
from load.client import LoadError
from load.completion_client import GREEDY, SAMPLED, CompletionClient
from load.engine_figures import Wave, compared, long_prompt_ratio, summary, table
from load.rivals import batched_bench, engine_server, llama_server
from load.sessions import SESSION_TOKENS, SLOTS, session_rate
from load.workloads import Prompts

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
ANSWER_TOKENS = 64
SEQUENCE_TOKENS = 1024
SIDES = ("rival", "same", "auto")
Clients = dict[str, CompletionClient]


@dataclass(frozen=True)
class Plan:
    """Rounds of each kind; odd ones sample, even ones are greedy."""

    rounds: int
    shared_rounds: int
    shared_concurrencies: tuple[int, ...]
    concurrencies: tuple[int, ...] = CONCURRENCIES


FULL = Plan(rounds=4, shared_rounds=3, shared_concurrencies=(8, 32))
QUICK = Plan(rounds=1, shared_rounds=1, shared_concurrencies=(32,))


class Bench:
    """One run over all concurrencies. Never do two sides compute at once."""

    def __init__(self, folder: Path, given: Path, plan: Plan) -> None:
        self._folder = folder
        self._given = given
        self._plan = plan
        self._threads = usable_cores()
        self._tuning = Tunings(Path(tempfile.gettempdir()) / "rustygpt-tuning").obtain(given, "auto")
        self._tokenize = Vocabulary(load_model(given, 0)).tokenize

    async def run(self) -> dict[str, Any]:
        """All figures."""
        by_concurrency: dict[str, Any] = {}
        for concurrency in self._plan.concurrencies:
            by_concurrency[str(concurrency)] = await self._at(concurrency)
            _say(f"{concurrency}: {json.dumps(by_concurrency[str(concurrency)]['ratios'])}")
        sessions, long_prompt = await self._sessions(), await self._long_prompt()
        return {
            "weights": self._tuning.format,
            "tuning": self._tuning.measured.get("weights"),
            "at": by_concurrency,
            "sessions": sessions,
            "long_prompt_itl_p99": long_prompt,
        }

    @contextmanager
    def _servers(self, slots: int, sequence_tokens: int) -> Iterator[Clients]:
        options = {"max_slots": slots, "max_sequence_tokens": sequence_tokens}
        tuned = asdict(self._tuning.applied(EngineOptions(max_slots=slots, max_sequence_tokens=sequence_tokens)))
        with ExitStack() as stack:
            servers = {
                "rival": llama_server(self._folder, self._given, slots, sequence_tokens, self._threads),
                "same": engine_server(self._given, options),
                "auto": engine_server(self._tuning.model_file(self._given), tuned, self._tuning.wait_policy),
            }
            yield {side: CompletionClient(stack.enter_context(server).url) for side, server in servers.items()}

    async def _at(self, concurrency: int) -> dict[str, Any]:
        prompts = Prompts(self._tokenize, concurrency)
        bounds: list[float] = []
        waves: dict[str, dict[str, list[Wave]]] = {kind: {side: [] for side in SIDES} for kind in ("short", "shared")}
        shared_rounds = self._plan.shared_rounds if concurrency in self._plan.shared_concurrencies else 0
        with self._servers(concurrency, SEQUENCE_TOKENS) as clients:
            await _warm_up(clients, prompts.short(min(8, concurrency)))
            for number in range(self._plan.rounds):
                bounds.append(batched_bench(self._folder, self._given, concurrency, self._threads))
                await self._round(waves["short"], clients, lambda: prompts.short(concurrency), number)
            before = await clients["same"].stats()
            for number in range(shared_rounds):
                await self._round(waves["shared"], clients, lambda: prompts.shared(concurrency), number)
        return compared(waves, bounds, before)

    async def _round(
        self, waves: dict[str, list[Wave]], clients: Clients, prompts: Callable[[], list[Any]], number: int
    ) -> None:
        """All sides, one after another, in an order that turns."""
        turn = number % len(SIDES)
        for side in (*SIDES[turn:], *SIDES[:turn]):
            sampling = SAMPLED if number % 2 else GREEDY
            streams = await asyncio.gather(
                *(clients[side].stream(prompt, ANSWER_TOKENS, sampling, str(i)) for i, prompt in enumerate(prompts()))
            )
            waves[side].append(Wave.of(streams))

    async def _sessions(self) -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        with self._servers(SLOTS, SESSION_TOKENS) as clients:
            prompts = Prompts(self._tokenize, 77)
            await _warm_up(clients, prompts.short(8))
            for number in range(min(3, self._plan.rounds)):
                for side in SIDES:
                    rates[side].append(await session_rate(clients[side], prompts, number))
        _say(f"sessions: {json.dumps({side: round(median(values), 1) for side, values in rates.items()})}")
        return rates

    async def _long_prompt(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"same": [], "auto": []}
        with self._servers(9, 5120) as clients:
            prompts = Prompts(self._tokenize, 99)
            await _warm_up(clients, prompts.short(8))
            for _ in range(min(3, self._plan.rounds)):
                for side, ratios in found.items():
                    ratios.append(await long_prompt_ratio(clients[side], prompts))
        _say(f"long prompt: {json.dumps(found)}")
        return found


async def _warm_up(clients: Clients, prompts: list[Any]) -> None:
    """One wave: the engine learns how long its steps take."""
    for client in clients.values():
        await client.wait_until_ready()
        await asyncio.gather(*(client.stream(prompt, ANSWER_TOKENS, SAMPLED) for prompt in prompts))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints a table, then, as the last line, one JSON object with the ratios."""
    parser = argparse.ArgumentParser(prog="python -m load.engine_bench", description=__doc__)
    parser.add_argument("--rivals", type=Path, required=True, help="the folder that load/build_rivals.sh has filled")
    parser.add_argument("--model", type=Path, default=None, help="a .gguf file; the bundled model by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about five minutes")
    parser.add_argument("--concurrency", type=int, nargs="+", choices=CONCURRENCIES, help="only these")
    parser.add_argument("--details", type=Path, default=None, help="a file for all figures as JSON")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.concurrency:
        plan = Plan(plan.rounds, plan.shared_rounds, plan.shared_concurrencies, tuple(arguments.concurrency))
    busy = round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bench = Bench(arguments.rivals, arguments.model or bundled_model_file(), plan)
        figures = uvloop.run(bench.run()) | {"load_average_before": busy}
    except (LoadError, OSError) as error:
        sys.exit(f"engine_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if arguments.details:
        arguments.details.write_text(json.dumps(figures, indent=1))
    print(table(figures))
    print(json.dumps(summary(figures)))


if __name__ == "__main__":
    main()
