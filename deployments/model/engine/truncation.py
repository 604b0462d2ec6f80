"""Which tokens may be drawn: top-k, typical and nucleus sampling, exact, and without sorting the vocabulary.

A stage takes candidates and returns those that stay; each looks at the probabilities among what the one before left,
as llama.cpp's samplers do. Candidates are (ids, logits), in no order unless said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Candidates = tuple[NDArray[np.intp], NDArray[np.float32]]

# Candidates to begin with where nobody knows how many are needed, and by how much more are tried next.
FIRST_GUESS, GROWTH = 256, 8


def all_of(logits: NDArray[np.float32]) -> Candidates:
    """The whole vocabulary."""
    return np.arange(logits.size), logits


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The k likeliest; of equals at the border those with the lowest ids."""
    ids, logits = candidates
    if k >= logits.size:
        return candidates
    least = np.partition(logits, logits.size - k)[logits.size - k]
    chosen = np.flatnonzero(logits >= least)
    if chosen.size > k:
        order = np.argsort(-logits[chosen], kind="stable")
        chosen = chosen[order[:k]]
    return ids[chosen], logits[chosen]


def typical(candidates: Candidates, mass: float) -> Candidates:
    """Those whose surprise is nearest to the expected one, as many as make up `mass`.
    Source: Meister et al., Locally Typical Sampling, 2022."""
    ids, logits = candidates
    below = logits - logits.max()
    weights = np.exp(below)
    total = weights.sum(dtype=np.float64)
    probabilities = weights / total
    surprise = np.log(total) - below
    # A token without probability adds nothing; its surprise may be infinite.
    expected = float(np.dot(probabilities, np.where(probabilities > 0, surprise, 0)))
    oddness = np.abs(surprise - expected)
    count = FIRST_GUESS
    while True:
        nearest = np.argpartition(oddness, count)[:count] if count < oddness.size else np.arange(oddness.size)
        if nearest.size == oddness.size or probabilities[nearest].sum() >= mass:
            break
        count *= GROWTH
    nearest = nearest[np.argsort(oddness[nearest])]
    kept = nearest[: int(np.searchsorted(np.cumsum(probabilities[nearest]), mass)) + 1]
    return ids[kept], logits[kept]


def nucleus(candidates: Candidates, top_p: float, min_p: float) -> Candidates:
    """The likeliest that make up `top_p`, without those less likely than `min_p` times the likeliest. At least one
    stays."""
    ids, logits = candidates
    weights = np.exp(logits - logits.max())
    total = float(weights.sum(dtype=np.float64))
    # All below this together have less than what top_p leaves out, so that none of them is in the nucleus.
    floor = max(total * (1 - top_p) / weights.size, min_p)
    chosen = np.flatnonzero(weights >= floor)
    if top_p < 1:
        falling = np.sort(weights[chosen])[::-1]  # 90 µs for a whole vocabulary; sorting places takes five times that
        kept = min(int(np.searchsorted(np.cumsum(falling, dtype=np.float64), top_p * total)) + 1, falling.size)
        chosen = chosen[weights[chosen] >= falling[kept - 1]]
        if chosen.size > kept:  # equals at the border, some by rounding only
            chosen = chosen[np.argsort(-logits[chosen], kind="stable")[:kept]]
    return ids[chosen], logits[chosen]


def draw(candidates: Candidates, temperature: float, uniform: float) -> int:
    """The token at `uniform` in 0..1 of the distribution at this temperature."""
    ids, logits = candidates
    weights = np.exp((logits - logits.max()) / temperature)
    # Two levels: the running sum over a whole vocabulary takes 0.4 ms.
    width = 256
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, weights.size, width), dtype=np.float64))
    target = uniform * sums[-1]
    block = min(int(np.searchsorted(sums, target, side="right")), sums.size - 1)
    inner = np.cumsum(weights[block * width : (block + 1) * width], dtype=np.float64)
    place = np.searchsorted(inner, target - (sums[block - 1] if block else 0.0), side="right")
    # Rounding may point behind the last token, or to one without probability.
    place = block * width + min(int(place), inner.size - 1)
    while weights[place] == 0:
        place -= 1
    return int(ids[place])
