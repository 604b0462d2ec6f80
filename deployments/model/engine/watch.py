"""Work that may never end, kept from holding up the thread that needs its result."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_left: list[threading.Thread] = []
_own = threading.local()


def work_is_left() -> bool:
    """Whether work that took too long still goes on in this process."""
    return any(thread.is_alive() for thread in [*_left])


class TookTooLong(Exception):
    """The work goes on, on a thread that nobody waits for."""


class Watch:
    """Runs work on a second thread, about 25 µs dearer than a call. For one thread at a time."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None

    def run(self, work: Callable[[], T], seconds: float, after: Callable[[], None]) -> T:
        """The work's result, or what it raises. TookTooLong where it has used `seconds` of a core without an end: it
        is left to itself, on a core that idles, and `after` is called there when it has ended at last."""
        worker = self._worker = self._worker or _Worker()
        made: list[T] = []
        before = worker.cpu_seconds()
        worker.tasks.put(lambda: made.append(work()))
        while True:
            try:
                error = worker.ends.get(timeout=seconds)
                break
            except Empty:
                # On a machine that is busy with other things, work is not slow for it.
                if worker.cpu_seconds() - before < seconds:
                    continue
            self._worker = None
            worker.leave(after)
            raise TookTooLong
        if error:
            raise error
        return made[0]

    def __del__(self) -> None:
        if self._worker:
            self._worker.tasks.put(None)


class _Worker:
    """A thread that does one task after the other until it gets None. It does not keep the process from ending."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._collecting_since: float | None = None
        self._collected = 0.0
        self._thread = threading.Thread(target=self._serve, name="watched", daemon=True)
        self._thread.start()
        assert self._thread.ident is not None
        self._clock = time.pthread_getcpuclockid(self._thread.ident)

    def cpu_seconds(self) -> float:
        """How long it has had a core for its tasks."""
        return (self._collecting_since or time.clock_gettime(self._clock)) - self._collected

    def note_collection(self, phase: str) -> None:
        """A garbage collection begins or ends on its thread. It is not the task's fault, and may take long: 0.4 s in a
        process of 400,000 objects."""
        now = time.clock_gettime(self._clock)
        if phase == "start":
            self._collecting_since = now
        elif self._collecting_since is not None:
            self._collected += now - self._collecting_since
            self._collecting_since = None

    def leave(self, after: Callable[[], None]) -> None:
        """It ends when its task has ended and `after` has been called."""
        _left[:] = [*(thread for thread in _left if thread.is_alive()), self._thread]
        self.tasks.put(after)
        self.tasks.put(None)
        assert self._thread.native_id is not None
        with contextlib.suppress(OSError):  # it has just ended, or the system does not know this
            os.sched_setscheduler(self._thread.native_id, os.SCHED_IDLE, os.sched_param(0))

    def _serve(self) -> None:
        _own.worker = self
        while task := self.tasks.get():
            try:
                task()
            except BaseException as error:  # noqa: BLE001 it is raised where the work was asked for
                self.ends.put(error)
            else:
                self.ends.put(None)
            del task


def _note_collection(phase: str, _: dict[str, int]) -> None:
    if worker := getattr(_own, "worker", None):
        worker.note_collection(phase)


gc.callbacks.append(_note_collection)
