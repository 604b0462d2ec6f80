"""Time and stops of a process that is stopped (SIGSTOP) and continued (SIGCONT) with its whole group."""

from __future__ import annotations

import select
import signal
import time
from typing import Any

# A stop costs the clock at most this much of the time before it.
SLICE_SECONDS = 0.1


class AwakeClock:
    """Counts the stops of this process, and the seconds without them. One a process, made in its main thread."""

    def __init__(self) -> None:
        self.stops = 0
        self._seconds = 0.0
        self._read, self._stops_read = time.monotonic(), 0
        signal.signal(signal.SIGCONT, self._continued)

    def _continued(self, _signal: int, _frame: Any) -> None:
        self.stops += 1

    def seconds(self) -> float:
        """Seconds since the clock was made during which the process was not stopped. Leaves out as well what passed
        between the last reading and a stop: it is read often, or waits by `wait`."""
        now = time.monotonic()
        if self.stops == self._stops_read:
            self._seconds += now - self._read
        self._read, self._stops_read = now, self.stops
        return self._seconds

    def wait(self, readable: Any, limit_seconds: float) -> bool:
        """Waits until there is something to read; False after `limit_seconds` without stops."""
        end = self.seconds() + limit_seconds
        while self.seconds() < end:
            if select.select([readable], [], [], SLICE_SECONDS)[0]:
                return True
        return False
