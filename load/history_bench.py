"""Reads of long histories in a full database, each call timed and its plan's reads counted:
`python -m load.history_bench --help`.

What is measured and how to read it: load/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from db.errors import DatabaseError
from db.pool import Database
from db.queries import QUERIES as PRODUCT_QUERIES
from load.client import LoadError
from load.database.history_data import QUERIES, Shape, fill, sign_up
from load.database.history_reads import WARM_UP, Read, Reader, touched
from load.database.own_postgres import OwnPostgres, percentile

LONG = 10_000
LONG_LOG_DELTAS = 20
REPEATS = 300  # or as many as fit in so many seconds
MOST_SECONDS = 5.0
# Words of the data, by how often they come: see history.sql.
SEARCHES = {"a rare word": "w3990", "two words": "w700 w900", "the most common word": "w0"}


def shapes(messages: int) -> dict[str, Shape]:
    """Conversations of `messages` messages in all: long ones, ordinary ones of the reader, and the rest, of others."""
    ordinary = Shape(count=messages // 2500, threads=20, messages=10, branch=6, deltas=2)
    long = {
        "branches": Shape(count=1, threads=1, messages=LONG, branch=100, deltas=LONG_LOG_DELTAS),
        "line": Shape(count=1, threads=1, messages=LONG, branch=LONG),
        "threads": Shape(count=1, threads=LONG // 20, messages=20, branch=8),
    }
    rest = messages - sum(s.count * s.threads * s.messages for s in (*long.values(), ordinary))
    others = Shape(count=rest // 200, threads=20, messages=10, branch=6, is_readers=False)
    return {**long, "ordinary": ordinary, "others": others}


class Bench:
    """One run."""

    def __init__(self, postgres: OwnPostgres, messages: int, repeats: int, plans: Path | None) -> None:
        self._postgres = postgres
        self._shapes = shapes(messages)
        self._repeats = repeats
        self._plans = plans

    async def run(self) -> dict[str, Any]:
        """All figures. Raises LoadError when a call reads a growing table from end to end."""
        admin, app = self._postgres.admin, await self._postgres.open("app")
        reader, *others = await sign_up(app, ("reader", "ben", "eve"))
        began = time.perf_counter()
        made = await fill(admin, reader, (others[0], others[1]), self._shapes)
        filled_seconds = time.perf_counter() - began
        _say(f"filled in {filled_seconds:.0f} s")
        figures = {read.name: await self._measure(app, read) for read in await self._reads(admin, app, reader, made)}
        return {
            "server": await self._postgres.version(),
            "messages": sum(s.count * s.threads * s.messages for s in self._shapes.values()),
            "filled_seconds": round(filled_seconds, 1),
            "repeats": self._repeats,
            "calls": figures,
        }

    async def _reads(
        self, admin: asyncpg.Connection, app: Database, person: Any, made: dict[str, list[Any]]
    ) -> list[Read]:
        reader = Reader(admin, app, person, LONG)
        sample = made["ordinary"][::4]
        return [
            *await reader.tree("10,000 messages in branches", made["branches"][0]),
            *await reader.tree("10,000 messages in a line", made["line"][0]),
            await reader.trees("ordinary threads", sample),
            *await reader.thread_pages("500 threads", made["threads"][0]),
            reader.threads("one of 10,000 messages", made["branches"]),
            reader.threads("ordinary conversations", sample),
            *await reader.conversation_pages(),
            reader.unread("500 threads", made["threads"]),
            reader.unread("ordinary conversations", sample),
            *reader.search(SEARCHES),
            *reader.log(made["branches"][0], LONG // 2 * (LONG_LOG_DELTAS + 1)),
        ]

    async def _measure(self, app: Database, read: Read) -> dict[str, Any]:
        seconds: list[float] = []
        sizes: list[int] = []
        ends = time.perf_counter() + MOST_SECONDS
        for number in range(-WARM_UP, self._repeats):
            if number > 0 and time.perf_counter() > ends:
                break
            args = read.arguments[number % len(read.arguments)]
            began = time.perf_counter()
            answer = await app.rows(read.query, *args)
            if number >= 0:
                seconds.append(time.perf_counter() - began)
                sizes.append(sum(len(str(value)) for row in answer for value in row))
        counted = await touched(self._postgres.admin, read)
        if self._plans:
            await self._show(read, self._plans)
        return {
            "p50_ms": round(percentile(seconds, 0.5) * 1000, 2),
            "p99_ms": round(percentile(seconds, 0.99) * 1000, 2),
            "times": len(seconds),
            "characters": round(sum(sizes) / len(sizes)),
            "rows_read": counted.rows,
            "whole_scans": counted.whole_scans,
        }

    async def _show(self, read: Read, file: Path) -> None:
        """Appends the plans of all statements of one call, nested ones included; those that are alike once."""
        admin, plans = self._postgres.admin, dict[str, str]()

        def note(_: object, message: Any) -> None:
            plan = message.message.partition("plan:\n")[2]
            plans.setdefault(re.sub(r"[\d.]+", "", plan), plan)

        await admin.fetch(QUERIES["show_plans"])
        admin.add_log_listener(note)
        await admin.fetch(PRODUCT_QUERIES[read.query], *read.arguments[0])
        await asyncio.sleep(0)  # listeners are called by the loop
        admin.remove_log_listener(note)
        await admin.fetch(QUERIES["hide_plans"])
        with file.open("a") as out:
            out.write(f"\n\n== {read.name}\n\n" + "\n\n".join(plans.values()))


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'call':<56}{'p50 ms':>9}{'p99 ms':>9}{'characters':>12}{'rows read':>11}"]
    for name, call in figures["calls"].items():
        times = f"{call['p50_ms']:>9.2f}{call['p99_ms']:>9.2f}"
        lines.append(f"{name:<56}{times}{call['characters']:>12,}{call['rows_read']:>11,}")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    async with OwnPostgres(arguments.programs) as postgres:
        if arguments.plans:
            arguments.plans.write_text("")
            await postgres.admin.execute(QUERIES["load_auto_explain"])
        messages, repeats = (100_000, 50) if arguments.quick else (1_000_000, REPEATS)
        return await Bench(postgres, messages, repeats, arguments.plans).run()


def main() -> None:
    """Prints a table, then, as the last line, one JSON object. Fails when a call scanned a growing table."""
    parser = argparse.ArgumentParser(prog="python -m load.history_bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 messages and fewer calls: under a minute")
    parser.add_argument(
        "--programs", type=Path, help="folder of PostgreSQL's programs; without it the embedded server is measured"
    )
    parser.add_argument(
        "--plans", type=Path, help="a file for the plans of every statement; the server needs the module auto_explain"
    )
    arguments = parser.parse_args()
    busy = round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures: dict[str, Any] = uvloop.run(_run(arguments)) | {"load_average_before": busy}
    except (LoadError, DatabaseError, asyncpg.PostgresError, OSError) as error:
        sys.exit(f"history_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(figures))
    print(json.dumps(figures))
    if scanned := [name for name, call in figures["calls"].items() if call["whole_scans"]]:
        sys.exit(f"history_bench: these calls scan messages or events: {', '.join(scanned)}")


if __name__ == "__main__":
    main()
