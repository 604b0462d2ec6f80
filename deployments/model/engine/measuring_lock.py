"""One measurement at a time: of a model by all machines that share a folder, and of any model by one machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

MACHINE_LOCK = Path(tempfile.gettempdir()) / "rustygpt-autotune.lock"
LOOK_SECONDS = 0.2


@contextmanager
def measuring_alone(record: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Inside, no other process measures for this record, and none on this machine. Calls `on_wait` once if it must
    wait. The kernel frees both locks when the process ends. Raises OSError."""
    told = False
    with ExitStack() as stack:
        # In this order everywhere: whoever has the machine waits for nobody.
        for file in (record.with_suffix(".lock"), MACHINE_LOCK):
            descriptor = _open(file)
            stack.callback(os.close, descriptor)
            while not _locked(descriptor):
                if not told:
                    on_wait()
                told = True
                time.sleep(LOOK_SECONDS)
        yield


def _open(file: Path) -> int:
    try:
        # Where another user made it: in a folder for all, Linux refuses O_CREAT for files of others.
        return os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(file, os.O_RDONLY | os.O_CREAT, 0o644)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
