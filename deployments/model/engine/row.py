"""A sequence's part of a step, and what it chooses of the logits that come of it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.request import TokenLogprob
from deployments.model.engine.sequence import Sequence


@dataclass(frozen=True)
class Row:
    """The next `tokens` of a sequence, the guessed ones after them, the first of its rows of logits (None: its prompt
    is not done), and how many rows without meaning follow."""

    sequence: Sequence
    tokens: int
    draft: list[int]
    output: int | None
    padding: int = 0

    def confirm(self, logits: NDArray[np.float32], end_ids: Container[int]) -> list[tuple[int, TokenLogprob | None]]:
        """The tokens that its sampler draws, one after the other, as long as the draft comes true and nothing ends.
        `logits`: (len(draft) + 1, vocabulary), or more rows. Raises GrammarTooSlow."""
        sampler = self.sequence.sampler
        wants_logprobs = self.sequence.request.top_logprobs is not None
        chosen: list[tuple[int, TokenLogprob | None]] = []
        for place, guess in enumerate([*self.draft, None]):
            token = sampler.sample(logits[place])
            chosen.append((token, sampler.logprob(logits[place], token) if wants_logprobs else None))
            if token != guess or token in end_ids:
                break
        return chosen


Chosen = tuple[Row, list[tuple[int, TokenLogprob | None]]]
