"""The engine: one thread that steps all running sequences at once."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from collections.abc import Sequence as ListLike
from pathlib import Path

import numpy as np

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.chat_template import ChatTemplate
from deployments.model.engine.detokenizer import Detokenizer
from deployments.model.engine.kv_cache import KvCache
from deployments.model.engine.model_file import load_model, metadata
from deployments.model.engine.request import (
    EngineError,
    EngineOptions,
    EngineStats,
    Finish,
    FinishReason,
    GenerationRequest,
    PromptTooLong,
    QueueFull,
    TokenDelta,
)
from deployments.model.engine.sequence import Sequence
from deployments.model.engine.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

NO_KV_ROOM = 1  # llama_decode's answer


class Generation:
    """An async iterator of deltas and then exactly one Finish. Leaving it early frees its slot."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence

    def cancel(self) -> None:
        """Ends it after the engine's current step: what is ready is still delivered, then Finish("cancelled")."""
        self._sequence.cancelled = True

    async def __aiter__(self) -> AsyncIterator[TokenDelta | Finish]:
        try:
            while True:
                item = await self._sequence.outbox.get()
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            self._sequence.cancelled = True


class Engine:
    """Generates text for many requests at once: they join and leave between steps (continuous batching).

    Public methods may be called from any event loop's thread. Raises ModelFileError when made.
    """

    def __init__(self, model_path: Path, options: EngineOptions | None = None) -> None:
        self.options = options = options or EngineOptions()
        self._model = load_model(model_path, options.n_gpu_layers)
        trained = llama.llama_model_n_ctx_train(self._model)
        self.max_sequence_tokens = min(options.max_sequence_tokens, trained, options.n_ctx)
        self.model_name = metadata(self._model, "general.name") or model_path.stem
        self.vocabulary = Vocabulary(self._model)
        self._template = ChatTemplate(metadata(self._model, "tokenizer.chat_template"), self.vocabulary)
        self._context = self._open_context()
        self._kv = KvCache(self._context, options.max_slots, options.n_ctx)
        self._batch = Batch(options.n_batch, options.max_slots)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._deliveries: dict[asyncio.AbstractEventLoop, list[tuple[Sequence, TokenDelta | Finish]]] = defaultdict(
            list
        )
        self._prefilled = self._decoded = self._cached = self._steps = 0
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def _open_context(self) -> ctypes.c_void_p:
        options = self.options
        params = llama.llama_context_default_params()
        params.n_ctx = options.n_ctx
        params.n_batch = params.n_ubatch = options.n_batch
        params.n_seq_max = options.max_slots
        params.n_outputs_max = options.max_slots  # fewer than n_seq_max aborts the process
        params.n_threads = params.n_threads_batch = options.n_threads
        params.kv_unified = True
        params.no_perf = True
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise EngineError(f"no memory for a context of {options.n_ctx} tokens; lower n_ctx")
        return context

    # Callers' side

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text; names of special tokens in it stay text."""
        return self.vocabulary.tokenize(text)

    def render_chat(self, messages: ListLike[Mapping[str, str]]) -> list[int]:
        """Prompt for the next assistant message after `messages` ({"role", "content"})."""
        return self._template.render(messages)

    def stats(self) -> EngineStats:
        """Where the engine stands."""
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_used_tokens=self._kv.used_tokens,
            kv_total_tokens=self._kv.total_tokens,
            prefill_tokens_total=self._prefilled,
            decode_tokens_total=self._decoded,
            cached_tokens_total=self._cached,
            steps_total=self._steps,
        )

    def generate(self, request: GenerationRequest) -> Generation:
        """Starts a generation. Raises PromptTooLong, QueueFull, EngineError when closed."""
        return Generation(self._submit(request))

    def _submit(self, request: GenerationRequest) -> Sequence:
        prompt = len(request.prompt_token_ids)
        if not 0 < prompt < self.max_sequence_tokens:
            raise PromptTooLong(prompt, self.max_sequence_tokens - 1)
        limit = min(self.max_sequence_tokens, prompt + max(request.max_tokens, 1))
        detokenizer = Detokenizer(self.vocabulary.pieces, request.stop)
        sequence = Sequence(request, detokenizer, limit, asyncio.get_running_loop())
        with self._wake:
            if self._closing:
                raise EngineError("the engine is closed")
            if len(self._waiting) >= self.options.max_queue:
                raise QueueFull(f"{len(self._waiting)} requests wait already")
            self._waiting.append(sequence)
            self._wake.notify()
        return sequence

    def close(self) -> None:
        """Ends all generations with an error and frees the model's memory. Idempotent."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._thread.join()
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)

    # The engine's thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._closing or self._waiting or self._running):
                    self._wake.wait()
                if self._closing:
                    break
            try:
                self._step()
            except Exception:
                # Nobody may wait for ever on a step that failed: all end, and the engine goes on.
                logger.exception("engine step failed")
                self._fail_running("the engine failed while it wrote this answer")
            self._deliver()
        self._fail_running("the engine is shutting down")
        self._deliver()

    def _step(self) -> None:
        self._end_early()
        self._admit()
        rows = self._fill_batch()
        if not self._batch.n:
            return
        status = llama.llama_decode(self._context, self._batch.struct)
        while status == NO_KV_ROOM and self._kv.evict_oldest():
            status = llama.llama_decode(self._context, self._batch.struct)
        if status != 0:
            raise EngineError(f"llama_decode returned {status}")
        self._steps += 1
        for sequence, count, _ in rows:
            assert sequence.slot is not None
            done = len(sequence.slot.tokens)
            sequence.slot.tokens += sequence.tokens[done : done + count]
        if self._batch.outputs:
            self._sample(rows)

    def _end_early(self) -> None:
        for sequence in [*self._running, *self._waiting]:
            reason = sequence.early_end()
            if reason:
                self._end(sequence, reason)

    def _admit(self) -> None:
        while self._waiting and self._kv.admit(self._waiting[0]):
            with self._wake:
                sequence = self._waiting.popleft()
            self._cached += sequence.cached_tokens
            self._running.append(sequence)

    def _fill_batch(self) -> list[tuple[Sequence, int, int | None]]:
        """Rows of this step: (sequence, tokens, output row). Sequences that decode go first; prefill gets the
        rest, or no more than `prefill_chunk` while somebody waits for the next token."""
        batch = self._batch
        batch.clear()
        rows: list[tuple[Sequence, int, int | None]] = []
        left = {s: len(s.tokens) - len(s.slot.tokens) for s in self._running if s.slot}
        decoding = any(count == 1 for count in left.values())
        budget = self.options.prefill_chunk if decoding else batch.capacity
        for sequence, count in sorted(left.items(), key=lambda item: item[1] > 1):
            taken = 1 if count == 1 else min(count, budget)
            taken = min(taken, batch.room)
            if not taken:
                continue
            assert sequence.slot is not None
            start = len(sequence.slot.tokens)
            whole = taken == count
            row = batch.add(sequence.slot.id, sequence.tokens[start : start + taken], start, whole)
            rows.append((sequence, taken, row if whole else None))
            if count == 1:
                self._decoded += 1
            else:
                budget -= taken
                self._prefilled += taken
        return rows

    def _sample(self, rows: list[tuple[Sequence, int, int | None]]) -> None:
        shape = (self._batch.outputs, self.vocabulary.size)
        logits = np.ctypeslib.as_array(llama.llama_get_logits(self._context), shape=shape)
        for sequence, _, row in rows:
            if row is None:
                continue
            token = sequence.sampler.sample(logits[row])
            if token in self.vocabulary.end_ids:
                self._end(sequence, "stop")
                continue
            delta = sequence.accept(token)
            if delta:
                self._deliveries[sequence.loop].append((sequence, delta))
            reason = sequence.early_end()
            if reason:
                self._end(sequence, reason)

    def _end(self, sequence: Sequence, reason: FinishReason, message: str = "") -> None:
        if sequence.slot:
            self._kv.release(sequence)
            self._running.remove(sequence)
        else:
            with self._wake:
                self._waiting.remove(sequence)
        rest = sequence.rest()
        for item in (rest, sequence.finish(reason, message)):
            if item:
                self._deliveries[sequence.loop].append((sequence, item))

    def _fail_running(self, message: str) -> None:
        for sequence in [*self._running, *(self._waiting if self._closing else ())]:
            if sequence.slot:
                self._kv.clear(sequence.slot)
            self._end(sequence, "error", message)

    def _deliver(self) -> None:
        """Hands the step's items over: one wake-up for each event loop, not one for each token."""
        for loop, items in self._deliveries.items():
            try:
                loop.call_soon_threadsafe(_put_all, items)
            except RuntimeError:
                continue  # the caller's loop is closed: nobody reads any more
        self._deliveries = defaultdict(list)


def _put_all(items: list[tuple[Sequence, TokenDelta | Finish]]) -> None:
    for sequence, item in items:
        sequence.outbox.put_nowait(item)
