"""Long prompts computed beside the steps: in a context of its own, by a thread of its own, with half of the cores.

In the steps, a long prompt costs those who decode more than it gains: llama.cpp computes its rows apart from theirs and
reads all weights again for them, and attention is slow for pieces of a few rows. What DistServe (Zhong et al., 2024)
does between machines, to compute prompts elsewhere than answers, this does between two halves of one processor.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import threading
from collections.abc import Sequence as ListLike
from concurrent.futures import Future, ThreadPoolExecutor, wait

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import open_context
from deployments.model.engine.errors import EngineError
from deployments.model.engine.kv_memory import KvMemory, Snapshot, has_plain_kv_cache
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.sequence import Sequence

logger = logging.getLogger(__name__)

# Shorter prompts are computed in the steps: several fit into one, and the weights are read once for all. A session of 8
# branching chats, 124 new tokens at each turn, made 190 tokens a second in steps and 232 beside them; waves of 16
# prompts of 60 tokens 520 in steps and 420 beside them (SmolLM2-135M, BF16, 2 cores).
LEAST_TOKENS = 96
# After so many tokens the lane looks whether it is still wanted, and how many threads it may use.
CHUNK_TOKENS = 256


class PrefillLane:
    """Computes one prompt at a time and gives its cells as a snapshot for the prefix cache; not the last token's, whose
    logits are the steps' business. Public methods are for the engine's thread. `threads` may be set at any time."""

    def __init__(self, model: ctypes.c_void_p, options: EngineOptions, sequence_tokens: int) -> None:
        # On a GPU, steps compute prompts at full speed. Without a prefix cache there is nowhere to put the cells, and
        # those of models with more than one kind of memory cannot be handed over.
        self._is_usable = has_plain_kv_cache(model) and not options.n_gpu_layers and options.prefix_cache_bytes > 0
        self.sequence: Sequence | None = None
        self.threads = 1
        self._model = model
        self._options = dataclasses.replace(
            options, max_slots=1, n_batch=CHUNK_TOKENS, n_ubatch=CHUNK_TOKENS, draft_tokens=0
        )
        self._sequence_tokens = sequence_tokens
        self._streams = 1 if options.kv_unified else options.max_slots
        self._context: ctypes.c_void_p | None = None
        self._computed = 0
        self._stop = threading.Event()
        self._work: Future[Snapshot] | None = None
        self._executor = ThreadPoolExecutor(1, "prefill")

    def wants(self, sequence: Sequence, matched_tokens: int) -> bool:
        """Whether a prompt of which so many tokens are there already should be computed here. Once at most: where the
        cache has no room for it, the steps compute it."""
        missing = len(sequence.tokens) - matched_tokens
        return self._is_usable and missing >= LEAST_TOKENS and not sequence.was_aside

    def begin(self, sequence: Sequence, matched_tokens: int, prefix: Snapshot | None) -> None:
        """Computes a prompt, of which `prefix` holds the first `matched_tokens`. The lane must be free."""
        assert self.sequence is None
        self.sequence = sequence
        sequence.was_aside = True
        self._stop.clear()
        self._work = self._executor.submit(self._compute, sequence.tokens[:-1], matched_tokens, prefix)

    def stop(self) -> None:
        """The prompt is not wanted any more: the lane is free after the current piece."""
        self._stop.set()

    def share(self, threads: int) -> int:
        """Takes half of the threads; returns those that are left for the steps, one at least."""
        self.threads = max(1, threads // 2)
        return max(1, threads - self.threads)

    def take(self) -> tuple[Snapshot, int] | None:
        """What has been computed, and how many tokens of it here; None: it is not done, or nothing was begun, or it
        failed. Frees the lane when it is done."""
        if self._work is None or not self._work.done():
            return None
        work, self._work, self.sequence = self._work, None, None
        try:
            return work.result(), self._computed
        except (EngineError, MemoryError, OSError) as error:
            logger.error("a long prompt could not be computed beside the steps and is computed in them: %s", error)
            return None

    def wait(self, seconds: float) -> None:
        """Returns when the lane is done, or after so long."""
        if self._work:
            wait([self._work], seconds)

    def close(self) -> None:
        """Frees the memory. Idempotent."""
        self.stop()
        self._executor.shutdown()
        if self._context:
            llama.llama_free(self._context)
            self._context = None

    def _compute(self, tokens: ListLike[int], done: int, prefix: Snapshot | None) -> Snapshot:
        if self._context is None:
            self._context = open_context(self._model, self._options, self._sequence_tokens)
        memory, batch = KvMemory(self._context), Batch(CHUNK_TOKENS, 1)
        done = memory.cut(0, done if prefix and memory.restore(0, prefix.for_streams(1)) else 0)
        self._computed = 0
        while done < len(tokens) and not self._stop.is_set():
            piece = tokens[done : done + CHUNK_TOKENS]
            batch.clear()
            batch.add(0, piece, done, 0)
            llama.llama_set_n_threads(self._context, self.threads, self.threads)
            if (status := llama.llama_decode(self._context, batch.struct)) != 0:
                raise EngineError(f"llama_decode of a long prompt returned {status}")
            llama.llama_synchronize(self._context)
            done += len(piece)
            self._computed += len(piece)
        return memory.snapshot(0, tuple(tokens[:done])).for_streams(self._streams)
