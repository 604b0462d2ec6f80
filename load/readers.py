"""Many readers of event streams, cheap enough not to be what is measured: raw sockets and epoll, in a few processes.

They only count: an event is a line that begins with `data: `. Where asked, they note when each event with a stamp
(`@nanoseconds@` in its text) arrived.
"""

from __future__ import annotations

import multiprocessing
import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import psutil

from load.client import LoadError

READ_BYTES = 1 << 18
CONNECTING = 100  # at once, so that no backlog of a listening socket overflows
START_SECONDS = 120.0
EVENT = b"\ndata: "
STAMP = re.compile(rb"@(\d+)@")


@dataclass(frozen=True)
class Target:
    """Streams to read: where, and the request of each reader."""

    host: str
    port: int
    requests: list[bytes]


def request(path: str, headers: dict[str, str]) -> bytes:
    """A reader's request."""
    lines = [f"GET {path} HTTP/1.1", "Host: bench", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Readers:
    """Connected inside the `with`. Raises LoadError where the service refuses one, or cuts one."""

    def __init__(self, target: Target, stamped: bool = False, processes: int = 2) -> None:
        self._count = len(target.requests)
        context = multiprocessing.get_context("spawn")
        shares = [target.requests[i::processes] for i in range(min(processes, self._count))]
        self._totals = [context.Value("q", 0, lock=False) for _ in shares]
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        for share, total in zip(shares, self._totals, strict=True):
            ours, theirs = context.Pipe()
            arguments = (theirs, total, Target(target.host, target.port, share), stamped)
            self._processes.append(context.Process(target=_child, args=arguments, daemon=True))
            self._pipes.append(ours)

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        try:
            for pipe in self._pipes:
                self._answer(pipe, START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def __len__(self) -> int:
        return self._count

    @property
    def total(self) -> int:
        """Events that have arrived at all readers together."""
        return sum(total.value for total in self._totals)

    def counts(self) -> list[int]:
        """Events that have arrived at each reader."""
        return [count for answer in self._ask("counts") for count in answer]

    def stamps(self) -> list[tuple[int, int]]:
        """(stamp, when it arrived), of all stamped events since the last call; nanoseconds of the monotonic clock."""
        return [pair for answer in self._ask("stamps") for pair in answer]

    def wait_for(self, total: int, seconds: float) -> float:
        """Until so many events have arrived in all; the time then. Raises LoadError when they do not come."""
        deadline = time.monotonic() + seconds
        while self.total < total:
            if time.monotonic() > deadline:
                for pipe in self._pipes:
                    if pipe.poll():  # something went wrong there
                        self._answer(pipe, 0)
                raise LoadError(f"of {total} events {self.total} arrived within {seconds:.0f} s")
            time.sleep(0.0005)
        return time.monotonic()

    def cpu_seconds(self) -> float:
        """Processor time of the readers' processes so far."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)

    def _ask(self, what: str) -> list[Any]:
        for pipe in self._pipes:
            pipe.send(what)
        return [self._answer(pipe, 30.0) for pipe in self._pipes]

    def _answer(self, pipe: Any, seconds: float) -> Any:
        if not pipe.poll(seconds):
            raise LoadError("the readers do not answer")
        answer = pipe.recv()
        if isinstance(answer, str):
            raise LoadError(answer)
        return answer


class _Reader:
    """One connection. `chunked` is how its body comes; nchan sends none of a known length either."""

    __slots__ = ("_left", "_rest", "_tail", "chunked", "count", "socket")

    def __init__(self, target: Target, text: bytes) -> None:
        self.socket = socket.create_connection((target.host, target.port), timeout=START_SECONDS)
        self.socket.sendall(text)
        self.chunked = True
        self.count = 0
        self._left = 0  # of the chunk that is being read, its line end included
        self._rest = b""  # of a chunk's head that has not come whole
        self._tail = b""  # of the body, in which the next event may have begun

    def open(self) -> None:
        """Reads the answer's head and the first words of its body: from there on the service knows the reader."""
        answer = b""
        while b"\n\n" not in answer:
            data = self.socket.recv(READ_BYTES)
            if not data or (b"\r\n\r\n" in answer and b" 200 " not in answer[:20]):
                raise LoadError(f"the service refused a reader: {answer[:300].decode(errors='replace')}")
            answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        self.chunked = b"transfer-encoding: chunked" in head.lower()
        self.body(body)
        self.socket.setblocking(False)

    def body(self, data: bytes) -> bytes:
        """What of the body came with these bytes, and the end of what came before it. Counts events in it."""
        self._tail += self._unchunked(data) if self.chunked else data
        found = self._tail
        self._tail = found[1 - len(EVENT) :]
        self.count += found.count(EVENT)
        return found

    def _unchunked(self, data: bytes) -> bytes:
        data, self._rest = self._rest + data, b""
        parts, place, left = [], 0, self._left
        while place < len(data):
            if left > 2:
                part = data[place : place + left - 2]
                parts.append(part)
                place, left = place + len(part), left - len(part)
            elif left:
                skipped = min(left, len(data) - place)
                place, left = place + skipped, left - skipped
            elif (end := data.find(b"\r\n", place)) < 0:
                self._rest = data[place:]
                break
            else:
                left = int(data[place:end], 16) + 2
                place = end + 2
                if left == 2:
                    raise LoadError("the service ended a stream")
        self._left = left
        return b"".join(parts)


class _Loop:
    """The readers of one process."""

    def __init__(self, pipe: Connection, total: Any, target: Target, stamped: bool) -> None:
        self._pipe, self._total, self._stamped = pipe, total, stamped
        self._readers: dict[int, _Reader] = {}
        self._stamps: list[tuple[int, int]] = []
        for start in range(0, len(target.requests), CONNECTING):
            made = [_Reader(target, text) for text in target.requests[start : start + CONNECTING]]
            for reader in made:
                reader.open()
            self._readers |= {reader.socket.fileno(): reader for reader in made}

    def run(self) -> None:
        """Until the parent goes."""
        poll = select.epoll()
        for number in (*self._readers, self._pipe.fileno()):
            poll.register(number, select.EPOLLIN)
        asked: dict[str, Callable[[], Any]] = {
            "counts": lambda: [reader.count for reader in self._readers.values()],
            "stamps": self._take_stamps,
        }
        while True:
            for number, _ in poll.poll():
                reader = self._readers.get(number)
                if reader is None:
                    self._pipe.send(asked[self._pipe.recv()]())
                else:
                    self._read(reader)

    def _read(self, reader: _Reader) -> None:
        data = reader.socket.recv(READ_BYTES)
        if not data:
            raise LoadError("the service cut a reader")
        before = reader.count
        body = reader.body(data)
        if self._stamped:
            now = time.monotonic_ns()
            self._stamps += [(int(stamp), now) for stamp in STAMP.findall(body)]
        self._total.value += reader.count - before

    def _take_stamps(self) -> list[tuple[int, int]]:
        taken, self._stamps = self._stamps, []
        return taken


def _child(pipe: Connection, total: Any, target: Target, stamped: bool) -> None:
    try:
        loop = _Loop(pipe, total, target, stamped)
        pipe.send(None)
        loop.run()
    except (EOFError, KeyboardInterrupt):
        return
    except (LoadError, OSError) as error:
        pipe.send(f"a reader failed: {error}")
