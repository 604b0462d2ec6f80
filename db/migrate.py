"""Brings a database to this version's schema, once, however many processes try at a time."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from db.errors import CONNECTION_ERRORS, DatabaseSetupError, DatabaseUnavailable
from db.queries import QUERIES

FOLDER = Path(__file__).parent
OLDEST_SERVER = 150000


async def migrate(dsn: str) -> dict[str, str]:
    """Applies what is missing and returns the addresses of the login roles: {"app": …, "worker": …}.

    Schema files run once, in order; one that changed after it was applied is refused. Function files run
    again whenever one of them changed. An advisory lock makes concurrent callers take turns.
    Raises DatabaseUnavailable or DatabaseSetupError.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise DatabaseSetupError("the database refused the user name or password of DATABASE_URL") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseSetupError("the database named in DATABASE_URL does not exist; create it first") from error
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, ValueError) as error:
        raise DatabaseUnavailable("the database at DATABASE_URL cannot be reached") from error
    try:
        if await connection.fetchval(QUERIES["server_version"]) < OLDEST_SERVER:
            raise DatabaseSetupError("PostgreSQL 15 or newer is needed")
        await connection.fetchval(QUERIES["lock_migrations"])
        try:
            await _apply(connection)
            return await _login_roles(connection, dsn)
        finally:
            await connection.fetchval(QUERIES["unlock_migrations"])
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseSetupError(
            "the user of DATABASE_URL must own its database and be allowed to create roles"
        ) from error
    except CONNECTION_ERRORS as error:
        raise DatabaseUnavailable("the database was lost while it was being set up") from error
    except asyncpg.PostgresError as error:
        raise DatabaseSetupError(f"the database cannot be set up: {error.args[0]}") from error
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection) -> None:
    await connection.execute(QUERIES["create_schema"])
    await connection.execute(QUERIES["create_ledger"])
    applied = {row["name"]: row["checksum"] for row in await connection.fetch(QUERIES["read_ledger"])}
    for path in sorted((FOLDER / "schema").glob("*.sql")):
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        if applied.get(path.name, checksum) != checksum:
            raise DatabaseSetupError(f"{path.name} was changed after it was applied; add a new file instead")
        if path.name not in applied:
            async with connection.transaction():
                await connection.execute(path.read_text())
                await connection.execute(QUERIES["write_ledger"], path.name, checksum)
    functions = sorted((FOLDER / "functions").glob("*.sql"))
    checksum = hashlib.sha256(b"".join(path.read_bytes() for path in functions)).hexdigest()
    if applied.get("functions") != checksum:
        async with connection.transaction():
            # Functions call each other across files: their bodies are checked when they first run.
            await connection.execute(QUERIES["defer_function_checks"])
            for path in functions:
                await connection.execute(path.read_text())
            await connection.execute(QUERIES["write_ledger"], "functions", checksum)


async def _login_roles(connection: asyncpg.Connection, dsn: str) -> dict[str, str]:
    """Login roles are one pair a database, since roles are shared by all databases of a server. Their names carry
    the database's hash: whatever it is called, they are short enough and are none of the group roles."""
    database = await connection.fetchval(QUERIES["database_name"])
    addresses = {}
    for kind in ("app", "worker"):
        login = f"rustygpt_login_{kind}_{hashlib.sha256(database.encode()).hexdigest()[:12]}"
        await connection.execute(QUERIES["keep_secret"], login, secrets.token_urlsafe(32))
        password = await connection.fetchval(QUERIES["read_secret"], login)
        async with connection.transaction():
            for statement in (
                await connection.fetchval(QUERIES["role_statement"], login, password),
                await connection.fetchval(QUERIES["grant_statement"], f"rustygpt_{kind}", login),
            ):
                await connection.execute(statement)
        addresses[kind] = with_user(dsn, login, password)
    return addresses


def with_user(dsn: str, user: str, password: str) -> str:
    """The same address for another user."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{host}"))
