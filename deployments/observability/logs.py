"""Logs of every process: structured, to its own standard error, never with secrets or people's words."""

from __future__ import annotations

import functools
import logging
import logging.handlers
import os
import re
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import structlog

from deployments.config import Logging
from deployments.observability.request_context import request_fields
from deployments.observability.session_line import SessionLines
from deployments.observability.standard_error import StandardError, write
from deployments.observability.tracebacks import OURS, traceback_text

# Their warnings come at the level `debug` only: Serve warns of each request that it refuses for want of room, asyncpg
# each second of a database that is away.
TALKATIVE = ("ray", "ray.serve", "asyncpg")
MESSAGE_CHARACTERS = 2000
# Every character that could end a line or steer a terminal.
CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
# Where asyncio begins to quote: a task's error, a callback's arguments.
QUOTED = re.compile(r"[\n<(:].*", re.DOTALL)

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def configure_logs(settings: Logging, process: str | None = None) -> None:
    """Sends the product's log records to this process's standard error. Idempotent.

    `process` names one that Ray runs, such as a replica: all of it is ours, so that warnings of libraries, and errors
    that end a thread or a task, are logged in the same way.
    """
    formatter = _formatter(settings, process)
    handler = StandardError()
    handler.setFormatter(formatter)
    level = settings.level.upper()
    for name in OURS:
        ours = logging.getLogger(name)
        ours.handlers[:] = [handler]
        ours.setLevel(level)
        ours.propagate = False
    if process is not None:
        _take_over(formatter, level)


def failure_logged(what: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Decorates what Serve calls: an error is logged, with `what` as the line's message, since Serve tells its
    controller alone."""

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(function)
        async def logged(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await function(*args, **kwargs)
            except Exception:
                logger.exception("%s", what)
                raise

        return logged

    return decorate


def session_lines(settings: Logging) -> SessionLines:
    """What `rustygpt serve` passes on of the files of its Ray session."""
    return SessionLines(as_json=settings.format == "json", is_verbose=settings.level == "debug")


def announce(text: str) -> None:
    """Tells the person who waits for this process; as a log line where the log is for machines."""
    formatter = next((handler.formatter for handler in logging.getLogger("cli").handlers), None)
    if isinstance(formatter, structlog.stdlib.ProcessorFormatter) and _is_json(formatter):
        logger.info("%s", text)
    else:
        write(f"{text}\n".encode())


def _take_over(formatter: logging.Formatter, level: str) -> None:
    least = logging.getLevelNamesMapping()[level]
    of_talkative = logging.WARNING if least <= logging.DEBUG else logging.ERROR
    levels = {"": max(least, logging.WARNING)} | dict.fromkeys(TALKATIVE, of_talkative)
    for name, least_foreign in levels.items():
        handler = StandardError(least_foreign)
        handler.setFormatter(formatter)
        handler.addFilter(_is_for_standard_error)
        found = logging.getLogger(name)
        # Serve's file of a replica stays, without what an error's message may hold.
        files = [other for other in found.handlers if isinstance(other, logging.handlers.MemoryHandler)]
        for file in files:
            if file.target is not None:
                file.target.setFormatter(formatter)
        found.handlers[:] = [*files, handler]
        found.propagate = False
    threading.excepthook = _thread_ended
    sys.unraisablehook = _not_raised


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "?"
        logger.error("the thread %s ended", name, exc_info=args.exc_value)


def _not_raised(args: Any) -> None:
    # The object itself is not shown: it may hold what somebody wrote.
    logger.error("an error could not be raised", exc_info=args.exc_value)


def _is_for_standard_error(record: logging.LogRecord) -> bool:
    """Serve says of some of its records that they are for its files alone."""
    return getattr(record, "log_to_stderr", None) is not False


def _is_json(formatter: structlog.stdlib.ProcessorFormatter) -> bool:
    return isinstance(formatter.processors[-1], structlog.processors.JSONRenderer)


def _formatter(settings: Logging, process: str | None) -> logging.Formatter:
    origin = {"process": process, "pid": os.getpid()} if process else {}

    def add_origin(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, **request_fields(), **origin}

    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_origin,
            _tidy_message,
            _describe_error,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _tidy_message(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """One line of bounded length. Of libraries', what they say and not what they show."""
    text, name = str(event["event"]), str(event["logger"])
    if name.partition(".")[0] not in OURS:
        text = QUOTED.sub("", text) if name == "asyncio" else text.strip().partition("\n")[0]
    if len(text) > MESSAGE_CHARACTERS:
        text = f"{text[:MESSAGE_CHARACTERS]}…"
    event["event"] = text.strip().translate(CONTROLS)
    return event


def _describe_error(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The error's traceback without variables."""
    exc_info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if isinstance(exc_info, tuple) and exc_info[1] is not None:
        event["exception"] = traceback_text(exc_info[1])
    return event
