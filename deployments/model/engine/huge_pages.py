"""Weights in pages of 2 MiB instead of 4 KiB.

A step reads all weights once. In pages of 4 KiB the processor looks up an address for every 4 KiB of them, which takes
long in a virtual machine: a step of a small model in BF16 took 10.9 / 24 / 33 ms with 1 / 8 / 16 rows, in huge pages
9 / 22 / 31 (probe.py, one after the other). A mapped file cannot lie in them, so the weights are read into memory of
this process.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUGE_PAGE_BYTES = 2 << 20
# Larger than the stack of a thread, of which most is never touched.
LEAST_BYTES = 16 << 20
# Since Linux 6.1: moves what is there into huge pages now. Before, the kernel does that by and by.
MADV_COLLAPSE = 25
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def has_huge_pages() -> bool:
    """Whether this machine gives them to who asks."""
    try:
        return "[never]" not in SETTING.read_text()
    except OSError:
        return False


@contextmanager
def huge_pages(wanted: bool) -> Iterator[None]:
    """Where `wanted`, large memory that the process gets inside lies in huge pages afterwards, as far as there are any.
    Without effect where `has_huge_pages` is false."""
    if not wanted or not has_huge_pages():
        yield
        return
    before = _large_mappings()
    yield
    for begin, end in _large_mappings() - before:
        _move(-(-begin // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, end // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES)


def _move(begin: int, end: int) -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_HUGEPAGE)
    # One by one: a call ends at the first piece of which nothing was touched yet.
    for page in range(begin, end, HUGE_PAGE_BYTES):
        madvise(ctypes.c_void_p(page), ctypes.c_size_t(HUGE_PAGE_BYTES), MADV_COLLAPSE)


def _large_mappings() -> set[tuple[int, int]]:
    """Addresses of the process's own large pieces of memory, those of files not among them."""
    found: set[tuple[int, int]] = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, inode, *_ = line.split()
        begin, end = (int(address, 16) for address in addresses.split("-"))
        if rights == "rw-p" and inode == "0" and end - begin >= LEAST_BYTES:
            found.add((begin, end))
    return found
