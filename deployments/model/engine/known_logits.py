"""Logits after whole prompts: who asks the same once more gets a first token without a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.recent import TOKEN_BYTES, Recent

MOST_BYTES = 32 << 20


class KnownLogits:
    """Those of the prompts used last, as many as `limit_bytes`, at most MOST_BYTES, hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._logits: Recent[tuple[int, ...], NDArray[np.float32]] = Recent(min(MOST_BYTES, limit_bytes), _size)

    def put(self, prompt: tuple[int, ...], logits: NDArray[np.float32]) -> None:
        """Keeps a copy of what was computed after `prompt`."""
        self._logits.put(prompt, logits.copy())

    def get(self, prompt: tuple[int, ...]) -> NDArray[np.float32] | None:
        """What came after exactly these tokens, if that is known."""
        return self._logits.get(prompt)


def _size(prompt: tuple[int, ...], logits: NDArray[np.float32]) -> int:
    return logits.nbytes + TOKEN_BYTES * len(prompt)
