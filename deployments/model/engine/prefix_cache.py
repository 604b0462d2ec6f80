"""What was computed before and may be wanted again: the slots' own cells, and copies of those that had to make room."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence as ListLike

from deployments.model.engine.kv_memory import KvMemory, Snapshot
from deployments.model.engine.prefix_tree import PrefixTree
from deployments.model.engine.sequence import Sequence, Slot

# Copying so few tokens costs more care than computing them again.
LEAST_SHARED_TOKENS = 16
# Holders of one prefix that are looked at for the cheapest.
CHOICES = 16


class PrefixCache:
    """Slots and snapshots in one prefix tree, the least recently used snapshots dropped beyond `limit_bytes`.

    A running slot is a holder as well: its prompt is shared while its answer is still being made.
    """

    def __init__(self, memory: KvMemory, slots: ListLike[Slot], limit_bytes: int) -> None:
        self._memory = memory
        self._slots = slots
        self._limit_bytes = limit_bytes
        self._tree: PrefixTree[Slot | Snapshot] = PrefixTree()
        self._snapshots: OrderedDict[Snapshot, None] = OrderedDict()
        self.bytes = 0

    def longest(self, tokens: ListLike[int]) -> tuple[int, list[Slot | Snapshot]]:
        """How many leading tokens need not be computed, and who holds them. The last token always is: its logits are
        wanted."""
        length, below = self._tree.longest(tuple(tokens[:-1]))
        return length, list(itertools.islice(below, CHOICES))

    def snapshot(self, tokens: ListLike[int]) -> tuple[int, Snapshot | None]:
        """How many leading tokens anybody holds, and a copy, which may go on with other tokens; None: too few."""
        length, holders = self.longest(tokens)
        return (length, self._snapshot(holders)) if length >= LEAST_SHARED_TOKENS else (0, None)

    def fill(self, slot: Slot, sequence: Sequence) -> None:
        """Gives a free slot to a sequence, with as much of its tokens as anybody holds. What the slot held before
        is kept as a snapshot when nobody else has it."""
        assert slot.sequence is None
        assert sequence.slot is None
        length, holders = self.longest(sequence.tokens)
        if length < LEAST_SHARED_TOKENS:
            self._stash(slot)
            self.trim(slot, 0)
        elif slot in holders:
            if len(slot.tokens) - length >= LEAST_SHARED_TOKENS:
                self._stash(slot)
            self.trim(slot, length)
        else:
            self._copy(holders, slot, length)
        slot.sequence, sequence.slot = sequence, slot
        self.note(slot)

    def release(self, sequence: Sequence) -> None:
        """Takes the slot away from its sequence; what was computed stays."""
        slot = sequence.slot
        assert slot is not None
        assert slot.sequence is sequence
        slot.sequence = sequence.slot = None
        self.note(slot)

    def note(self, slot: Slot) -> None:
        """Makes what a slot has computed by now known to the others."""
        if slot.tokens:
            self._tree.put(slot, tuple(slot.tokens))
        else:
            self._tree.remove(slot)

    def move(self, source: Slot, target: Slot) -> None:
        """Moves a running sequence to a free slot."""
        sequence = source.sequence
        assert sequence is not None
        assert target.sequence is None
        self._stash(target)
        snapshot = self._memory.snapshot(source.id, tuple(source.tokens))
        kept = list(snapshot.tokens) if self._memory.restore(target.id, snapshot) else []
        target.tokens, target.sequence, sequence.slot, source.sequence = kept, sequence, target, None
        self.trim(source, 0)
        self.note(source)
        self.note(target)

    def forget(self, slot: Slot) -> None:
        """Empties a slot, whose state is unknown after a failed step: it may have cells that nobody noted."""
        self._memory.cut(slot.id, 0)
        slot.tokens.clear()
        self.note(slot)

    def trim(self, slot: Slot, keep: int) -> None:
        """Forgets all but the first `keep` cells of a slot."""
        if keep < len(slot.tokens):
            del slot.tokens[self._memory.cut(slot.id, keep) :]

    def clear(self) -> None:
        """Forgets everything. No slot may be running."""
        for snapshot in list(self._snapshots):
            self._drop(snapshot)
        for slot in self._slots:
            self.forget(slot)

    def add(self, snapshot: Snapshot) -> None:
        """Keeps a copy as the one used last, and drops the oldest beyond the limit. One that is larger than the limit
        is not kept."""
        if snapshot.data.nbytes > self._limit_bytes:
            return
        self._tree.put(snapshot, snapshot.tokens)
        if self._tree.is_extended(snapshot):
            self._tree.remove(snapshot)
            return
        self._snapshots[snapshot] = None
        self.bytes += snapshot.data.nbytes
        while self.bytes > self._limit_bytes:
            self._drop(next(iter(self._snapshots)))

    def used(self, holders: ListLike[Slot | Snapshot]) -> None:
        """Copies among these are dropped later than others."""
        for holder in holders:
            if isinstance(holder, Snapshot) and holder in self._snapshots:
                self._snapshots.move_to_end(holder)

    def snapshots(self) -> list[Snapshot]:
        """All that is worth keeping: the copies, the last used last, and then copies of the idle slots."""
        idle = [slot for slot in self._slots if slot.sequence is None and len(slot.tokens) >= LEAST_SHARED_TOKENS]
        return [*self._snapshots, *(self._memory.snapshot(slot.id, tuple(slot.tokens)) for slot in idle)]

    def check(self) -> None:
        """Raises AssertionError when the tree, the slots and the KV memory do not agree."""
        self._tree.check()
        for slot in self._slots:
            assert self._memory.length(slot.id) == len(slot.tokens), f"slot {slot.id} has other cells than tokens"
            assert (slot in self._tree) == bool(slot.tokens), f"slot {slot.id} is not where it should be"
            assert slot.sequence is None or slot.sequence.slot is slot, f"slot {slot.id} is used twice"
            if slot.sequence is None and slot.tokens:
                assert self._tree.tokens(slot) == tuple(slot.tokens), f"slot {slot.id} is known for other tokens"
        assert self.bytes == sum(snapshot.data.nbytes for snapshot in self._snapshots), "bytes miscounted"
        assert self.bytes <= self._limit_bytes, "too many bytes kept"
        assert all(self._tree.tokens(s) == s.tokens for s in self._snapshots), "a snapshot is known for other tokens"

    def _copy(self, holders: list[Slot | Snapshot], slot: Slot, length: int) -> None:
        self._stash(slot)
        snapshot = self._snapshot(holders)
        slot.tokens = list(snapshot.tokens) if self._memory.restore(slot.id, snapshot) else []
        self.trim(slot, min(length, len(slot.tokens)))

    def _snapshot(self, holders: list[Slot | Snapshot]) -> Snapshot:
        # A snapshot needs one copy, a slot two.
        source = next((holder for holder in holders if isinstance(holder, Snapshot)), holders[0])
        if isinstance(source, Slot):
            return self._memory.snapshot(source.id, tuple(source.tokens))
        self.used([source])
        return source

    def _stash(self, slot: Slot) -> None:
        if len(slot.tokens) < LEAST_SHARED_TOKENS or self._limit_bytes == 0:
            return
        self.note(slot)
        if not self._tree.is_extended(slot):
            self._tree.remove(slot)
            self.add(self._memory.snapshot(slot.id, tuple(slot.tokens)))

    def _drop(self, snapshot: Snapshot) -> None:
        del self._snapshots[snapshot]
        self._tree.remove(snapshot)
        self.bytes -= snapshot.data.nbytes
