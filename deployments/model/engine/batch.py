"""llama_batch over numpy memory: rows are written in place, nothing is copied."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from deployments.model.engine.bindings import llama


class Batch:
    """At most `capacity` rows (token, position, slot, wants logits). Invariant: n <= capacity."""

    def __init__(self, capacity: int, slots: int) -> None:
        self.capacity = capacity
        self.n = 0
        self.outputs = 0
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        self._ids = np.arange(slots, dtype=np.int32)
        self._id_addresses = (self._ids.ctypes.data + 4 * np.arange(slots)).astype(np.uint64)
        self._slots = np.zeros(capacity + 1, np.uint64)
        self.struct = llama.llama_batch()
        for name, array, kind in (
            ("token", self._token, ctypes.c_int32),
            ("pos", self._position, ctypes.c_int32),
            ("n_seq_id", self._counts, ctypes.c_int32),
            ("seq_id", self._slots, ctypes.POINTER(ctypes.c_int32)),
            ("logits", self._logits, ctypes.c_int8),
        ):
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, ctypes.POINTER(kind)))

    def clear(self) -> None:
        """Empties the batch."""
        self.n = self.outputs = 0

    @property
    def room(self) -> int:
        """Rows left."""
        return self.capacity - self.n

    def add(self, slot: int, tokens: Sequence[int], first_position: int, outputs: int, padding: int = 0) -> int:
        """Appends consecutive tokens of one slot, the last `outputs` of which want logits, and `padding` rows after
        them that are to be forgotten; returns the first output's row in the logits."""
        start, end = self.n, self.n + len(tokens)
        self.n = end + padding
        assert self.n <= self.capacity
        self._token[start:end] = tokens
        self._token[end : self.n] = tokens[-1]
        self._position[start : self.n] = range(first_position, first_position + len(tokens) + padding)
        self._slots[start : self.n] = self._id_addresses[slot]
        self._logits[start : self.n] = 0
        if outputs:
            self._logits[end - outputs : end] = 1
        first, self.outputs = self.outputs, self.outputs + outputs
        self.struct.n_tokens = self.n
        return first
