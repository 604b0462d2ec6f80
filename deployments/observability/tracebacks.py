"""Where an error came from, in few lines and little time, without what was in variables and messages.

Rich tracebacks with local variables took seconds of a replica's event loop, and wrote people's words into the log.
"""

from __future__ import annotations

import linecache
from collections import deque
from collections.abc import Iterator
from types import FrameType, TracebackType

import asyncpg

from db.errors import RefusedError, value_free

# Packages whose source lines are shown. Other files are read from disk for the innermost frame only: a first error
# would read twenty of them.
OURS = ("cli", "db", "deployments")
# Frames of one error: those at which it entered and those at which it arose. A recursion error has a thousand.
FIRST_FRAMES = 5
LAST_FRAMES = 30
FIRST_ERRORS = 2
LAST_ERRORS = 3
GROUP_MEMBERS = 3
GROUP_DEPTH = 2
LINE_CHARACTERS = 200

# Their messages are the interpreter's or the system's own, about names and types. Any other's may quote its input
# (ValueError, KeyError, a validation error), unless its class has `is_for_operators`.
TOLD = (AttributeError, ImportError, MemoryError, NameError, OSError, RecursionError, TypeError, ZeroDivisionError)

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"


def traceback_text(error: BaseException) -> str:
    """The error and what it came from, as Python prints it, bounded in length."""
    return "\n".join(_lines(error, 0))


def error_text(error: BaseException) -> str:
    """Type and message in one line; the message only where it cannot carry what somebody wrote."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = _message(error)
    return _cut(f"{name}: {message}" if message else name)


def _message(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return value_free(error)
    if isinstance(error, RefusedError):
        return error.code
    # Subclasses in libraries say what they like.
    is_built_in = type(error).__module__ == "builtins" and isinstance(error, TOLD)
    if is_built_in or getattr(error, "is_for_operators", False):
        return " ".join(str(error).split())
    return "(its message is not logged)" if any(error.args) else ""


def _lines(error: BaseException, depth: int) -> Iterator[str]:
    chain = _chain(error)
    shown: list[BaseException | int] = list(chain)
    if len(chain) > FIRST_ERRORS + LAST_ERRORS:
        shown = [*chain[:FIRST_ERRORS], len(chain) - FIRST_ERRORS - LAST_ERRORS, *chain[-LAST_ERRORS:]]
    for number, item in enumerate(shown):
        if isinstance(item, int):
            yield f"\n… {item} more errors …"
            continue
        if number:
            yield f"\n{CONTEXT if item.__cause__ is None else CAUSE}\n"
        yield "Traceback (most recent call last):"
        yield from _stack(item.__traceback__)
        yield error_text(item)
        if isinstance(item, BaseExceptionGroup) and depth < GROUP_DEPTH:
            yield from _members(item, depth)


def _chain(error: BaseException) -> list[BaseException]:
    """The first error, what was raised from it or while it was handled, and so on to `error`."""
    chain: list[BaseException] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        chain.append(link)
        earlier = None if link.__suppress_context__ else link.__context__
        link = earlier if link.__cause__ is None else link.__cause__
    chain.reverse()
    return chain


def _members(group: BaseExceptionGroup[BaseException], depth: int) -> Iterator[str]:
    for member in group.exceptions[:GROUP_MEMBERS]:
        yield "  of which:"
        for text in _lines(member, depth + 1):
            yield from (f"    {line}" for line in text.split("\n"))
    if len(group.exceptions) > GROUP_MEMBERS:
        yield f"  … and {len(group.exceptions) - GROUP_MEMBERS} more"


def _stack(traceback: TracebackType | None) -> Iterator[str]:
    first: list[tuple[FrameType, int]] = []
    last: deque[tuple[FrameType, int]] = deque(maxlen=LAST_FRAMES)
    count = 0
    while traceback is not None:
        (first if count < FIRST_FRAMES else last).append((traceback.tb_frame, traceback.tb_lineno))
        count += 1
        traceback = traceback.tb_next
    for frame, line in first:
        yield from _frame(frame, line, is_innermost=count == len(first) and frame is first[-1][0])
    if left_out := count - len(first) - len(last):
        yield f"  … {left_out} more frames …"
    for number, (frame, line) in enumerate(last, 1):
        yield from _frame(frame, line, is_innermost=number == len(last))


def _frame(frame: FrameType, line: int, *, is_innermost: bool) -> Iterator[str]:
    code = frame.f_code
    yield f'  File "{code.co_filename}", line {line}, in {code.co_qualname}'
    if is_innermost or str(frame.f_globals.get("__name__")).partition(".")[0] in OURS:
        # The text of a file that lies open to everybody who may read the log.
        source = linecache.getline(code.co_filename, line).strip()
        if source:
            yield f"    {_cut(source)}"


def _cut(text: str) -> str:
    return text if len(text) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]}…"
