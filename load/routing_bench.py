"""Routing by prefix beside Serve's own, in one run: `python -m load.routing_bench --help`.

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
import tempfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
import yaml

from deployments.config import bundled_model_file
from deployments.model.engine import Tunings
from deployments.model.engine.model_file import load_model
from deployments.model.engine.vocabulary import Vocabulary
from load.chat_client import Answer, ChatClient
from load.chat_workloads import ChatPrompts
from load.client import Client, LoadError
from load.completion_client import SAMPLED
from load.own_product import OwnProduct
from load.replica_loads import ReplicaLoads, over_mean

ROOT = Path(__file__).parents[1]
SIDES = ("prefix", "random")
SYSTEM_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 200, 60, 32
SETTINGS = {"N_THREADS": 1, "MAX_SLOTS": 6, "MAX_SEQUENCE_TOKENS": 1024, "PREFIX_CACHE_BYTES": 64 << 20}


@dataclass(frozen=True)
class Plan:
    """Each round is a session of so many people, for both sides."""

    rounds: int
    people: int
    turns: int
    replicas: int = 3


FULL = Plan(rounds=4, people=18, turns=5)
QUICK = Plan(rounds=1, people=12, turns=3)


@dataclass
class Side:
    """One kind of routing, round by round."""

    hit_rates: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    loads_over_mean: list[float] = field(default_factory=list)
    tokens_per_second: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Medians."""
        return {
            "hit_rate": round(median(self.hit_rates), 3),
            "ttft_p50_seconds": round(median(self.first_tokens), 3),
            "load_over_mean": round(median(self.loads_over_mean), 2),
            "tokens_per_second": round(median(self.tokens_per_second), 1),
        }


class Bench:
    """One run against a running product that has the models `prefix` and `random`. They take turns."""

    def __init__(self, product: OwnProduct, key: str, plan: Plan) -> None:
        self._plan = plan
        self._prompts = ChatPrompts(Vocabulary(load_model(bundled_model_file(), 0)).tokenize, 5)
        self._clients = {side: ChatClient(product.url, side, key) for side in SIDES}
        self._loads = ReplicaLoads(product.process)

    async def run(self) -> dict[str, Side]:
        """All rounds."""
        sides = {side: Side() for side in SIDES}
        for client in self._clients.values():
            await asyncio.gather(*(client.stream(asked, 8, SAMPLED) for asked in self._prompts.short(12)))
        for number in range(self._plan.rounds):
            for name in SIDES if number % 2 == 0 else reversed(SIDES):
                await self._round(name, sides[name])
                _say(f"round {number + 1}, {name}: {json.dumps(sides[name].summary())}")
        return sides

    async def _round(self, name: str, side: Side) -> None:
        ended = asyncio.Event()
        watching = asyncio.create_task(self._loads.watch(f"model-{name}", ended))
        answers = await self._session(self._clients[name])
        ended.set()
        seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
        side.hit_rates.append(sum(a.cached_tokens for a in answers) / sum(a.prompt_tokens for a in answers))
        side.first_tokens.append(median(answer.first_token_seconds for answer in answers))
        side.tokens_per_second.append(sum(answer.tokens for answer in answers) / seconds)
        side.loads_over_mean.append(over_mean(await watching))

    async def _session(self, client: ChatClient) -> list[Answer]:
        """People with the same system message, each in a chat of their own that grows by turns."""
        system = self._prompts.system(SYSTEM_TOKENS)

        async def person() -> list[Answer]:
            history, answers = [system], list[Answer]()
            for _ in range(self._plan.turns):
                history.append(self._prompts.user(QUESTION_TOKENS))
                answers.append(await client.stream(history, ANSWER_TOKENS, SAMPLED))
                history.append(self._prompts.assistant(ANSWER_TOKENS))
            return answers

        return [a for answers in await asyncio.gather(*(person() for _ in range(self._plan.people))) for a in answers]


def serve_config(replicas: int) -> dict[str, Any]:
    """The product's own, with several replicas of each model; `random` has Serve's own routing: two at random, of them
    the less loaded."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    pattern = next(a for a in config["applications"] if a["name"] == "model-default")
    models = []
    for side in SIDES:
        model = deepcopy(pattern) | {"name": f"model-{side}", "args": {"model": side}}
        model["deployments"][0]["num_replicas"] = replicas
        if side == "random":
            del model["deployments"][0]["request_router_config"]
        models.append(model)
    others = [a for a in config["applications"] if not a["name"].startswith("model-")]
    return config | {"applications": [*models, *others]}


def _measure(plan: Plan) -> dict[str, Side]:
    Tunings(Path(tempfile.gettempdir()) / "rustygpt-tuning").obtain(bundled_model_file(), "as_is")
    settings = {f"LLM__MODELS__{side}__{name}": str(value) for side in SIDES for name, value in SETTINGS.items()}
    settings |= {f"LLM__MODELS__{side}__WEIGHTS": "as_is" for side in SIDES} | {"LLM__DEFAULT_MODEL": SIDES[0]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        yaml.safe_dump(serve_config(plan.replicas), config)
        config.flush()
        settings["CLUSTER__SERVE_CONFIG"] = config.name
        with OwnProduct(**{f"RUSTYGPT__{name}": value for name, value in settings.items()}) as product:
            admin = Client(product.url)
            admin.enter_as_admin("bench", secrets.token_urlsafe())
            return uvloop.run(Bench(product, admin.create_key("bench"), plan).run())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints a table, then, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m load.routing_bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    arguments = parser.parse_args()
    busy = round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sides = _measure(QUICK if arguments.quick else FULL)
    except (LoadError, OSError) as error:
        sys.exit(f"routing_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    found = {name: side.summary() for name, side in sides.items()}
    print(f"{'':<8}{'hit rate':>10}{'first token':>13}{'load over mean':>16}{'tokens/s':>10}")
    for name, row in found.items():
        first = f"{1000 * row['ttft_p50_seconds']:>10.0f} ms"
        print(
            f"{name:<8}{row['hit_rate']:>10.2f}{first}{row['load_over_mean']:>16.2f}{row['tokens_per_second']:>10.1f}"
        )
    ratio = found["prefix"]["ttft_p50_seconds"] / found["random"]["ttft_p50_seconds"]
    rounds = {name: vars(side) for name, side in sides.items()}
    print(json.dumps(found | {"ttft_p50_ratio": round(ratio, 3), "load_average_before": busy, "rounds": rounds}))


if __name__ == "__main__":
    main()
