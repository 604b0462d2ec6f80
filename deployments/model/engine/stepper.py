"""One step of the engine: admit, plan a batch, compute it, sample, accept."""

from __future__ import annotations

import ctypes
import logging
import time

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import most_outputs
from deployments.model.engine.core_sharing import CoreSharing
from deployments.model.engine.errors import EngineError, GrammarTooSlow
from deployments.model.engine.even_parts import Limits, Part, even_parts
from deployments.model.engine.known_logits import KnownLogits
from deployments.model.engine.kv_memory import KvMemory, Snapshot, has_plain_kv_cache
from deployments.model.engine.model_file import last_errors
from deployments.model.engine.prefill_lane import PrefillLane
from deployments.model.engine.prefix_cache import PrefixCache
from deployments.model.engine.request import EngineOptions, Finish, FinishReason, TokenDelta
from deployments.model.engine.row import Chosen, Row
from deployments.model.engine.scheduler import Scheduler
from deployments.model.engine.sequence import Sequence, Slot
from deployments.model.engine.speculation import MOST_DRAFTING_SEQUENCES
from deployments.model.engine.stats import Counters
from deployments.model.engine.step_times import StepTimes
from deployments.model.engine.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# With nothing to do but to wait for the lane, new requests are looked for so often.
LANE_WAIT_SECONDS = 0.01

Item = tuple[Sequence, TokenDelta | Finish]


class Stepper:
    """All sequences and the context that they share. For one thread only."""

    def __init__(
        self, context: ctypes.c_void_p, vocabulary: Vocabulary, options: EngineOptions, lane: PrefillLane
    ) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._options = options
        self.slots = [Slot(i) for i in range(options.max_slots)]
        self._memory = KvMemory(context)
        model = llama.llama_get_model(context)
        self._cells = min(llama.llama_n_ctx_seq(context), llama.llama_model_n_ctx_train(model))
        # In one pool, or with more than one kind of memory, llama.cpp splits a step otherwise.
        self._evens_parts = has_plain_kv_cache(model) and not options.kv_unified
        self.cache = PrefixCache(self._memory, self.slots, options.prefix_cache_bytes)
        self._known = KnownLogits(options.prefix_cache_bytes)
        self.scheduler = Scheduler(self.slots)
        self.counters = Counters()
        self.threads = options.n_threads
        self.batch_tokens = 0
        self.answer_seconds = 1.0
        self._batch = Batch(options.most_step_tokens, options.max_slots)
        self._times = StepTimes(most_outputs(options), options.n_batch)
        self._cores = CoreSharing(options.n_threads)
        self._lane = lane
        self._gap_steps = 0
        self._items: list[Item] = []

    def step(self) -> None:
        """Makes at least one token for each sequence that decodes, and goes on with prompts. Raises EngineError when
        the batch could not be computed: then `fail` those that run."""
        began = time.perf_counter()
        self._end_early()
        self._prefill_aside()
        self._admit()
        self._close_gap()
        rows = self._fill_batch()
        if rows:
            computed = self._compute(rows)
            sampling = time.perf_counter()
            chosen = self._sample(rows)
            sampled = time.perf_counter() - sampling
            self._accept(chosen)
            self.counters.steps_total += 1
            self.counters.compute_seconds_total += computed
            self.counters.sample_seconds_total += sampled
            self.counters.step_seconds_total += time.perf_counter() - began
        elif not self._items:
            self._lane.threads = self._cores.threads()
            self._lane.wait(LANE_WAIT_SECONDS)

    def rest(self) -> None:
        """There is nothing to do for now; `resume` tells when there is."""
        self._cores.pause()

    def resume(self) -> None:
        """Work has come after a rest."""
        self._cores.resume()

    def take_items(self) -> list[Item]:
        """What has become ready since the last call, in order."""
        items, self._items = self._items, []
        return items

    def fail(self, sequences: list[Sequence], message: str) -> None:
        """Ends sequences with an error. What their slots hold is unknown and forgotten."""
        for sequence in sequences:
            if slot := sequence.slot:
                self.cache.release(sequence)
                self.cache.forget(slot)
            self._end(sequence, "error", message)

    def _end_early(self) -> None:
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            if reason := sequence.early_end():
                self._end(sequence, reason)

    def _prefill_aside(self) -> None:
        """While somebody decodes, long prompts are computed by the lane. They get their slots when they are short."""
        lane, scheduler, cache = self._lane, self.scheduler, self.cache
        if done := lane.take():
            snapshot, computed = done
            cache.add(snapshot)
            self.counters.prefill_tokens_total += computed
            self.counters.aside_tokens_total += computed
        if lane.sequence and lane.sequence not in scheduler.waiting:
            lane.stop()
        decoding = self._decoding()
        for sequence in [*scheduler.running] if decoding else []:
            if sequence.slot and lane.wants(sequence, len(sequence.slot.tokens)):
                cache.release(sequence)
                scheduler.preempt(sequence)
        for sequence in scheduler.fair_order():
            # Most are too short for it however little of them is there; only for the rest that is looked up.
            wanted = (
                decoding > 0 and lane.wants(sequence, 0) and lane.wants(sequence, cache.longest(sequence.tokens)[0])
            )
            if wanted and not lane.sequence:
                matched, prefix = cache.snapshot(sequence.tokens)
                self._note_prompt(sequence, matched)
                lane.begin(sequence, matched, prefix)
            sequence.is_ready = not wanted and sequence is not lane.sequence

    def _decoding(self) -> int:
        return sum(sequence.missing_tokens == 1 for sequence in self.scheduler.running)

    def _prompts(self) -> int:
        """How many wait for their first token and can have it now: they have a slot, or there is one for them."""
        scheduler = self.scheduler
        free = sum(slot.sequence is None for slot in self.slots)
        ready = sum(sequence.is_ready for sequence in scheduler.waiting)
        return len(scheduler.running) - self._decoding() + min(free, ready)

    def _note_prompt(self, sequence: Sequence, cached_tokens: int) -> None:
        if sequence.cached_tokens is None:
            sequence.cached_tokens = cached_tokens
            self.counters.prompt_tokens_total += len(sequence.tokens)
            self.counters.cached_tokens_total += cached_tokens

    def _admit(self) -> None:
        scheduler, cache = self.scheduler, self.cache
        if not scheduler.waiting:
            return
        if victim := scheduler.victim():
            cache.release(victim)
            scheduler.preempt(victim)
            self.counters.preemptions_total += 1
        budget = self._times.prefill_budget(self._decoding(), self._prompts(), self._batch.capacity)
        known = 0
        for sequence in scheduler.fair_order():
            if not sequence.is_ready:
                continue
            free = scheduler.free_slots()
            # What needs no slot is sampled here: those who have one must not wait for all of it.
            if not free or known == len(self.slots):
                return
            matched, holders = cache.longest(sequence.tokens)
            if not scheduler.has_turn(sequence, matched, budget) or scheduler.awaits_prefix(sequence, matched):
                continue
            if matched == len(sequence.tokens) - 1 and self._begin_known(sequence, holders):
                known += 1
                continue
            # The slot that holds its prefix, else one that holds nothing, else the one with the least to save.
            slot = min(free, key=lambda slot: (slot not in holders, len(slot.tokens), slot.id))
            try:
                cache.fill(slot, sequence)
            except (EngineError, MemoryError, OSError) as error:
                logger.error("a request could not be begun: %s", error)
                cache.forget(slot)
                self._end(sequence, "error", "there is not enough memory to begin this answer")
                continue
            scheduler.start(sequence)
            self._note_prompt(sequence, len(slot.tokens))

    def _begin_known(self, sequence: Sequence, holders: list[Slot | Snapshot]) -> bool:
        """Makes the first token of an answer whose prompt was asked before, without a step. Whether it was the last."""
        is_new = sequence.cached_tokens is None and not sequence.completion_tokens
        logits = self._known.get(sequence.request.prompt_token_ids) if is_new else None
        if logits is None:
            return False
        sequence.cached_tokens = prompt = len(sequence.tokens)
        self._accept(self._choose([Row(sequence, 0, [], 0)], logits[np.newaxis]))
        if sequence in self.scheduler.waiting:
            sequence.cached_tokens = None  # what its slot gets will tell
            return False
        self.counters.prompt_tokens_total += prompt
        self.counters.cached_tokens_total += prompt
        self.cache.used(holders)
        return True

    def _close_gap(self) -> None:
        # A client that has got its answer often asks again at once: the gap is given a step to close by itself.
        gap = self.scheduler.gap()
        self._gap_steps = self._gap_steps + 1 if gap else 0
        if gap and self._gap_steps > 1:
            sequence, slot = gap
            assert sequence.slot is not None
            self.cache.move(sequence.slot, slot)

    def _fill_batch(self) -> list[Row]:
        """The rows of this step: all that decode, and prompts as far as the time allows for which those who decode may
        be kept waiting, or a little further where that takes no longer. In the order of their slots: where the next
        row's slot is not the next one, llama.cpp computes the rest apart, and reads all weights once more for it."""
        batch = self._batch
        batch.clear()
        decoding = [sequence for sequence in self.scheduler.running if sequence.missing_tokens == 1]
        drafts = {sequence: self._draft(sequence, len(decoding)) for sequence in decoding}
        room = batch.capacity - len(decoding) - sum(map(len, drafts.values()))
        plan = dict(self.scheduler.prefill_plan(self._times.prefill_budget(len(decoding), self._prompts(), room)))
        parts = self._parts(plan, drafts, room)
        rows: list[Row] = []
        for slot in self.slots:
            if (sequence := slot.sequence) is None:
                continue
            done = len(slot.tokens)
            if (draft := drafts.get(sequence)) is not None:
                tokens = [sequence.tokens[-1], *draft]
                rows.append(Row(sequence, 1, draft, batch.add(slot.id, tokens, done, len(tokens))))
            elif part := parts.get(sequence):
                end = done + part.tokens
                whole = end == len(sequence.tokens)
                output = batch.add(slot.id, sequence.tokens[done:end], done, int(whole), part.padding)
                rows.append(Row(sequence, part.tokens, [], output if whole else None, part.padding))
        return rows

    def _parts(self, plan: dict[Sequence, int], drafts: dict[Sequence, list[int]], room: int) -> dict[Sequence, Part]:
        if not self._evens_parts or len(plan) < 2:
            return {sequence: Part(tokens) for sequence, tokens in plan.items()}
        decoding = {sequence.slot.id: 1 + len(draft) for sequence, draft in drafts.items() if sequence.slot}
        options = self._options
        limits = Limits(
            reading=self._times.rows_of_a_reading(),
            micro_batch=min(options.n_batch, options.n_ubatch),
            cells=self._cells,
            room=room - sum(plan.values()),
        )
        return even_parts(plan, decoding, limits)

    def _draft(self, sequence: Sequence, decoding: int) -> list[int]:
        if decoding > MOST_DRAFTING_SEQUENCES or self.threads < self._options.n_threads:
            return []  # no core idles
        # A draft may not pass the end of the answer or of the slot.
        most = min(self._options.draft_tokens, sequence.limit_tokens - len(sequence.tokens) - 1)
        if most <= 0 or not self._times.rows_pay(decoding, most, sequence.drafter.hit_rate):
            return []
        return sequence.drafter.draft(most)

    def _compute(self, rows: list[Row]) -> float:
        """Computes the batch and notes it in the slots; returns the seconds that it took."""
        threads = self._cores.threads()
        if self._lane.sequence:
            threads = self._lane.share(threads)
        if threads != self.threads:
            llama.llama_set_n_threads(self._context, threads, threads)
            self.threads = threads
        self.batch_tokens = self._batch.n
        last_errors.clear()
        began = time.perf_counter()
        status = llama.llama_decode(self._context, self._batch.struct)
        llama.llama_synchronize(self._context)
        seconds = time.perf_counter() - began
        if status != 0:
            raise EngineError(f"llama_decode returned {status}: {' '.join(last_errors)}")
        prefilled = padding = 0
        for row in rows:
            slot = row.sequence.slot
            assert slot is not None
            done = len(slot.tokens)
            slot.tokens += row.sequence.tokens[done : done + row.tokens]
            slot.tokens += row.draft
            if row.padding:
                kept = self._memory.cut(slot.id, len(slot.tokens))
                assert kept == len(slot.tokens), "a plain KV cache can be cut anywhere"
            if row.tokens > 1 or row.output is None:
                prefilled += row.tokens
                padding += row.padding
                self.cache.note(slot)
        decoded = self._batch.n - prefilled - padding
        self.counters.prefill_tokens_total += prefilled
        self.counters.padding_rows_total += padding
        self._times.learn(decoded, prefilled + padding, seconds)
        return seconds

    def _sample(self, rows: list[Row]) -> list[Chosen]:
        """The next tokens of each sequence whose logits are there."""
        if not self._batch.outputs:
            return []
        shape = (self._batch.outputs, self._vocabulary.size)
        logits = np.ctypeslib.as_array(llama.llama_get_logits(self._context), shape=shape)
        for row in rows:
            if row.output is not None and not row.sequence.completion_tokens:
                self._known.put(row.sequence.request.prompt_token_ids, logits[row.output])
        return self._choose(rows, logits)

    def _choose(self, rows: list[Row], logits: NDArray[np.float32]) -> list[Chosen]:
        """One token for each sequence, or several where a draft came true. One whose grammar takes too long ends."""
        chosen: list[Chosen] = []
        too_slow: list[tuple[Sequence, str]] = []
        for row in rows:
            if row.output is None:
                continue
            try:
                chosen.append((row, row.confirm(logits[row.output :], self._vocabulary.end_ids)))
            except GrammarTooSlow as error:
                too_slow.append((row.sequence, str(error)))
        for sequence, message in too_slow:
            logger.warning("an answer ends: its grammar took too long")
            self._end(sequence, "error", message)
        return chosen

    def _accept(self, chosen: list[Chosen]) -> None:
        for row, tokens in chosen:
            sequence = row.sequence
            if row.draft:
                slot = sequence.slot
                assert slot is not None
                # Of the guessed cells those stay that came true.
                self.cache.trim(slot, len(sequence.tokens) + len(tokens) - 1)
                sequence.drafter.learn(len(row.draft), len(tokens) - 1)
                self.counters.drafted_tokens_total += len(row.draft)
                self.counters.accepted_tokens_total += len(tokens) - 1
            for token, logprob in tokens:
                if token in self._vocabulary.end_ids:
                    self._end(sequence, "stop")
                    break
                self.counters.decode_tokens_total += 1
                if delta := sequence.accept(token, logprob):
                    self._items.append((sequence, delta))
                if reason := sequence.early_end():
                    self._end(sequence, reason)
                    break

    def _end(self, sequence: Sequence, reason: FinishReason, message: str = "") -> None:
        if slot := sequence.slot:
            # A draft may have computed more than was wanted at the end.
            self.cache.trim(slot, len(sequence.tokens))
            self.cache.release(sequence)
            self.answer_seconds += 0.1 * (time.monotonic() - sequence.started - self.answer_seconds)
        self.scheduler.end(sequence)
        sequence.sampler.close()
        self.counters.finished_total += 1
        for item in (sequence.rest(), sequence.finish(reason, message)):
            if item:
                self._items.append((sequence, item))
