"""Pages of a mapped model file, given back while it is loaded.

Where llama.cpp copies weights into a layout of its own (repack), it reads them from the mapped file, whose pages then
count as this process's memory beside the copies: a model takes twice its size. Given back, those that are used come
again from the page cache at the first pass over the weights, the others stay away.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# About 20 MB are copied meanwhile.
PERIOD_SECONDS = 0.01
MAPS = Path("/proc/self/maps")


@contextmanager
def spared_pages(file: Path) -> Iterator[None]:
    """Inside, and at the end, the process's mappings of `file` do not keep their pages. For mappings that nobody
    writes to. Without effect elsewhere than on Linux."""
    if not MAPS.exists():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_release_until, args=(os.path.realpath(file), done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _release_until(name: str, done: threading.Event) -> None:
    madvise = ctypes.CDLL(None).madvise
    last = False
    while not last:
        last = done.wait(PERIOD_SECONDS)
        for begin, end in _mappings(name):
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _mappings(name: str) -> list[tuple[int, int]]:
    """Addresses of the read-only mappings of a file."""
    found: list[tuple[int, int]] = []
    for line in MAPS.read_text().splitlines():
        addresses, rights, _, _, _, *path = line.split(maxsplit=5)
        if path == [name] and rights == "r--s":
            begin, end = (int(address, 16) for address in addresses.split("-"))
            found.append((begin, end))
    return found
