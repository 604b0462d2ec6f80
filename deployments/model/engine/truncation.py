"""Which tokens may be drawn: top-k, typical and nucleus sampling, exact, and without sorting the vocabulary.

A stage takes candidates and returns those that stay; each looks at the probabilities among what the one before left,
as llama.cpp's samplers do. Candidates are (ids, logits), in no order unless said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Candidates = tuple[NDArray[np.intp], NDArray[np.float32]]

# Values in a group of which only the highest counts, to find the highest of all.
GROUP = 16
# How finely distances are told apart before any is sorted, and how many classes there are: the last has all beyond.
CLASSES_A_NAT, CLASSES = 64, 2048
SMALLEST = float(np.finfo(np.float32).tiny)


def all_of(logits: NDArray[np.float32]) -> Candidates:
    """The whole vocabulary."""
    return np.arange(logits.size), logits


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The k likeliest; of equals at the border those with the lowest ids."""
    ids, logits = candidates
    if k >= logits.size:
        return candidates
    chosen = np.flatnonzero(logits >= _below_kth(logits, k))
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
    total = float(weights.sum(dtype=np.float64))
    # Surprise is a constant less `below`. A token without probability adds nothing; its surprise is infinite.
    expected = np.float32(np.dot(weights, np.where(weights > 0, below, 0)) / total)
    kept = _nearest(np.abs(below - expected), weights, mass * total)
    return ids[kept], logits[kept]


def nucleus(candidates: Candidates, top_p: float, min_p: float) -> Candidates:
    """The likeliest that make up `top_p`, without those less likely than `min_p` times the likeliest. At least one
    stays."""
    ids, logits = candidates
    below = logits - logits.max()
    weights = np.exp(below)
    total = float(weights.sum(dtype=np.float64))
    # All below this together have less than what top_p leaves out, so that none of them is in the nucleus.
    floor = max(total * (1 - top_p) / weights.size, min_p)
    if floor > 0:
        # As a float32 it may be 0, which tokens without any chance reach.
        floor = max(floor, SMALLEST)
    chosen = np.flatnonzero(weights >= floor)
    if top_p < 1:
        chosen = chosen[_nearest(-below[chosen], weights[chosen], top_p * total)]
    return ids[chosen], logits[chosen]


def _below_kth(values: NDArray[np.float32], k: int) -> np.float32:
    """A value that at least k reach, and not many more: the k-th highest of the maxima of disjoint groups. It takes a
    tenth of the time of a partition of a whole vocabulary."""
    columns = values.size // GROUP
    if k < columns:
        values = values[: GROUP * columns].reshape(GROUP, columns).max(axis=0)
    return np.partition(values, values.size - k)[values.size - k]


def _nearest(distances: NDArray[np.float32], weights: NDArray[np.float32], mass: float) -> NDArray[np.intp]:
    """Places of the least distances, as many as make up `mass`; at least one. Distances are in nats, 0 or more.

    Sums by classes of distances find the class at the border, and only that is sorted: a sort of the whole vocabulary
    takes 1 ms on processors that are slow at AVX-512's compression, as AMD's Zen 4 is.
    """
    inside, edge = np.empty(0, np.intp), np.arange(distances.size)
    if distances.size > CLASSES:
        classes = np.minimum(distances * CLASSES_A_NAT, CLASSES - 1).astype(np.intp)
        sums = np.cumsum(np.bincount(classes, weights, CLASSES))
        # Rounding may ask for more than all; no mass is that of the first.
        mass = min(max(mass, SMALLEST), float(sums[-1]))
        border = int(np.searchsorted(sums, mass))
        inside, edge = np.flatnonzero(classes < border), np.flatnonzero(classes == border)
        mass -= float(sums[border - 1]) if border else 0.0
    edge = edge[np.argsort(distances[edge], kind="stable")]
    kept = int(np.searchsorted(np.cumsum(weights[edge], dtype=np.float64), mass)) + 1
    return np.concatenate((inside, edge[:kept]))


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
