"""What was used last, as much of it as some bytes hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

TOKEN_BYTES = 36  # of one in a tuple, as Python keeps it
ENTRY_BYTES = 320  # of the map itself and of a key and a value without what is in them, about


class Recent(Generic[K, V]):
    """A map that forgets what was not used for longest when more than `limit_bytes` are kept; `size` says how many
    what is in an entry takes, ENTRY_BYTES are added. For any thread."""

    def __init__(self, limit_bytes: int, size: Callable[[K, V], int]) -> None:
        self._limit_bytes = limit_bytes
        self._size = size
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """What was put under this key, unless that is forgotten."""
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keeps `value`, unless it is larger than the limit alone, in place of what was there before."""
        size = self._bytes_of(key, value)
        with self._lock:
            if key in self._kept:
                self._bytes -= self._bytes_of(key, self._kept.pop(key))
            if size > self._limit_bytes:
                return
            self._kept[key] = value
            self._bytes += size
            while self._bytes > self._limit_bytes:
                self._bytes -= self._bytes_of(*self._kept.popitem(last=False))

    def _bytes_of(self, key: K, value: V) -> int:
        return ENTRY_BYTES + self._size(key, value)
