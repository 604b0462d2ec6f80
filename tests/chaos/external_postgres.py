"""A PostgreSQL server of the distribution, with a database as docs ask an administrator to make it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from deployments.haproxy import free_port
from tests.support.programs import find


@contextmanager
def external_postgres(folder: Path) -> Iterator[tuple[str, str]]:
    """Addresses of one database: the product's, the superuser's."""
    folder.mkdir()
    folder.chmod(0o755)
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(folder, user)
    binaries, data, port = find("postgresql").parent, folder / "data", free_port()
    run: dict[str, Any] = {"user": user, "check": True, "capture_output": True}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"], **run)
    options = f"-p {port} -k {folder} -h 127.0.0.1"
    subprocess.run([binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], **run)
    try:
        asyncio.run(_prepare(f"postgres://postgres@127.0.0.1:{port}/postgres"))
        address = f"127.0.0.1:{port}/rustygpt"
        yield f"postgres://keeper@{address}", f"postgres://postgres@{address}"
    finally:
        subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **run)


async def _prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("create role keeper login createrole")
    await connection.execute("create database rustygpt owner keeper")
    await connection.close()
