"""How far another version of a model is from the given one, on a text that the product ships."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import EngineError
from deployments.model.engine.model_file import load_model
from deployments.model.engine.vocabulary import Vocabulary

TEXT = Path(__file__).with_name("quality_text.txt")
# The bound. BF16 and Q8_0 made from Q4_1 diverge by at most 0.003 and 0.005 nats, Q4_0 by more than 0.1.
MOST_PERPLEXITY_CHANGE = 0.01
MOST_DIVERGENCE_NATS = 0.02
# The text is read in pieces of so many tokens, each without those before it.
WINDOW_TOKENS = 512


@dataclass(frozen=True)
class Quality:
    """Of a version against the given model: ratio of the perplexities, mean Kullback-Leibler divergence of the next
    token's distribution (nats), share of places with the same likeliest token."""

    perplexity_ratio: float
    divergence_nats: float
    same_top: float

    @property
    def is_within_bound(self) -> bool:
        """Whether the version may take the given one's place."""
        change = abs(self.perplexity_ratio - 1)
        return change <= MOST_PERPLEXITY_CHANGE and self.divergence_nats <= MOST_DIVERGENCE_NATS


class _Reader:
    """A model and a context in which every token wants logits."""

    def __init__(self, path: Path, threads: int) -> None:
        self._model = load_model(path, 0)
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = WINDOW_TOKENS
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            raise EngineError("no memory to measure the quality of weights")
        self._batch = Batch(WINDOW_TOKENS, 1)
        self.vocabulary = Vocabulary(self._model)

    def log_probabilities(self, tokens: list[int]) -> NDArray[np.float32]:
        """Of every next token, a row for each of `tokens`."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        self._batch.clear()
        self._batch.add(0, tokens, 0, len(tokens))
        if llama.llama_decode(self._context, self._batch.struct) != 0:
            raise EngineError("the text that measures the quality of weights could not be computed")
        view = ctypes.cast(llama.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
        logits = np.ctypeslib.as_array(view, shape=(len(tokens), self.vocabulary.size))
        logits = logits - logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def close(self) -> None:
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)


def compare(given: Path, versions: dict[str, Path], threads: int) -> dict[str, Quality]:
    """Quality of each version. Raises ModelFileError, EngineError."""
    reference = _Reader(given, threads)
    readers = {name: _Reader(path, threads) for name, path in versions.items()}
    try:
        return _compare(reference, readers)
    finally:
        for reader in (reference, *readers.values()):
            reader.close()


def _compare(reference: _Reader, readers: dict[str, _Reader]) -> dict[str, Quality]:
    tokens = reference.vocabulary.tokenize(TEXT.read_text())
    sums = {name: np.zeros(3) for name in readers}
    places = 0
    for begin in range(0, len(tokens) - 1, WINDOW_TOKENS):
        window = tokens[begin : begin + WINDOW_TOKENS]
        given = reference.log_probabilities(window)[:-1]
        probabilities, top = np.exp(given), given.argmax(1)
        following = np.arange(len(window) - 1), np.array(window[1:])
        places += len(window) - 1
        for name, reader in readers.items():
            other = reader.log_probabilities(window)[:-1]
            divergence = float((probabilities * (given - other)).sum())
            worse = float((given[following] - other[following]).sum())
            sums[name] += (worse, divergence, int((other.argmax(1) == top).sum()))
    return {
        name: Quality(math.exp(worse / places), divergence / places, same / places)
        for name, (worse, divergence, same) in ((name, map(float, total)) for name, total in sums.items())
    }
