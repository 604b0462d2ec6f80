"""How far another version of a model is from the given one, on a text that the product ships.

    python -m deployments.model.engine.quality    # tasks on its input: {"given": path, "versions": {name: path}, ...}

One model is loaded at a time. Of the given one is kept what the comparison needs: for each position the likeliest
tokens with their probabilities, and the probability of the token that follows.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import FLASH_ATTENTION_OFF, FLASH_ATTENTION_ON
from deployments.model.engine.errors import EngineError
from deployments.model.engine.probe import load_weights
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.task_process import serve
from deployments.model.engine.vocabulary import Vocabulary

TEXT = Path(__file__).with_name("quality_text.txt")
# The bound. BF16 and Q8_0 made from Q4_1 diverge by at most 0.003 and 0.005 nats, Q4_0 by more than 0.1.
MOST_PERPLEXITY_CHANGE = 0.01
MOST_DIVERGENCE_NATS = 0.02
# The text is read in pieces of so many tokens, each without those before it.
WINDOW_TOKENS = 512
# Logits are computed for as many tokens at once as have room in so much; llama.cpp has them twice.
LOGITS_BYTES = 16 << 20
# Likeliest tokens that are kept of each position: 30 MB for the text.
KEPT_TOKENS = 2048
# A token this much less likely than the likeliest (nats) is not among those, where there are enough others.
FAR_NATS = 12.0
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Quality:
    """Of a version against the given model: ratio of the perplexities, mean Kullback-Leibler divergence of the next
    token's distribution (nats), share of positions with the same likeliest token."""

    perplexity_ratio: float
    divergence_nats: float
    same_top: float

    @property
    def is_within_bound(self) -> bool:
        """Whether the version may take the given one's place."""
        change = abs(self.perplexity_ratio - 1)
        return change <= MOST_PERPLEXITY_CHANGE and self.divergence_nats <= MOST_DIVERGENCE_NATS


@dataclass(frozen=True)
class Distribution:
    """What is kept of the next token's distribution: ids, the likeliest token's first, their logits, and the
    log-probability of the token that follows in the text. `total` makes logits log-probabilities."""

    ids: NDArray[np.int32]
    logits: NDArray[np.float32]
    total: float
    following: float

    def logs(self) -> NDArray[np.float64]:
        """Log-probabilities of `ids`."""
        return self.logits.astype(np.float64) - self.total


def compare(
    given: Path, versions: dict[str, Path], threads: int, options: EngineOptions | None = None
) -> dict[str, Quality]:
    """Quality of each version, in the memory of the largest and 150 MB. Tokens beyond the KEPT_TOKENS likeliest count
    as one: the divergence is a lower bound of the exact one, 1.9 % below it for each of three versions of the bundled
    model (BF16, Q8_0, Q4_0). Perplexities are exact. Raises ModelFileError, EngineError."""
    options = dataclasses.replace(options or EngineOptions(), n_threads=threads)
    tokens: list[int] = []
    reference: list[Distribution] = []
    for row, following in _rows(given, options, tokens):
        reference.append(_distribution(row, following))
    return {name: _quality(reference, _rows(path, options, tokens)) for name, path in versions.items()}


def _quality(reference: list[Distribution], rows: Iterator[tuple[NDArray[np.float32], int]]) -> Quality:
    worse = divergence = 0.0
    same = count = 0
    for kept, (row, following) in zip(reference, rows, strict=True):
        total = _log_sum(row)
        worse += kept.following - (float(row[following]) - total)
        divergence += _divergence(kept.logs(), row[kept.ids].astype(np.float64) - total)
        same += int(row.argmax()) == int(kept.ids[0])
        count += 1
    return Quality(math.exp(worse / count), divergence / count, same / count)


def _divergence(given: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Of two distributions by the log-probabilities of the same tokens, with all the others as one more."""
    probabilities = np.exp(given)
    rest, other_rest = (max(LEAST_PROBABILITY, 1 - float(p.sum())) for p in (probabilities, np.exp(other)))
    return float((probabilities * (given - other)).sum()) + rest * math.log(rest / other_rest)


def _distribution(row: NDArray[np.float32], following: int) -> Distribution:
    total = _log_sum(row)
    near = np.flatnonzero(row > row.max() - FAR_NATS)
    found = near if near.size >= KEPT_TOKENS else np.arange(row.size)
    if found.size > KEPT_TOKENS:
        found = found[np.argpartition(row[found], -KEPT_TOKENS)[-KEPT_TOKENS:]]
    top = int(row.argmax())
    ids = np.array([top, *found[found != top]], np.int32)
    return Distribution(ids, row[ids], total, float(row[following]) - total)


def _log_sum(row: NDArray[np.float32]) -> float:
    """What the logits are to be lessened by to be log-probabilities."""
    top = row.max()
    return float(top) + math.log(float(np.exp(row - top).sum(dtype=np.float64)))


def _rows(path: Path, options: EngineOptions, tokens: list[int]) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Logits after each token of the text, valid until the next, and the token that follows it. Fills `tokens` where
    it is empty."""
    with closing(_Reader(path, options)) as reader:
        if not tokens:
            tokens += Vocabulary(reader.model).tokenize(TEXT.read_text())
        for begin in range(0, len(tokens) - 1, WINDOW_TOKENS):
            window = tokens[begin : begin + WINDOW_TOKENS]
            yield from zip(reader.logits(window[:-1]), window[1:], strict=True)


class _Reader:
    """A model and a context in which every token wants logits."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self.model = load_weights(path, options)
        self._size: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        rows = max(1, min(WINDOW_TOKENS, LOGITS_BYTES // (4 * self._size)))
        params = llama.llama_context_default_params()
        params.n_ctx = WINDOW_TOKENS
        params.n_batch = params.n_outputs_max = rows
        params.n_ubatch = min(rows, options.n_ubatch)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = options.n_threads
        params.flash_attn_type = FLASH_ATTENTION_ON if options.flash_attention else FLASH_ATTENTION_OFF
        params.no_perf = True
        self._context = llama.llama_init_from_model(self.model, params)
        if not self._context:
            llama.llama_model_free(self.model)
            raise EngineError("no memory to measure the quality of weights")
        self._batch = Batch(rows, 1)

    def logits(self, tokens: list[int]) -> Iterator[NDArray[np.float32]]:
        """Of the next token, after each of `tokens`."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        for begin in range(0, len(tokens), self._batch.capacity):
            block = tokens[begin : begin + self._batch.capacity]
            self._batch.clear()
            self._batch.add(0, block, begin, len(block))
            if llama.llama_decode(self._context, self._batch.struct) != 0:
                raise EngineError("the text that measures the quality of weights could not be computed")
            view = ctypes.cast(llama.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
            yield from np.ctypeslib.as_array(view, shape=(len(block), self._size))

    def close(self) -> None:
        """Frees the model."""
        llama.llama_free(self._context)
        llama.llama_model_free(self.model)


def _do(task: dict[str, Any]) -> dict[str, Any]:
    versions = {name: Path(path) for name, path in task["versions"].items()}
    found = compare(Path(task["given"]), versions, task["threads"], EngineOptions(**task["options"]))
    return {"qualities": {name: dataclasses.asdict(quality) for name, quality in found.items()}}


if __name__ == "__main__":
    serve(_do)
