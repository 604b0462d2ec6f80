"""How many threads to compute with while other processes use the cores too.

llama.cpp splits each operation evenly between its threads and waits for the last one, spinning. A thread whose core is
taken by somebody else holds up all: with one busy competitor on 2 cores, 2 threads gave 25 / 71 tokens a second at
1 / 8 sequences, 1 thread 53 / 129. A competitor that is busy 40 % of the time is better shared with: 58 / 160 against
53 / 128. (Waiting without spinning, OMP_WAIT_POLICY=passive, costs two thirds at 1 sequence on a quiet machine: 29
instead of 93.)
"""

from __future__ import annotations

import os
import time

import psutil

PERIOD_SECONDS = 0.5
# A core counts as taken from this share on.
TAKEN = 0.7
# Weight of the latest period.
MEMORY = 0.6


class CoreSharing:
    """Watches what others use of this process's cores."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._process = psutil.Process()
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        self._others = 0.0
        self._read = time.monotonic()
        self._busy, self._own = self._used_seconds()

    def threads(self) -> int:
        """Threads to compute with now: as many as were given, and no more than cores that others do not keep busy."""
        now = time.monotonic()
        if (passed := now - self._read) >= PERIOD_SECONDS:
            busy, own = self._used_seconds()
            others = max(0.0, (busy - self._busy) - (own - self._own)) / passed
            self._others += (others - self._others) * MEMORY
            self._read, self._busy, self._own = now, busy, own
        cores = len(self._cores) if self._cores else os.cpu_count() or self._most
        return max(1, min(self._most, cores - int(self._others + 1 - TAKEN)))

    def pause(self) -> None:
        """This process rests: what others do meanwhile says nothing of what they will do when it works again."""
        self._exchange()

    def resume(self) -> None:
        """This process works again."""
        self._exchange()

    def _exchange(self) -> None:
        """While it rests the three are what has passed of the period, otherwise readings at its start: one becomes the
        other by the same subtraction."""
        busy, own = self._used_seconds()
        self._read, self._busy, self._own = time.monotonic() - self._read, busy - self._busy, own - self._own

    def _used_seconds(self) -> tuple[float, float]:
        """Processor time of all on these cores, and of this process."""
        times = psutil.cpu_times(percpu=True)
        mine = [times[core] for core in self._cores if core < len(times)] if self._cores else times
        busy = sum(sum(core) - core.idle - getattr(core, "iowait", 0.0) - getattr(core, "guest", 0.0) for core in mine)
        own = self._process.cpu_times()
        return busy, own.user + own.system
