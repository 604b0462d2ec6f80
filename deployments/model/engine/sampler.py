"""The next token of a sequence, from its logits."""

from __future__ import annotations

import secrets
from collections import deque

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.request import GenerationRequest, TokenLogprob
from deployments.model.engine.vocabulary import Vocabulary

PENALTY_WINDOW_TOKENS = 64


class Sampler:
    """Exact sampling in numpy: repetition penalty, then top-k, top-p, min-p, then temperature.

    The order and the penalty's form are those of llama.cpp's default chain. Random numbers depend on the seed
    and the number of tokens produced, so that a resumed answer does not repeat those already used.
    """

    def __init__(self, request: GenerationRequest, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._request = request
        seed = request.seed if request.seed is not None else secrets.randbits(64)
        self._random = np.random.default_rng([seed, len(request.produced_token_ids)])
        self._recent = deque(request.produced_token_ids, maxlen=PENALTY_WINDOW_TOKENS)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """Picks a token; `logits` has one value a token of the vocabulary and is left unchanged."""
        request = self._request
        penalised = self._penalise(logits)
        token = int(penalised.argmax()) if request.temperature <= 0 else self._draw(penalised)
        self._recent.append(token)
        return token

    def _penalise(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._request.repeat_penalty == 1.0 or not self._recent:
            return logits
        penalised = logits.copy()
        seen = np.fromiter(set(self._recent), np.int64)
        values = penalised[seen]
        penalty = self._request.repeat_penalty
        penalised[seen] = np.where(values > 0, values / penalty, values * penalty)
        return penalised

    def _draw(self, logits: NDArray[np.float32]) -> int:
        request = self._request
        if 0 < request.top_k < logits.size:
            candidates = np.argpartition(logits, -request.top_k)[-request.top_k :]
        else:
            candidates = np.arange(logits.size)
        order = candidates[np.argsort(-logits[candidates])]
        values = logits[order].astype(np.float64)
        weights = np.exp(values - values[0])
        weights /= weights.sum()
        kept = len(weights)
        if request.top_p < 1.0:
            kept = min(kept, int(np.searchsorted(np.cumsum(weights), request.top_p)) + 1)
        if request.min_p > 0.0:
            kept = min(kept, max(1, int((weights >= request.min_p * weights[0]).sum())))
        heated = np.exp((values[:kept] - values[0]) / request.temperature)
        sums = np.cumsum(heated)
        return int(order[min(int(np.searchsorted(sums, self._random.random() * sums[-1])), kept - 1)])

    def logprob(self, logits: NDArray[np.float32], token: int) -> TokenLogprob:
        """Of a token before penalties and temperature."""
        total = float(np.log(np.exp(logits - logits.max()).sum()) + logits.max())
        return TokenLogprob(token, float(logits[token]) - total)

    def close(self) -> None:
        """Nothing to free."""
