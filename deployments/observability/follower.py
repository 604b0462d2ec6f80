"""What the processes of a Ray session write to standard error, gathered on that of the process that runs the session.

Files between them, not pipes: a terminal that is halted holds up no replica, and the last words of a process that
dies are there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from deployments.observability.session_line import Origin, SessionLines

LOGS = "session_latest/logs"
# worker-<worker's id>-<job's id>-<process id>.err
NAME = re.compile(r"worker-[0-9a-f]+-[0-9a-f]+-(\d+)\.err")
POLL_SECONDS = 0.15
# A line whose end does not come is passed on after so long: native code that dies does not always end its last one.
PATIENCE_SECONDS = 1.0
# How often it is looked whether a file's process is alive.
LIFE_SECONDS = 10.0
CHUNK_BYTES = 1 << 20
# Room that a file's passed-on lines take on the disk at most.
KEPT_BYTES = 4 << 20
# FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
PUNCH_HOLE = 0x01 | 0x02
# A file made within the clock's tick of the latest listing does not change the folder's time.
TICK_SECONDS = 1.0


class Follower:
    """Follows the files of a session from its start to `stop`. Each line comes once, whole, within 0.2 s.

    In silence it costs one `stat` for each process that is alive, seven times a second.
    """

    def __init__(self, session_folder: Path, lines: SessionLines, write: Callable[[bytes], None]) -> None:
        self._folder = session_folder / LOGS
        self._write = write
        self._lines = lines
        # None: all of it has been passed on, and its process is gone.
        self._files: dict[str, _File | None] = {}
        self._listed_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log-follower", daemon=True)

    def start(self) -> None:
        """The folder need not exist yet."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when all that was written has been passed on. The processes have ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._pass_on(is_end=True)

    def _follow(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            self._pass_on(is_end=False)

    def _pass_on(self, *, is_end: bool) -> None:
        self._find_files()
        for name, file in list(self._files.items()):
            if file is None:
                continue
            try:
                for lines in file.read(is_end=is_end):
                    if text := self._lines.passed_on(lines, file.origin):
                        self._write(text)
                if file.is_over():
                    self._files[name] = None
            except FileNotFoundError:
                # Ray moves files of processes that are gone when there are very many.
                self._files[name] = None
            except OSError:
                # Such as too many open files: it is tried again.
                continue

    def _find_files(self) -> None:
        with contextlib.suppress(OSError):
            changed_at = self._folder.stat().st_mtime
            if changed_at + TICK_SECONDS < self._listed_at:
                return
            self._listed_at = time.time()
            for entry in os.scandir(self._folder):
                if entry.name not in self._files and (found := NAME.fullmatch(entry.name)):
                    self._files[entry.name] = _File(entry.path, Origin(int(found[1])))


class _File:
    """One process's file, and how far it has been read."""

    def __init__(self, path: str, origin: Origin) -> None:
        self.origin = origin
        self._path = path
        self._offset = 0
        self._size = 0
        self._grown_at = 0.0
        self._freed = 0
        self._looked_at = time.monotonic()

    def read(self, *, is_end: bool) -> Iterator[list[bytes]]:
        """New lines, in portions; one that has no end yet only at the end, or after a while. Raises OSError when the
        file is gone."""
        size, now = os.stat(self._path).st_size, time.monotonic()
        is_silent = size == self._size
        if not is_silent:
            self._size, self._grown_at = size, now
        takes_rest = is_end or now - self._grown_at >= PATIENCE_SECONDS
        if self._offset == size or (is_silent and not takes_rest):
            return
        with open(self._path, "rb") as file:
            while chunk := os.pread(file.fileno(), CHUNK_BYTES, self._offset):
                length = chunk.rfind(b"\n") + 1
                if not length:
                    if not takes_rest and len(chunk) < CHUNK_BYTES:
                        break
                    length = len(chunk)
                self._offset += length
                yield chunk[:length].splitlines()
        if self._offset - self._freed >= KEPT_BYTES:
            self._freed = self._offset
            _free(self._path, self._offset)

    def is_over(self) -> bool:
        """Whether nothing can follow what was read. Raises OSError when the file is gone."""
        now = time.monotonic()
        if now - self._looked_at < LIFE_SECONDS:
            return False
        self._looked_at = now
        # In this order: a process writes its last words before it is gone.
        return not psutil.pid_exists(self.origin.pid) and os.stat(self._path).st_size == self._offset


def _free(path: str, length: int) -> None:
    """Gives the disk back what the beginning of a file takes; its size stays, since a process goes on writing at its
    end. Not rotation by Ray: it puts a pipe between, in which the last words of a process that dies are lost. Where
    the system cannot do it, nothing happens."""
    fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
    if fallocate is None:
        return
    with open(path, "r+b") as file:
        fallocate(file.fileno(), PUNCH_HOLE, ctypes.c_longlong(0), ctypes.c_longlong(length))
