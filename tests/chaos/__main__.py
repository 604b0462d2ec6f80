"""`python -m tests.chaos`: the whole plan, or a part of it.

The last line is the result; the exit status is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.broken_model import broken_model
from tests.chaos.chapter import play
from tests.chaos.client import Client, open_http
from tests.chaos.figures import Figures
from tests.chaos.moves import MOVES, Move, mixed, pause_writing_model
from tests.chaos.service import Service
from tests.chaos.setups import one_machine, own_libraries, three_nodes, two_models
from tests.chaos.three_nodes import kill_node

SETUPS = {
    "one-machine": one_machine,
    "own-libraries": own_libraries,
    "two-models": two_models,
    "three-nodes": three_nodes,
}
# By set-up, in the order of the long plan.
PLAN: dict[str, dict[str, Move]] = {
    "one-machine": MOVES | {"mixed": mixed()},
    "own-libraries": {"broken-model": broken_model},
    "two-models": {"pause-writing-model": pause_writing_model},
    "three-nodes": {"kill-node": kill_node},
}
TIMES = 20


def main() -> int:
    """Runs what the command line says."""
    names = [name for moves in PLAN.values() for name in moves]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every move once, in about five minutes")
    parser.add_argument("--moves", default=",".join(names), help="only these, separated by commas")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="what the random choices follow from")
    parser.add_argument("--into", type=Path, help="a file with results: they count, and new ones are added")
    arguments = parser.parse_args()
    chosen = arguments.moves.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"no such move: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    dumps = Path(tempfile.gettempdir()) / f"rustygpt-chaos-{arguments.seed}"
    print(f"seed {arguments.seed}", file=sys.stderr)
    figures = Figures(arguments.into)
    for setup, moves in PLAN.items():
        left = {n: m for n, m in moves.items() if n in chosen and figures.times(n) < arguments.times}
        if left:
            with SETUPS[setup]() as service:
                chapters = _chapters(setup, left, arguments, figures)
                asyncio.run(_run(service, chapters, arguments.seed, figures, dumps))
    print(json.dumps(figures.summary()))
    return 1 if figures.violations else 0


Strikes = list[tuple[str, Move]]


def _chapters(
    setup: str, moves: dict[str, Move], arguments: argparse.Namespace, figures: Figures
) -> dict[str, Strikes]:
    """One chapter for each move; in the quick plan, one for all moves of a set-up."""
    if arguments.quick:
        return {setup: list(moves.items())}
    return {name: [(name, move)] * (arguments.times - figures.times(name)) for name, move in moves.items()}


async def _run(service: Service, chapters: dict[str, Strikes], seed: str, figures: Figures, dumps: Path) -> None:
    async with open_http() as http:
        admin = Client(http, service.doors, "admin")
        await admin.sign_in()
        for name, strikes in chapters.items():
            result = await play(service, admin, name, strikes, seed, dumps)
            figures.add(result)
            for violation in result.violations:
                print(f"{name}: {violation.kind}: {violation.where}", file=sys.stderr)
            if result.violations:
                print(f"the history is in {dumps / name}.jsonl; seed {seed}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
