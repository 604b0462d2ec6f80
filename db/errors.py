"""What can go wrong between the product and its database, as the rest of the product sees it."""

from __future__ import annotations

import re

import asyncpg


class DatabaseError(Exception):
    """Base of this package's errors. Their messages are for operators: they may be logged."""

    is_for_operators = True


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, is starting, or dropped the connection: trying again later may work."""


class DatabaseSetupError(DatabaseError):
    """The database answers but cannot be used: too old, rights missing, schema changed by hand."""


class RefusedError(DatabaseError):
    """A stored function refused: SQLSTATE class RG. `status` is the HTTP status, `code` is for machines."""

    is_for_operators = False

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


# Of these the message names nothing but parts of the schema, roles, and what the server lacks.
SCHEMA_MESSAGES = re.compile(r"42(P01|P13|883|703|501)|(08|40|53|55|57|58)\w\w\w")
# As "PL/pgSQL function search(bytea,text) line 12 at RETURN". Other lines of a context may quote data.
FUNCTION_LINE = re.compile(r"(?:PL/pgSQL|SQL) function [^\n]* (?:line \d+(?: at [\w ]+)?|statement \d+|during startup)")


def value_free(error: asyncpg.PostgresError) -> str:
    """What `error` says without any value of a row or an argument, which message, detail and hint may quote: SQLSTATE,
    the names of what it concerns, and the lines of stored functions at which it arose."""
    state = error.sqlstate or "unknown"
    parts = [f"SQLSTATE {state}"]
    if SCHEMA_MESSAGES.fullmatch(state):
        parts.append(str(error.args[0]) if error.args else "")
    named = (("table", error.table_name), ("column", error.column_name), ("constraint", error.constraint_name))
    parts += [f"{what} {name}" for what, name in named if name]
    context = (error.context or "").split("\n")
    parts += [f"in {found[0]}" for line in context if (found := FUNCTION_LINE.match(line))]
    return ", ".join(part for part in parts if part)
