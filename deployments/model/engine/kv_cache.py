"""The context's KV memory: which slot holds which tokens, and how a request gets one."""

from __future__ import annotations

import ctypes
import time

from deployments.model.engine.bindings import llama
from deployments.model.engine.sequence import Sequence, Slot

# A shorter common prefix is cheaper to compute again than to bother with.
LEAST_SHARED_TOKENS = 8


class KvCache:
    """Slots over one unified KV memory, in which two slots share the cells of a common prefix.

    Room is reserved for a sequence's whole possible length when it is admitted: a running sequence never
    runs out. Idle slots keep their tokens until the room is wanted.
    """

    def __init__(self, context: ctypes.c_void_p, slots: int, total_tokens: int) -> None:
        self._memory = llama.llama_get_memory(context)
        self.slots = [Slot(i) for i in range(slots)]
        self.total_tokens = total_tokens

    @property
    def reserved_tokens(self) -> int:
        """Cells that running sequences may come to need."""
        return sum(slot.sequence.limit_tokens for slot in self.slots if slot.sequence)

    @property
    def used_tokens(self) -> int:
        """Tokens computed, shared ones counted once a slot."""
        return sum(len(slot.tokens) for slot in self.slots)

    def admit(self, sequence: Sequence) -> bool:
        """Gives the sequence a slot that holds as much of its prefix as any does. False: no room now."""
        idle = [slot for slot in self.slots if slot.sequence is None]
        if not idle or self.reserved_tokens + sequence.limit_tokens > self.total_tokens:
            return False
        # The last token is always computed anew: its logits are wanted.
        wanted = sequence.tokens[:-1]
        source = max(self.slots, key=lambda slot: slot.common_prefix(wanted))
        shared = source.common_prefix(wanted)
        if shared < LEAST_SHARED_TOKENS:
            shared, slot = 0, min(idle, key=lambda slot: (bool(slot.tokens), slot.last_used))
        elif source.sequence is None and shared * 2 >= len(source.tokens):
            slot = source
        else:
            slot = min(
                (s for s in idle if s is not source),
                key=lambda s: (bool(s.tokens), s.last_used),
                default=source,
            )
        if slot is not source or shared == 0:
            self._cut(slot, 0)
            if shared:
                llama.llama_memory_seq_cp(self._memory, source.id, slot.id, 0, shared)
                slot.tokens = source.tokens[:shared]
        else:
            self._cut(slot, shared)
        slot.sequence, sequence.slot, sequence.cached_tokens = sequence, slot, len(slot.tokens)
        return True

    def release(self, sequence: Sequence) -> None:
        """Frees the slot; what it computed stays as a prefix for others."""
        slot = sequence.slot
        assert slot is not None
        assert slot.sequence is sequence
        slot.sequence, sequence.slot, slot.last_used = None, None, time.monotonic()

    def evict_oldest(self) -> bool:
        """Empties the idle slot that was used longest ago. False: none holds anything."""
        idle = [slot for slot in self.slots if slot.sequence is None and slot.tokens]
        if not idle:
            return False
        self._cut(min(idle, key=lambda slot: slot.last_used), 0)
        return True

    def clear(self, slot: Slot) -> None:
        """Forgets a slot's tokens, whose state is unknown after a failed step."""
        self._cut(slot, 0)

    def _cut(self, slot: Slot, keep: int) -> None:
        if len(slot.tokens) <= keep and keep:
            return
        if not llama.llama_memory_seq_rm(self._memory, slot.id, keep, -1) and keep:
            # Memories that cannot be cut in the middle (recurrent models) are emptied.
            llama.llama_memory_seq_rm(self._memory, slot.id, -1, -1)
            keep = 0
        del slot.tokens[keep:]
