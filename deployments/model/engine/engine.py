"""The engine as its users see it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as ListLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.bindings import llama
from deployments.model.engine.chat_template import ChatTemplate
from deployments.model.engine.context import open_context
from deployments.model.engine.detokenizer import Detokenizer
from deployments.model.engine.embedder import Embedder
from deployments.model.engine.errors import EngineError, InvalidRequest, PromptTooLong
from deployments.model.engine.generation import Generation
from deployments.model.engine.huge_pages import huge_pages
from deployments.model.engine.model_file import digest, load_model, metadata
from deployments.model.engine.prefill_lane import PrefillLane
from deployments.model.engine.prefix_file import load_prefixes, save_prefixes
from deployments.model.engine.request import EngineOptions, GenerationRequest
from deployments.model.engine.sampler import Sampler
from deployments.model.engine.sequence import Sequence
from deployments.model.engine.stats import EngineStats
from deployments.model.engine.stepper import Stepper
from deployments.model.engine.vocabulary import Vocabulary
from deployments.model.engine.watch import work_is_left
from deployments.model.engine.worker import Worker


class Engine:
    """Generates text for many requests at once: they join and leave between steps (continuous batching).

    Public methods may be called from any event loop's thread. Raises ModelFileError when made.
    """

    def __init__(self, model_path: Path, options: EngineOptions | None = None) -> None:
        self.options = options = options or EngineOptions()
        with huge_pages(options.huge_pages):
            self._model = load_model(model_path, options.n_gpu_layers, not options.huge_pages, options.repack)
        self._digest = digest(model_path)
        trained = llama.llama_model_n_ctx_train(self._model)
        self.max_sequence_tokens = min(options.max_sequence_tokens, trained)
        self.model_name = metadata(self._model, "general.name") or model_path.stem
        self.vocabulary = Vocabulary(self._model)
        self.template = ChatTemplate(metadata(self._model, "tokenizer.chat_template"), self.vocabulary)
        self._context = open_context(self._model, options, self.max_sequence_tokens)
        self._lane = PrefillLane(self._model, options, self.max_sequence_tokens)
        self._stepper = Stepper(self._context, self.vocabulary, options, self._lane)
        self._worker = Worker(self._stepper, options)
        self._embedder: Embedder | None = None
        self._closed = False

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text; names of special tokens in it stay text."""
        return self.vocabulary.tokenize(text)

    def render_chat(self, messages: ListLike[Mapping[str, Any]], tools: ListLike[Mapping[str, Any]] = ()) -> list[int]:
        """Prompt for the next assistant message after `messages` ({"role", "content"}). Raises PromptRefused."""
        return self.template.render(messages, tools)

    def generate(self, request: GenerationRequest) -> Generation:
        """Starts a generation. Raises InvalidRequest, PromptTooLong, QueueFull, EngineError when closed."""
        sampler, limit = self._admitted(request)
        shown = self.vocabulary.shown(request.shown_tokens)
        detokenizer = Detokenizer(self.vocabulary.pieces, request.stop, shown)
        sequence = Sequence(request, detokenizer, sampler, limit, asyncio.get_running_loop())
        try:
            self._worker.submit(sequence)
        except EngineError:
            sampler.close()
            raise
        return Generation(sequence)

    def validate(self, request: GenerationRequest) -> None:
        """Raises what `generate` would raise whatever else is going on: InvalidRequest, PromptTooLong."""
        sampler, _ = self._admitted(request)
        sampler.close()

    def _admitted(self, request: GenerationRequest) -> tuple[Sampler, int]:
        """How its tokens are chosen, and how many it and its prompt may have."""
        if self._closed:
            raise EngineError("the engine is closed")
        prompt = len(request.prompt_token_ids)
        if not prompt:
            raise InvalidRequest("prompt_token_ids", "the prompt is empty")
        if prompt >= self.max_sequence_tokens:
            raise PromptTooLong(prompt, self.max_sequence_tokens - 1)
        self.vocabulary.check(request.prompt_token_ids, "prompt_token_ids")
        self.vocabulary.check(request.produced_token_ids, "produced_token_ids")
        limit = min(self.max_sequence_tokens, prompt + request.max_tokens)
        if prompt + len(request.produced_token_ids) > limit:
            raise PromptTooLong(prompt + len(request.produced_token_ids), limit)
        return Sampler(request, self.vocabulary), limit

    def generate_several(self, request: GenerationRequest, n: int) -> list[Generation]:
        """`n` answers to one prompt, which is computed once; with a seed, the i-th answer's is seed + i.
        Raises as `generate` does, and then none is made."""
        made: list[Generation] = []
        try:
            for i in range(n):
                seed = None if request.seed is None else request.seed + i
                made.append(self.generate(dataclasses.replace(request, seed=seed)))
        except EngineError:
            for generation in made:
                generation.cancel()
            raise
        return made

    async def embed(self, token_ids: ListLike[int]) -> NDArray[np.float32]:
        """The pooled vector of a text, of length 1. Raises NoEmbeddings, PromptTooLong, InvalidRequest."""
        self.vocabulary.check(token_ids, "input")
        return await asyncio.wrap_future(self._worker.call(lambda: self._embed(token_ids)))

    def _embed(self, token_ids: ListLike[int]) -> NDArray[np.float32]:
        if self._embedder is None:
            self._embedder = Embedder(self._model, self.max_sequence_tokens, self.options.n_threads)
        return self._embedder.embed(token_ids)

    def save_prefixes(self, path: Path, limit_bytes: int) -> int:
        """Writes the prefixes used last, at most `limit_bytes`, for `load_prefixes` after a restart; returns how many.
        Raises OSError."""
        cache = self._stepper.cache
        return save_prefixes(path, self._worker.call(cache.snapshots).result(), self._fingerprint(), limit_bytes)

    def load_prefixes(self, path: Path) -> int:
        """Takes back what `save_prefixes` wrote; returns how many prefixes. A missing or damaged file, or that of
        another model, gives none."""
        snapshots = load_prefixes(path, self._fingerprint())
        for snapshot in snapshots:
            self._worker.call(lambda snapshot=snapshot: self._stepper.cache.add(snapshot)).result()
        return len(snapshots)

    def _fingerprint(self) -> str:
        """What two engines must share for the cells of one to be of use to the other."""
        return repr((self._digest, [(digest(path), scale) for path, scale in self.options.lora]))

    @property
    def running(self) -> int:
        """Answers that have a slot now."""
        return len(self._stepper.scheduler.running)

    @property
    def alive(self) -> bool:
        """Whether it can still generate."""
        return self._worker.alive

    def check(self) -> None:
        """Raises AssertionError when the prefix cache and the KV memory do not agree."""
        self._worker.call(self._stepper.cache.check).result()

    def stats(self) -> EngineStats:
        """Where the engine stands."""
        stepper = self._stepper
        return EngineStats(
            running=len(stepper.scheduler.running),
            waiting=self._worker.waiting,
            threads=stepper.threads,
            batch_tokens=stepper.batch_tokens,
            kv_used_tokens=sum(len(slot.tokens) for slot in stepper.slots),
            kv_total_tokens=self.options.max_slots * self.max_sequence_tokens,
            prefix_cache_bytes=stepper.cache.bytes,
            python_seconds_total=stepper.counters.python_seconds_total,
            **dataclasses.asdict(stepper.counters),
        )

    def close(self) -> None:
        """Ends all generations with an error and frees the model's memory. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._worker.close()
        self._lane.close()
        if self._embedder:
            self._embedder.close()
        llama.llama_free(self._context)
        # A grammar that took too long may still read the vocabulary.
        if not work_is_left():
            llama.llama_model_free(self._model)
