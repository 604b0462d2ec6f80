"""What can go wrong between the product and its database, as the rest of the product sees it."""

from __future__ import annotations

import asyncpg


class DatabaseError(Exception):
    """Base of this package's errors."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, is starting, or dropped the connection: trying again later may work."""


class DatabaseSetupError(DatabaseError):
    """The database answers but cannot be used: too old, rights missing, schema changed by hand."""


class RefusedError(DatabaseError):
    """A stored function refused: SQLSTATE class RG. `status` is the HTTP status, `code` is for machines."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence


# Errors of a lost or not yet usable server; OSError covers refused sockets and time-outs of connecting.
CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    # What a call says that finds its connection in the middle of being lost.
    asyncpg.InternalClientError,
    # Not a lost connection, but cured by the same means: trying again.
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


def refusal(error: asyncpg.PostgresError) -> RefusedError | None:
    """The stored function's refusal that `error` carries, or None when it is an error of another kind."""
    state = error.sqlstate or ""
    if not state.startswith("RG"):
        return None
    return RefusedError(int(state[2:]), str(error.args[0]), error.detail or "")
