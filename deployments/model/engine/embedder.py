"""Texts as vectors, with a model that was made for it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import EngineError, NoEmbeddings, PromptTooLong
from deployments.model.engine.model_file import last_errors

POOLING_NONE, POOLING_RANK = 0, 4


class Embedder:
    """A context of its own beside the one that generates. Raises NoEmbeddings when made for a model whose file names
    no pooling. For one thread at a time."""

    def __init__(self, model: ctypes.c_void_p, most_tokens: int, threads: int) -> None:
        params = llama.llama_context_default_params()
        # The attention of most such models is not causal: a text is computed in one piece.
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = self.most_tokens = most_tokens
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.no_perf = True
        self._context = llama.llama_init_from_model(model, params)
        if not self._context:
            raise EngineError("no memory for embeddings; lower max_sequence_tokens")
        if llama.llama_pooling_type(self._context) in (POOLING_NONE, POOLING_RANK):
            self.close()
            raise NoEmbeddings("this model makes no embeddings: its file names no pooling; use an embedding model")
        self.size: int = llama.llama_model_n_embd_out(model)
        self._batch = Batch(most_tokens, 1)

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The pooled vector of a text, of length 1. Raises PromptTooLong for none or too many tokens."""
        if not 0 < len(tokens) <= self.most_tokens:
            raise PromptTooLong(len(tokens), self.most_tokens)
        memory = llama.llama_get_memory(self._context)
        if memory:
            llama.llama_memory_clear(memory, False)
        self._batch.clear()
        self._batch.add(0, tokens, 0, len(tokens))
        last_errors.clear()
        if llama.llama_decode(self._context, self._batch.struct) != 0:
            raise EngineError(f"the text could not be embedded: {' '.join(last_errors)}")
        view = np.ctypeslib.as_array(llama.llama_get_embeddings_seq(self._context, 0), shape=(self.size,))
        length = float(np.linalg.norm(view))
        return np.divide(view, length or 1.0, dtype=np.float32)

    def close(self) -> None:
        """Frees the context."""
        llama.llama_free(self._context)
