"""A small part of `make chaos`, against the product that all tests share."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.chaos.chapter import play
from tests.chaos.client import Client, open_http
from tests.chaos.moves import MOVES
from tests.chaos.service import OneMachine
from tests.support.person import Person
from tests.support.product import Product

FEW = ("kill-model", "kill-streamer", "cut-database-connections")


async def test_every_promise_is_kept_while_processes_die(product: Product, admin: Person, postgres: str) -> None:
    service = OneMachine(product, postgres)
    folder = Path(tempfile.gettempdir()) / "rustygpt-chaos-tests"
    async with open_http() as http:
        client = Client(http, service.doors, "admin")
        await client.sign_in()
        result = await play(service, client, "few", [(name, MOVES[name]) for name in FEW], "tests", folder)
    assert result.violations == [], f"the history is in {folder}"
    assert set(result.recoveries) == set(FEW)
    assert result.turns > 0
    assert result.observations > result.events
