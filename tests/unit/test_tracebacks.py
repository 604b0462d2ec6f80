"""What the log says of an error: where it came from, in few lines, without what was in variables and messages."""

from __future__ import annotations

import time
from collections.abc import Callable

import asyncpg
import pydantic
import pytest

from db.errors import DatabaseUnavailable, RefusedError
from deployments.observability.tracebacks import LAST_ERRORS, traceback_text

WORDS = "what somebody said in confidence"


class _Form(pydantic.BaseModel):
    age: int


class _OwnError(TypeError):
    pass


def raised(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 whatever it is
        action()
    return caught.value


def fail_below(depth: int) -> None:
    password, everything = WORDS, [WORDS] * 10_000
    if depth:
        fail_below(depth - 1)
    raise LookupError(password, everything)


def test_names_each_place_and_shows_no_variable() -> None:
    text = traceback_text(raised(lambda: fail_below(12)))
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.count(", in fail_below") == 13
    assert "raise LookupError(password, everything)" in text
    assert text.endswith("\nLookupError: (its message is not logged)")
    assert WORDS not in text


def test_recursion_is_told_in_bounded_lines() -> None:
    def recurse(everything: list[str]) -> None:
        recurse([*everything, WORDS])

    error = raised(lambda: recurse([]))
    began = time.process_time()
    text = traceback_text(error)
    assert time.process_time() - began < 1.0
    assert len(text.splitlines()) < 100
    assert " more frames …" in text
    assert text.endswith("\nRecursionError: maximum recursion depth exceeded")


def test_long_chain_is_told_by_its_ends() -> None:
    error: Exception = ZeroDivisionError("the first")
    for number in range(1000):
        error, cause = OSError(number, "later"), error
        error.__cause__ = cause
    text = traceback_text(error)
    assert "ZeroDivisionError: the first" in text
    assert "\n… 996 more errors …\n" in text
    assert text.count("[Errno 99") == LAST_ERRORS
    assert text.endswith("OSError: [Errno 999] later")


def test_errors_that_lead_to_each_other_are_told_once() -> None:
    first, second = OSError(1, "first"), OSError(2, "second")
    first.__cause__, second.__cause__ = second, first
    assert traceback_text(first).count("Errno") == 2


def test_what_an_error_came_from_is_told() -> None:
    def handle() -> None:
        try:
            _ = {}["key"]
        except KeyError:
            raise OSError(5, "gone") from None

    def translate() -> None:
        try:
            handle()
        except OSError as error:
            raise DatabaseUnavailable("the database cannot be reached") from error

    text = traceback_text(raised(translate))
    assert "KeyError" not in text
    assert "OSError: [Errno 5] gone\n\nThe above exception was the direct cause of the following exception:\n" in text
    assert text.endswith("db.errors.DatabaseUnavailable: the database cannot be reached")


def test_members_of_a_group_are_told() -> None:
    group = ExceptionGroup(WORDS, [raised(lambda: int(WORDS)) for _ in range(50)])  # type: ignore[type-var]
    text = traceback_text(group)
    assert "    ValueError: (its message is not logged)" in text
    assert "… and 47 more" in text
    assert WORDS not in text


@pytest.mark.parametrize(
    "action",
    [
        lambda: int(WORDS),
        lambda: {}[WORDS],
        lambda: _Form.model_validate({"age": WORDS}),
        lambda: (WORDS.encode() + b"\xff").decode(),
        lambda: fail_with(RuntimeError(WORDS)),
        lambda: fail_with(_OwnError(WORDS)),
        lambda: fail_with(RefusedError(403, "RGP.RBAC.FORBIDDEN", WORDS)),
    ],
)
def test_message_that_may_quote_somebody_is_left_out(action: Callable[[], object]) -> None:
    error = raised(action)
    text = traceback_text(error)
    assert WORDS not in text
    assert type(error).__name__ in text


def fail_with(error: Exception) -> None:
    raise error


def test_message_of_the_interpreter_is_told() -> None:
    assert traceback_text(raised(lambda: None.missing)).endswith(  # type: ignore[attr-defined]
        "AttributeError: 'NoneType' object has no attribute 'missing'"
    )


def postgres_error(code: str, message: str) -> BaseException:
    """As the server sends it, with what a row and a function's data can put into it."""
    return asyncpg.PostgresError.new(
        {
            "S": "ERROR",
            "C": code,
            "M": message,
            "D": f"Key (email)=({WORDS}) already exists.",
            "H": f"Did you mean {WORDS}?",
            "W": f"JSON data, line 1: {WORDS}\nPL/pgSQL function rustygpt.search(text) line 3 at SQL statement",
            "t": "users",
            "n": "users_email_key",
        }
    )


def test_error_of_the_database_is_told_by_names_only() -> None:
    text = traceback_text(postgres_error("23505", f"duplicate key {WORDS}"))
    assert text.endswith(
        "asyncpg.exceptions.UniqueViolationError: SQLSTATE 23505, table users, constraint users_email_key, "
        "in PL/pgSQL function rustygpt.search(text) line 3 at SQL statement"
    )
    assert WORDS not in text


def test_what_the_schema_lacks_is_told() -> None:
    message = "function rustygpt.search(text) does not exist"
    assert message in traceback_text(postgres_error("42883", message))
