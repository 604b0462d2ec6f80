"""Logits after whole prompts: who asks the same once more gets a first token without a step."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 32 << 20
TOKEN_BYTES = 36  # of a prompt's, as Python keeps it


class KnownLogits:
    """Those of the prompts used last, as many as `limit_bytes`, at most MOST_BYTES, hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = min(MOST_BYTES, limit_bytes)
        self._logits: OrderedDict[tuple[int, ...], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def put(self, prompt: tuple[int, ...], logits: NDArray[np.float32]) -> None:
        """Keeps a copy of what was computed after `prompt`."""
        size = _size(prompt, logits)
        if size > self._limit_bytes:
            return
        if prompt not in self._logits:
            self._bytes += size
        self._logits[prompt] = logits.copy()
        self._logits.move_to_end(prompt)
        while self._bytes > self._limit_bytes:
            self._bytes -= _size(*self._logits.popitem(last=False))

    def get(self, prompt: tuple[int, ...]) -> NDArray[np.float32] | None:
        """What came after exactly these tokens, if that is known."""
        logits = self._logits.get(prompt)
        if logits is not None:
            self._logits.move_to_end(prompt)
        return logits


def _size(prompt: tuple[int, ...], logits: NDArray[np.float32]) -> int:
    return logits.nbytes + TOKEN_BYTES * len(prompt)
