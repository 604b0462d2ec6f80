"""The most memory that a process and all that it starts take together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psutil

PERIOD_SECONDS = 0.02


class PeakMemory:
    """Samples the sum of the processes' resident memory, mapped files counted in each."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self.samples = 0
        self.bytes = 0

    def sample(self) -> None:
        """Once, now."""
        found = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found += process.memory_info().rss
        self.samples += 1
        self.bytes = max(self.bytes, found)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, samples again and again."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        while not self._done.wait(PERIOD_SECONDS):
            self.sample()
