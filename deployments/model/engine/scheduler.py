"""Who runs, who waits, and whose prompt is computed next. Knows no llama.cpp.

Fair between users: a free slot goes to the user with the fewest running answers, of equals to who waits longest. A
user who has none is not kept waiting behind another's many: the youngest of those is preempted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence as ListLike

from deployments.model.engine.sequence import Sequence, Slot

# A user without an answer waits so long before another's is preempted.
PATIENCE_SECONDS = 1.0
# An answer is not preempted younger than this, so that those who share a slot do not spend their time on changing.
QUANTUM_SECONDS = 2.0
# Prompts are prefilled shortest first, but a second of waiting weighs as much as so many tokens: none waits for ever.
TOKENS_PER_SECOND_WAITED = 500
# Prompts of up to so many tokens are over after a step or two and pass longer ones.
SHORT_PROMPT_TOKENS = 512
# A shorter common prefix is not worth waiting for.
LEAST_AWAITED_TOKENS = 32


class Scheduler:
    """The waiting and the running sequences. Invariant: a running sequence has a slot, a waiting one has none."""

    def __init__(self, slots: ListLike[Slot]) -> None:
        self._slots = slots
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def fair_order(self) -> list[Sequence]:
        """The waiting in the order in which they should get slots, as if each got its own in turn."""
        share = Counter(sequence.user for sequence in self.running)
        turns: list[tuple[int, float, int, Sequence]] = []
        for place, sequence in enumerate(sorted(self.waiting, key=lambda s: s.arrived)):
            turns.append((share[sequence.user], sequence.arrived, place, sequence))
            share[sequence.user] += 1
        return [turn[-1] for turn in sorted(turns)]

    def has_turn(self, sequence: Sequence, matched_tokens: int, budget: int) -> bool:
        """Whether this prompt can be begun in the next step, in which `budget` tokens of prompts are computed: not when
        others that have slots need them all. A slot without a row would lie as a gap between those that have. Of long
        prompts one is computed at a time; short ones pass it."""
        prompts = [other for other in self.running if other.missing_tokens > 1]
        if len(sequence.tokens) - matched_tokens > SHORT_PROMPT_TOKENS:
            return all(other.prefill_tokens <= SHORT_PROMPT_TOKENS for other in prompts)
        return sum(other.missing_tokens for other in prompts if other.prefill_tokens <= SHORT_PROMPT_TOKENS) < budget

    def awaits_prefix(self, sequence: Sequence, matched_tokens: int) -> bool:
        """Whether somebody is just now prefilling more of the sequence's tokens than are there already."""
        least = matched_tokens + LEAST_AWAITED_TOKENS
        if least >= len(sequence.tokens):
            return False
        head = sequence.tokens[:least]
        return any(
            other.missing_tokens > 1
            and other.slot is not None
            and len(other.slot.tokens) < least
            and other.tokens[:least] == head
            for other in self.running
        )

    def free_slots(self) -> list[Slot]:
        """Free slots that keep the running ones on consecutive ids, as far as any does. A gap splits each step in
        two: 97 ms instead of 60 ms for 8 sequences."""
        free = [slot for slot in self._slots if slot.sequence is None]
        used = [sequence.slot.id for sequence in self.running if sequence.slot]
        if not used or not free:
            return free
        low, high = min(used), max(used)
        inside = [slot for slot in free if low < slot.id < high]
        beside = [slot for slot in free if slot.id in (low - 1, high + 1)]
        return inside or beside or free

    def start(self, sequence: Sequence) -> None:
        """Notes that a waiting sequence has got a slot."""
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.started = time.monotonic()
        sequence.prefill_tokens = sequence.missing_tokens

    def end(self, sequence: Sequence) -> None:
        """Forgets a sequence."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Notes that a running sequence has lost its slot. It keeps its age."""
        self.running.remove(sequence)
        self.waiting.append(sequence)

    def victim(self) -> Sequence | None:
        """The running sequence that should make room for a user who has waited long enough and has none."""
        share = Counter(sequence.user for sequence in self.running)
        now = time.monotonic()
        if len(self.running) < len(self._slots) or not any(
            sequence.is_ready and not share[sequence.user] and now - sequence.arrived >= PATIENCE_SECONDS
            for sequence in self.waiting
        ):
            return None
        old = [s for s in self.running if share[s.user] > 1 and now - s.started >= QUANTUM_SECONDS]
        return max(old, key=lambda s: (share[s.user], s.arrived), default=None)

    def gap(self) -> tuple[Sequence, Slot] | None:
        """A running sequence at the end of the used slots, and the free slot among them that it should move to."""
        if len(self.running) < 2:
            return None
        used = {sequence.slot.id for sequence in self.running if sequence.slot}
        low, high = min(used), max(used)
        if high - low + 1 == len(used):
            return None
        last = next(sequence for sequence in self.running if sequence.slot and sequence.slot.id == high)
        return last, next(slot for slot in self._slots if slot.id > low and slot.id not in used)

    def prefill_plan(self, budget: int) -> list[tuple[Sequence, int]]:
        """Whose prompts get how many of `budget` tokens in this step."""
        now = time.monotonic()
        prompts = sorted(
            (sequence for sequence in self.running if sequence.missing_tokens > 1),
            key=lambda s: s.missing_tokens - TOKENS_PER_SECOND_WAITED * (now - s.arrived),
        )
        plan: list[tuple[Sequence, int]] = []
        for sequence in prompts:
            if not (taken := min(sequence.missing_tokens, budget)):
                break
            plan.append((sequence, taken))
            budget -= taken
        return plan
