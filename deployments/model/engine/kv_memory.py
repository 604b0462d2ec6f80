"""The context's KV memory: one stream of cells for each slot, and copies of them in ordinary memory.

Streams (kv_unified off) instead of one pool: a step then reads the cells of the sequences in it and no others. In one
pool each row scans the masks of all cells in use, idle ones too: at 32 sequences of 600 tokens a step took 592 ms
against 348 ms (SmolLM2-135M Q8_0, 2 cores), and every cached conversation would slow down every step.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import EngineError

Bytes = ctypes.POINTER(ctypes.c_uint8)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A slot's cells outside the context: `data` in llama.cpp's format, for the model's `tokens`."""

    tokens: tuple[int, ...]
    data: NDArray[np.uint8]

    def for_streams(self, streams: int) -> Snapshot:
        """The same cells for a context with another number of streams. Only for models with one KV cache.

        llama.cpp's format (llama_context::state_seq_get_data, llama_kv_cache::state_write): two numbers of its own, the
        number of streams, then for each of them the number of its cells and those cells; all but one have none.
        Numbers have 32 bits."""
        *head, own = self.data[:12].view(np.uint32)
        counts = self.data[12 : 12 + 4 * own].view(np.uint32)
        before = next((stream for stream, count in enumerate(counts) if count), own - 1)
        cells = self.data[4 * (3 + before) : self.data.size - 4 * (own - 1 - before)]
        parts = [np.array([*head, streams], np.uint32).view(np.uint8), cells, np.zeros(4 * (streams - 1), np.uint8)]
        return Snapshot(self.tokens, np.concatenate(parts))


def has_plain_kv_cache(model: ctypes.c_void_p) -> bool:
    """Whether a model's memory is one KV cache, all of whose cells stay until they are cut."""
    return not (
        llama.llama_model_n_swa(model) or llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model)
    )


class KvMemory:
    """Cells of all slots. Positions of a slot are 0..n-1 without a gap. Only the engine's thread may call it."""

    def __init__(self, context: ctypes.c_void_p) -> None:
        self._context = context
        self._memory = llama.llama_get_memory(context)

    def length(self, slot: int) -> int:
        """Cells in use."""
        return llama.llama_memory_seq_pos_max(self._memory, slot) + 1

    def cut(self, slot: int, keep: int) -> int:
        """Forgets all but the first `keep` cells; returns how many are left: fewer where the model's memory cannot
        be cut in the middle (recurrent layers)."""
        if llama.llama_memory_seq_rm(self._memory, slot, keep, -1):
            return keep
        llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def snapshot(self, slot: int, tokens: tuple[int, ...]) -> Snapshot:
        """A copy of the slot, which holds `tokens`. 5 ms for 600 tokens of the bundled model."""
        size = llama.llama_state_seq_get_size(self._context, slot)
        data = _bytes(size)
        if llama.llama_state_seq_get_data(self._context, data.ctypes.data_as(Bytes), size, slot) != size:
            raise EngineError("the state of a sequence could not be copied")
        return Snapshot(tokens, data)

    def restore(self, slot: int, snapshot: Snapshot) -> bool:
        """Puts a copy into a slot instead of what it held. False, and the slot is empty: it does not fit."""
        data = snapshot.data
        # An empty copy would leave what is there.
        self.cut(slot, 0)
        if llama.llama_state_seq_set_data(self._context, data.ctypes.data_as(Bytes), data.size, slot) == data.size:
            return True
        self.cut(slot, 0)
        return False


def _bytes(size: int) -> NDArray[np.uint8]:
    """Memory whose pages are there already, where the system can do that: touching them one by one took 7 ms of 8 for
    a conversation of 124 tokens, in a virtual machine."""
    if not hasattr(mmap, "MAP_POPULATE"):
        return np.empty(size, np.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)
