"""A database for one measurement: a server of its own in a temporary folder, the product's schema, nothing left
afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil

from db.embedded import EmbeddedPostgres
from db.migrate import migrate
from db.pool import Database, Grant
from db.queries import load_queries
from load.client import LoadError

QUERIES = load_queries(Path(__file__).with_name("own_postgres.sql"))
START_SECONDS = 60.0
CONNECTIONS = 5  # of a replica, by default


class OwnPostgres:
    """The embedded server, or the one whose programs are in `programs`; migrated inside the `async with`.

    The server's settings are its defaults, as the product runs the embedded one.
    """

    def __init__(self, programs: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rustygpt-database-"))
        # The server may run as another user, who must reach its folder.
        self._folder.chmod(0o711)
        self._programs = programs
        self._embedded = EmbeddedPostgres(self._folder / "data") if programs is None else None
        self._server: psutil.Process | None = None
        self._connection: asyncpg.Connection | None = None
        self._addresses: dict[str, str] = {}
        self._databases: list[Database] = []

    async def __aenter__(self) -> Self:
        try:
            dsn = self._embedded.start() if self._embedded else self._start()
            self._server = psutil.Process(int((self._folder / "data" / "postmaster.pid").read_text().split("\n")[0]))
            self._connection = await self._connect(dsn)
            self._addresses = await migrate(dsn)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for database in self._databases:
            await database.close()
        if self._connection:
            self._connection.terminate()
        if self._embedded:
            self._embedded.stop()
        elif self._server:
            self._server.terminate()
            self._server.wait(START_SECONDS)
        shutil.rmtree(self._folder)

    def _start(self) -> str:
        """As `db.embedded` does it: a socket in the folder, no address, everybody on this machine let in."""
        assert self._programs
        data = self._folder / "data"
        data.mkdir()
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(data, user)
        as_user: dict[str, Any] = {"user": user, "cwd": data, "stdout": subprocess.DEVNULL}
        initdb = [self._programs / "initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", data]
        subprocess.run(initdb, check=True, **as_user)
        server = [self._programs / "postgres", "-D", data, "-k", data, "-h", ""]
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(server, stderr=log, start_new_session=True, **as_user)
        deadline = time.monotonic() + START_SECONDS
        while "ready to accept connections" not in (log_text := (self._folder / "log").read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise LoadError(f"PostgreSQL did not start:\n{log_text[-2000:]}")
            time.sleep(0.1)
        return f"postgresql://postgres:@/postgres?host={data}"

    @staticmethod
    async def _connect(dsn: str) -> asyncpg.Connection:
        return await asyncpg.connect(dsn, command_timeout=None)

    @property
    def admin(self) -> asyncpg.Connection:
        """The superuser's connection: it fills the database and reads counters."""
        assert self._connection
        return self._connection

    async def open(self, kind: str) -> Database:
        """A replica's pool, of the role `app` or `worker`."""
        database = await Database.connect(Grant(self._addresses[kind], CONNECTIONS))
        self._databases.append(database)
        return database

    async def version(self) -> str:
        """Of the server."""
        return await self.admin.fetchval(QUERIES["version"])

    async def written_transactions(self) -> int:
        """How many transactions have written something so far."""
        return await self.admin.fetchval(QUERIES["written_transactions"])

    def cpu_seconds(self) -> float:
        """Processor time of all processes of the server so far, also of those that have ended."""
        assert self._server
        times = self._server.cpu_times()
        used = times.user + times.system + times.children_user + times.children_system
        for child in self._server.children():
            times = child.cpu_times()
            used += times.user + times.system
        return used


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not pass (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
