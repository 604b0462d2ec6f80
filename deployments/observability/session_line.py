"""Lines of a Ray session's files, as `rustygpt serve` passes them on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

# How Ray tells its own monitor whose file it is.
ACTOR_NAME = b":actor_name:"
MARKS = (ACTOR_NAME, b":job_id:", b":task_name:")
# What Ray's native code remarks on, unless it is the last: C is fatal.
RAY_REMARK = re.compile(rb"\[\d{4}-\d\d-\d\d [\d:,]+ [A-BD-Z] \d+ \d+\] ")
# The first line of what Serve's controller and proxies log; a replica's are in our format.
SERVE_RECORD = re.compile(rb"(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d{4}-\d\d-\d\d [\d:,]+ \S+ \S+ -- ")
SERVE_ERRORS = (b"ERROR", b"CRITICAL")
# Serve warns in normal operation, too, of a model that takes a while to load. But nobody else tells of a lost process.
LOSS = b"marking it unhealthy"
# Here such a record ends: with one of ours, or with what a process says that dies.
RECORD_END = re.compile(rb"\{|\d{4}-\d\d-\d\dT[\d:.]+Z \[|\*\*\* SIG|Fatal Python error|\[\d{4}-\d\d-\d\d [\d:,]+ C ")


@dataclass
class Origin:
    """The process that writes a file: its id, the class of its actor as far as the file has told, and whether it is in
    the middle of a record of Serve's."""

    pid: int
    process: str = ""
    is_in_serve_record: bool = False


class SessionLines:
    """Chooses lines and gives them their form.

    Left out are Ray's own, and, unless `is_verbose`, what Serve's processes warn of, and their tracebacks: those quote
    the messages of errors. `as_json` puts what is no JSON object, such as the last words of native code, into one.
    """

    def __init__(self, *, as_json: bool, is_verbose: bool) -> None:
        self._as_json = as_json
        self._is_verbose = is_verbose

    def passed_on(self, lines: Iterable[bytes], origin: Origin) -> bytes:
        """What is passed on of the next lines of a file. `origin` learns from them."""
        kept = [line for line in lines if self._is_kept(line, origin)]
        return b"".join(line + b"\n" for line in (_objects(kept, origin) if self._as_json else kept))

    def _is_kept(self, line: bytes, origin: Origin) -> bool:
        if line.startswith(MARKS):
            if line.startswith(ACTOR_NAME):
                # "ServeReplica:gateway:Gateway"
                origin.process = line[len(ACTOR_NAME) :].rpartition(b":")[2].decode(errors="replace")
            return False
        if RAY_REMARK.match(line):
            return False
        if record := SERVE_RECORD.match(line):
            origin.is_in_serve_record = True
            return self._is_verbose or record[1] in SERVE_ERRORS or LOSS in line
        if RECORD_END.match(line):
            origin.is_in_serve_record = False
        return self._is_verbose or not origin.is_in_serve_record


def _objects(lines: list[bytes], origin: Origin) -> Iterator[bytes]:
    """Each line that is a JSON object, and one for each run of others."""
    run: list[bytes] = []
    for line in lines:
        is_object = _is_object(line)
        if run and (is_object or SERVE_RECORD.match(line)):
            yield _wrapped(run, origin)
            run = []
        if is_object:
            yield line
        else:
            run.append(line)
    if run:
        yield _wrapped(run, origin)


def _is_object(line: bytes) -> bool:
    if not line.startswith(b"{"):
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _wrapped(lines: list[bytes], origin: Origin) -> bytes:
    record = SERVE_RECORD.match(lines[0])
    return orjson.dumps(
        {
            "event": b"\n".join(lines).decode(errors="replace"),
            "level": record[1].decode().lower() if record else "error",
            "logger": "stderr",
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "process": origin.process,
            "pid": origin.pid,
        }
    )
