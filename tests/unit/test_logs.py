"""Lines of a process on its way to standard error: their form, what they tell of a request, what they never tell."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from deployments.config import Logging
from deployments.gateway.middleware import RequestEnvelope
from deployments.observability.logs import configure_logs

WORDS = "what somebody said in confidence"
# A replica, whose standard error Ray Serve has replaced, with a form of lines.
REPLICA = """
import asyncio, io, logging, sys, threading
from deployments.config import Logging
from deployments.observability.logs import announce, configure_logs
sys.stderr = io.StringIO()
configure_logs(Logging(format=sys.argv[1]), "Gateway")
WORDS, logger = sys.argv[2], logging.getLogger("deployments.something")
"""


def lines_of(script: str, form: str = "text") -> list[str]:
    """What a replica that runs this writes to its standard error."""
    command = [sys.executable, "-c", REPLICA + script, form, WORDS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert WORDS not in result.stderr
    return result.stderr.splitlines()


def test_line_arrives_whatever_has_replaced_standard_error() -> None:
    [line] = lines_of('logger.info("%d prefixes", 3)')
    assert "[info     ] 3 prefixes" in line
    assert "[deployments.something]" in line
    assert "process=Gateway" in line


def test_lines_below_the_level_are_not_written() -> None:
    assert lines_of('logger.debug("nothing")') == []


def test_as_json_every_line_is_one_object() -> None:
    script = """
logger.info("three\\nlines\\x1b[2J of %s", "text")
try:
    int(WORDS)
except ValueError:
    logger.exception("it failed")
logger.info("%d", WORDS)
announce("Stopping")
"""
    parsed = [json.loads(line) for line in lines_of(script, "json")]
    assert [line["event"] for line in parsed if line["event"].startswith(("three", "it", "St"))] == [
        "three\\nlines\\x1b[2J of text",
        "it failed",
        "Stopping",
    ]
    assert parsed[1]["exception"].startswith("Traceback (most recent call last):\n")
    assert "could not be made: TypeError" in parsed[2]["event"]
    assert {(line["process"], line["level"]) for line in parsed} == {("Gateway", "info"), ("Gateway", "error")}


def test_text_of_a_message_is_one_line() -> None:
    [line] = lines_of('logger.info("three\\nlines\\x1b[2J of %s", "text")')
    assert "three\\nlines\\x1b[2J of text" in line


def test_error_that_ends_a_thread_is_logged() -> None:
    lines = lines_of(
        "thread = threading.Thread(target=int, args=[WORDS], name='worker'); thread.start(); thread.join()"
    )
    assert "the thread worker ended" in lines[0]
    assert lines[-1] == "ValueError: (its message is not logged)"


def test_error_of_a_task_that_nobody_awaits_is_logged_without_what_it_holds() -> None:
    script = """
async def fail(words): raise ValueError(words)
async def main():
    asyncio.create_task(fail(WORDS))
    asyncio.get_running_loop().call_soon(int, WORDS)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
"""
    text = "\n".join(lines_of(script))
    assert "Task exception was never retrieved " in text
    assert "Exception in callback int" in text
    assert text.count("ValueError: (its message is not logged)") == 2


def test_warnings_of_libraries_are_logged_and_those_of_serve_only_on_request() -> None:
    script = """
configure_logs(Logging(level=level), "Gateway")
for name in ("uvicorn.error", "ray", "ray.serve"):
    logging.getLogger(name).setLevel("INFO")
    for number in (20, 30, 40):
        logging.getLogger(name).log(number, "%s %d\\nmore", name, number)
logging.getLogger("ray.serve").error("ray.serve 50", extra={"log_to_stderr": False})
"""

    def told(level: str) -> list[str]:
        return [" ".join(line.split("] ")[1].split()[:2]) for line in lines_of(f"level = {level!r}{script}")]

    assert told("info") == ["uvicorn.error 30", "uvicorn.error 40", "ray 40", "ray.serve 40"]
    assert told("debug")[2:] == ["ray 30", "ray 40", "ray.serve 30", "ray.serve 40"]


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """What the product's loggers write in this process."""
    loggers = [logging.getLogger(name) for name in ("cli", "db", "deployments")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    configure_logs(Logging())
    yield capfd
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


async def fail(request: Request) -> Response:
    raise LookupError(request.path_params, WORDS)


async def break_off(_: Request) -> Response:
    async def text() -> AsyncIterator[str]:
        yield "begun"
        raise LookupError(WORDS)

    return StreamingResponse(text())


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError(WORDS)


async def answer_of(path: str, **headers: str) -> httpx.Response:
    """Of an application of which everything fails."""
    mounted = [Mount("/sub", routes=[Route("/{part}", fail)]), Mount("/files", app=broken)]
    app = Starlette(routes=[Route("/api/things/{thing}", fail), Route("/begun", break_off), *mounted])
    app.add_middleware(RequestEnvelope)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        return await http.get(path, headers={"X-Request-ID": "request-1"} | headers)


async def test_error_of_a_request_names_its_id_method_and_template(logged: pytest.CaptureFixture[str]) -> None:
    answer = await answer_of(f"/api/things/{WORDS}?query={WORDS}")
    assert answer.status_code == 500
    first, second, *_ = logged.readouterr().err.splitlines()
    assert "a request failed" in first
    assert "method=GET path=/api/things/{thing} request_id=request-1" in first
    assert second == "Traceback (most recent call last):"
    assert WORDS.split()[0] not in first


@pytest.mark.parametrize(("path", "template"), [("/sub/part", "/sub/{part}"), ("/files/part", "/files")])
async def test_template_of_what_is_mounted_is_whole(
    logged: pytest.CaptureFixture[str], path: str, template: str
) -> None:
    await answer_of(path)
    assert f" path={template} " in logged.readouterr().err


@pytest.mark.parametrize("given", [WORDS, "\x1b[2J", "x" * 129])
async def test_id_that_is_no_id_is_left_out(logged: pytest.CaptureFixture[str], given: str) -> None:
    await answer_of("/api/things/1", **{"X-Request-ID": given})
    assert "request_id" not in logged.readouterr().err


async def test_answer_that_is_broken_off_is_logged(logged: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):  # the client's: the answer has no end
        await answer_of("/begun")
    line, *_, last = logged.readouterr().err.splitlines()
    assert "an answer was broken off" in line
    assert "path=/begun request_id=request-1" in line
    assert last == "LookupError: (its message is not logged)"


async def test_line_outside_of_requests_names_none(logged: pytest.CaptureFixture[str]) -> None:
    await answer_of("/api/things/1")
    logged.readouterr()
    logging.getLogger("deployments").info("at rest")
    assert "path=" not in logged.readouterr().err
