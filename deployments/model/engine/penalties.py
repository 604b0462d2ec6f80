"""What a request adds to and takes from the logits before a token is chosen."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.request import GenerationRequest
from deployments.model.engine.vocabulary import Vocabulary

# The repeat penalty sees so many of the answer's latest tokens, as llama.cpp's does by default.
REPEAT_WINDOW_TOKENS = 64


class Penalties:
    """Bias, then the repeat penalty of the latest tokens, then OpenAI's presence and frequency penalties of the whole
    answer. Tokens produced before count."""

    def __init__(self, request: GenerationRequest, vocabulary: Vocabulary) -> None:
        self._request = request
        bias = dict(request.logit_bias)
        if request.ignore_eos:
            bias |= dict.fromkeys(vocabulary.end_ids, -np.inf)
        self._biased = np.fromiter(bias, np.intp)
        self._bias = np.fromiter(bias.values(), np.float32)
        self._repeats = request.repeat_penalty != 1.0
        self._counts = bool(request.presence_penalty or request.frequency_penalty)
        self._recent = deque(request.produced_token_ids, maxlen=REPEAT_WINDOW_TOKENS)
        self._produced = Counter(request.produced_token_ids)

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Changed logits: a copy, or the same array when nothing changes."""
        repeated = self._repeats and self._recent
        counted = self._counts and self._produced
        if not (self._biased.size or repeated or counted):
            return logits
        changed = logits.copy()
        changed[self._biased] += self._bias
        if repeated:
            seen = np.fromiter(set(self._recent), np.intp)
            values, penalty = changed[seen], self._request.repeat_penalty
            changed[seen] = np.where(values > 0, values / penalty, values * penalty)
        if counted:
            ids = np.fromiter(self._produced, np.intp, len(self._produced))
            times = np.fromiter(self._produced.values(), np.float32, len(self._produced))
            changed[ids] -= self._request.presence_penalty + self._request.frequency_penalty * times
        return changed

    def accept(self, token: int) -> None:
        """Takes note of a token of the answer."""
        if self._repeats:
            self._recent.append(token)
        if self._counts:
            self._produced[token] += 1
