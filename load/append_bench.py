"""How text gets into the log: group commit alone, then its cost to the engine: `python -m load.append_bench --help`.

What is measured and how to read it: load/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import uvloop

from db.errors import DatabaseError
from load.client import LoadError
from load.database.append_path import AppendPath
from load.database.asked_questions import Asker
from load.database.durable_cost import CONCURRENCY, DurableCost, Wave
from load.database.own_postgres import OwnPostgres

TURNS = (1, 16, 64)
PACES = {"paced": 20.0, "flat out": None}
LIMIT = 0.9
PARTS = ("path", "engine")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    path_rounds: int
    path_seconds: float
    engine_rounds: int
    answer_tokens: int


FULL = Plan(path_rounds=5, path_seconds=3.0, engine_rounds=9, answer_tokens=128)
QUICK = Plan(path_rounds=1, path_seconds=1.5, engine_rounds=5, answer_tokens=64)


async def run(plan: Plan, parts: list[str], programs: Path | None) -> dict[str, Any]:
    """All figures, medians of the rounds."""
    async with OwnPostgres(programs) as postgres:
        worker, asker = await postgres.open("worker"), await Asker.enter(await postgres.open("app"))
        figures: dict[str, Any] = {"server": await postgres.version(), "cores": os.cpu_count()}
        if "path" in parts:
            figures["path"] = await _path(AppendPath(postgres, worker, asker), plan)
        if "engine" in parts:
            cost = DurableCost(postgres, worker, asker, plan.answer_tokens)
            figures["engine"] = _compared(await cost.measure(plan.engine_rounds, _say), plan.answer_tokens)
        return figures


async def _path(path: AppendPath, plan: Plan) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {f"{pace}, {turns}": [] for pace in PACES for turns in TURNS}
    for number in range(plan.path_rounds):
        _say(f"append path, round {number + 1}")
        for pace, rate in PACES.items():
            for turns in TURNS:
                rounds[f"{pace}, {turns}"].append(await path.measure(turns, rate, plan.path_seconds))
    return {
        case: {name: round(median(figures[name] for figures in measured), 4) for name in measured[0]}
        for case, measured in rounds.items()
    }


def _compared(pairs: list[tuple[Wave, Wave]], answer_tokens: int) -> dict[str, Any]:
    plain, durable = zip(*pairs, strict=True)
    ratios = [b.tokens_per_second / a.tokens_per_second for a, b in pairs]
    return {
        "concurrency": CONCURRENCY,
        "answer_tokens": answer_tokens,
        "plain_tokens_per_second": round(median(wave.tokens_per_second for wave in plain), 1),
        "durable": {name: round(median(getattr(wave, name) for wave in durable), 4) for name in asdict(durable[0])},
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    columns = {
        "appends/s": "appends_per_second",
        "events/s": "events_per_second",
        "tokens/s": "tokens_per_second",
        "trans./token": "transactions_per_token",
        "late p50 ms": "late_ms_p50",
        "late p99 ms": "late_ms_p99",
        "Postgres ms/1k": "postgres_ms_per_1000_tokens",
        "writer ms/1k": "writer_ms_per_1000_tokens",
    }
    lines: list[str] = []
    if path := figures.get("path"):
        lines.append(f"{'turns at once':<16}" + "".join(f"{title:>16}" for title in columns))
        for case, found in path.items():
            cells = (
                f"{found[n]:>16.4f}" if n == "transactions_per_token" else f"{found[n]:>16.1f}"
                for n in columns.values()
            )
            lines.append(f"{case:<16}" + "".join(cells))
    if engine := figures.get("engine"):
        durable = engine["durable"]
        lines.append(
            f"{CONCURRENCY} answers of {engine['answer_tokens']} tokens: plain {engine['plain_tokens_per_second']} "
            f"tokens/s, durable {durable['tokens_per_second']} tokens/s, ratio {engine['ratio']} (limit {LIMIT}); "
            f"{durable['appends_per_second']} appends/s, {durable['transactions_per_token']} transactions/token, "
            f"Postgres {durable['postgres_ms_per_1000_tokens']} ms/1k tokens"
        )
    return "\n".join(lines)


def faults(figures: dict[str, Any]) -> list[str]:
    """What does not hold."""
    found: list[str] = []
    for pace in PACES if "path" in figures else ():
        each = [figures["path"][f"{pace}, {turns}"]["transactions_per_token"] for turns in TURNS]
        if each != sorted(each, reverse=True):
            found.append(f"{pace}: transactions per token do not fall as concurrency rises: {each}")
    if "engine" in figures and figures["engine"]["ratio"] < LIMIT:
        found.append(f"durable turns have {figures['engine']['ratio']} of the engine's throughput, less than {LIMIT}")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints a table, then, as the last line, one JSON object. Fails when a limit is not kept."""
    parser = argparse.ArgumentParser(prog="python -m load.append_bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about a minute")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    parser.add_argument(
        "--programs", type=Path, help="folder of PostgreSQL's programs; without it the embedded server is measured"
    )
    arguments = parser.parse_args()
    busy = round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        measured = run(QUICK if arguments.quick else FULL, arguments.parts, arguments.programs)
        figures = uvloop.run(measured) | {"load_average_before": busy}
    except (LoadError, DatabaseError, AssertionError, asyncpg.PostgresError, OSError) as error:
        sys.exit(f"append_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(figures))
    print(json.dumps(figures))
    if missed := faults(figures):
        sys.exit("append_bench: " + "; ".join(missed))


if __name__ == "__main__":
    main()
