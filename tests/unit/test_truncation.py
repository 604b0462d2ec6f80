"""Top-k, typical, nucleus and drawing, against definitions that sort everything."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deployments.model.engine import truncation

# Distinct values: between equals the definitions leave a choice.
few = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=600, unique=True).map(
    lambda values: np.array(values, np.float32)
)


def vocabulary(seed: int, size: int, spread: float) -> NDArray[np.float32]:
    """As many logits as a model has, some of them without any chance."""
    random = np.random.default_rng(seed)
    logits = np.unique((spread * random.standard_normal(size)).astype(np.float32))
    random.shuffle(logits)
    logits[random.integers(0, logits.size, 100)] = -np.inf
    return logits


many = st.builds(vocabulary, st.integers(0, 1 << 30), st.integers(5_000, 50_000), st.floats(0.01, 8))
logits_of = st.one_of(few, many)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


@settings(max_examples=200, deadline=None)
@given(logits=logits_of, k=st.one_of(st.integers(1, 700), st.integers(1000, 40_000)))
def test_top_k_keeps_the_likeliest(logits: NDArray[np.float32], k: int) -> None:
    ids, values = truncation.top_k(truncation.all_of(logits), k)
    assert len(ids) == min(k, logits.size)
    assert set(values) == set(-np.sort(-logits)[:k])
    assert np.array_equal(values, logits[ids])


def test_top_k_of_equals_keeps_exactly_k() -> None:
    ids, _ = truncation.top_k(truncation.all_of(np.zeros(100, np.float32)), 7)
    assert sorted(ids) == list(range(7))


@settings(max_examples=200, deadline=None)
@given(logits=logits_of, top_p=st.floats(0, 1), min_p=st.floats(0, 1))
@example(logits=vocabulary(0, 5000, 1.0), top_p=1.0, min_p=1e-243)
def test_nucleus_is_the_smallest_set_of_that_mass(logits: NDArray[np.float32], top_p: float, min_p: float) -> None:
    ids, _ = truncation.nucleus(truncation.all_of(logits), top_p, min_p)
    chances = probabilities(logits)
    kept, rest = chances[ids], np.delete(chances, ids)
    assert len(ids) >= 1
    assert kept.min() >= rest.max(initial=0), "the likeliest stay"
    assert kept.min() >= min_p * chances.max() * (1 - 1e-6)
    # One token less would not make up the mass; none less than needed stays, unless min_p took it.
    assert kept.sum() - kept.min() <= top_p + 1e-6
    assert kept.sum() >= top_p - 1e-6 or rest.max(initial=0) <= min_p * chances.max() * (1 + 1e-6)


@settings(max_examples=200, deadline=None)
@given(logits=logits_of, mass=st.floats(0.01, 0.99))
def test_typical_keeps_what_is_nearest_to_the_expected_surprise(logits: NDArray[np.float32], mass: float) -> None:
    ids, _ = truncation.typical(truncation.all_of(logits), mass)
    chances = probabilities(logits)
    surprise = -np.log(np.maximum(chances, 1e-300))
    oddness = np.where(chances > 0, np.abs(surprise - (chances * surprise).sum()), np.inf)
    rest = np.delete(oddness, ids)
    assert oddness[ids].max() <= rest.min(initial=np.inf) + 1e-3
    assert chances[ids].sum() >= mass - 1e-4


@settings(max_examples=200, deadline=None)
@given(logits=logits_of, temperature=st.floats(0.1, 2), uniform=st.floats(0, 1, exclude_max=True))
def test_draw_inverts_the_distribution(logits: NDArray[np.float32], temperature: float, uniform: float) -> None:
    token = truncation.draw(truncation.all_of(logits), temperature, uniform)
    chances = probabilities((logits / np.float32(temperature)).astype(np.float32))
    sums = np.concatenate([[0], np.cumsum(chances)])
    assert sums[token] - 1e-4 <= uniform <= sums[token + 1] + 1e-4
    assert chances[token] > 0


def test_token_without_probability_is_never_drawn() -> None:
    logits = np.full(1000, -np.inf, np.float32)
    logits[[3, 700]] = 0.0
    drawn = {truncation.draw(truncation.all_of(logits), 1.0, u) for u in (0.0, 0.3, 0.5, 0.999999)}
    assert drawn == {3, 700}
