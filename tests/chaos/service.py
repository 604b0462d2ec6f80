"""The service under fire: where its doors are, which processes it has, how it is stopped and started."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from tests.chaos.waiting import until
from tests.support.product import Product

FIND_SECONDS = 60.0


class Service(Protocol):
    """What moves and clients need to know of it."""

    database_url: str
    """Of the superuser: for the checker, and for moves that need the database's own words."""

    @property
    def doors(self) -> Sequence[str]:
        """Addresses at which it answers."""
        ...

    def find(self, part: str) -> list[psutil.Process]:
        """Processes of a part: one of ACTORS, "proxy" (the one that takes new connections first) or "database" (the
        postmaster first)."""
        ...

    def restart(self) -> None:
        """Stops it as an operator does, and starts it again. Returns when it is ready."""
        ...


# Words in the titles of the processes of Ray. Besides them: "proxy", which is HAProxy itself, and "database".
ACTORS: dict[str, tuple[str, ...]] = {
    "model": ("ServeReplica:", ":Model"),
    "gateway": ("ServeReplica:", ":Gateway"),
    "streamer": ("ServeReplica:", ":Streamer"),
    "access-actor": ("PostgresAccess",),
    "controller": ("ServeController",),
    "proxy-manager": ("HAProxyManager",),
}


class OneMachine:
    """`rustygpt serve` with its embedded database."""

    def __init__(self, product: Product, database_url: str, libraries: Path | None = None) -> None:
        self.database_url = database_url
        self.libraries = libraries
        """Its own copy of llama.cpp's, for who breaks them; None: it has those that are installed."""
        self._product = product

    @property
    def doors(self) -> Sequence[str]:
        """One."""
        return (self._product.url,)

    def find(self, part: str) -> list[psutil.Process]:
        """See Service."""
        if part == "database":
            return self._product.database_processes()
        if part == "proxy":
            return self._product.haproxies()
        return self._product.actors(*ACTORS[part])

    def restart(self) -> None:
        """Ctrl-C, and `rustygpt serve` again."""
        self._product.interrupt()
        self._product.start()


async def find_one(service: Service, part: str, rng: random.Random) -> psutil.Process:
    """A process of a part, once there is one; of several, any, but of the proxy and the database the first."""
    found = await find_all(service, part)
    return found[0] if part in ("proxy", "database") else rng.choice(found)


async def find_all(service: Service, part: str) -> list[psutil.Process]:
    """All processes of a part, once there is one."""
    async with asyncio.timeout(FIND_SECONDS):
        return await until(lambda: asyncio.to_thread(service.find, part))


def send(process: psutil.Process, number: signal.Signals) -> None:
    """A signal, to whatever of it is still there."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(process.pid, number)
