"""Products of BF16 weights that the engine computes itself, through ggml, which calls them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest
from deployments.model.engine import own_products as module
from deployments.model.engine.bindings import own_products
from deployments.model.engine.own_products import OwnProducts
from deployments.model.engine.weights import FORMATS, requantise
from tests.support.ggml import product

needs_kernel = pytest.mark.skipif(not own_products.can_compute, reason="the processor lacks AVX512_BF16")


def numbers(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest, to even between two."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def wide(values: NDArray[np.uint16]) -> NDArray[np.float64]:
    return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def assert_right(m: int, n: int, k: int, threads: int) -> None:
    weights, values = bf16(numbers((m, k), m)), numbers((n, k), n)
    a, b = wide(weights), wide(bf16(values))
    error = np.abs(product(weights, values, threads) - b @ a.T)
    # What sums of k numbers of 24 bits may be off by.
    assert np.all(error <= 2**-20 * (np.abs(b) @ np.abs(a).T))


@given(m=st.integers(1, 300), n=st.integers(1, 150), blocks=st.integers(1, 12), threads=st.integers(1, 3))
def test_products_are_right_for_any_number_of_rows_columns_and_threads(
    m: int, n: int, blocks: int, threads: int
) -> None:
    assert_right(m, n, 32 * blocks, threads)


@pytest.mark.parametrize(("m", "n", "k"), [(8200, 9, 576), (301, 600, 96), (5000, 131, 1024), (64, 8, 48)])
def test_large_and_odd_products_are_right(m: int, n: int, k: int) -> None:
    assert_right(m, n, k, 2)


@needs_kernel
def test_they_are_computed_by_the_engines_own_kernel() -> None:
    before = own_products.computed
    assert_right(64, 8, 64, 2)
    assert own_products.computed == before + 1
    with own_products.switched_off():
        assert_right(64, 8, 64, 2)
    assert own_products.computed == before + 1
    # One column is read faster by llama.cpp, and these lengths are none of whole registers.
    assert_right(64, 1, 64, 2)
    assert_right(64, 8, 48, 2)
    assert own_products.computed == before + 1


@needs_kernel
@given(n=st.integers(2, 300), m=st.integers(1, 100), threads=st.integers(1, 3))
def test_a_rows_numbers_do_not_depend_on_its_neighbours(n: int, m: int, threads: int) -> None:
    weights, values = bf16(numbers((m, 160), m)), numbers((n, 160), n)
    together = product(weights, values, threads)
    np.testing.assert_array_equal(together[:2], product(weights, values[:2], 1))
    np.testing.assert_array_equal(together[-2:], product(weights, values[-2:], 2))


def test_without_the_library_llama_cpp_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIBRARY", module.LIBRARY.with_name("missing.so"))
    missing = OwnProducts()
    assert not missing.can_compute
    assert missing.computed == 0
    with missing.switched_off():
        assert_right(64, 8, 64, 1)


@needs_kernel
async def test_an_engine_with_bf16_weights_uses_them_and_answers_as_with_llama_cpps(tmp_path: Path) -> None:
    file = tmp_path / "bf16.gguf"
    requantise(bundled_model_file(), file, FORMATS[0], 2)
    before = own_products.computed
    own = await likeliest(file)
    computed = own_products.computed
    assert computed > before
    with own_products.switched_off():
        theirs = await likeliest(file)
    assert own_products.computed == computed
    assert own.keys() == theirs.keys()
    assert [own[token] for token in theirs] == pytest.approx(list(theirs.values()), abs=0.02)


async def likeliest(file: Path) -> dict[int, float]:
    """Log-probabilities of three first tokens after a prompt."""
    request = GenerationRequest(tuple(range(2000, 2040)), max_tokens=1, temperature=0.0, top_logprobs=3)
    with closing(Engine(file, EngineOptions(max_sequence_tokens=256, max_slots=4))) as engine:
        async for item in engine.generate(request):
            if not isinstance(item, Finish):
                return dict(item.logprobs[0].top)
    raise AssertionError("no token")
