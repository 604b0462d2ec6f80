"""Products that the engine computes itself, through ggml, which calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest
from deployments.model.engine import own_products as module
from deployments.model.engine.backend import own_products
from deployments.model.engine.weights import FORMATS, requantise
from tests.support.ggml import product, products, quantised

BF16, Q4_1, Q5_0, Q8_0 = 30, 3, 6, 8  # ggml's numbers

kinds = pytest.mark.parametrize("kind", [BF16, Q4_1, Q8_0], ids=["BF16", "Q4_1", "Q8_0"])
PROCESSOR = Path("/proc/cpuinfo").read_text()
# Of the processor, not of what was loaded: a library that is missing has to fail.
needs_kernels = pytest.mark.skipif("avx512_bf16" not in PROCESSOR, reason="the processor lacks AVX512_BF16")


def numbers(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def as_bf16(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rounded to the nearest, to even between two."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def meant(kind: int, weights: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The numbers that the bytes stand for, as far as BF16 has them."""
    if kind == BF16:
        return (weights.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if kind == Q8_0:
        blocks = weights.reshape(len(weights), -1, 34)
        scale = blocks[..., :2].copy().view(np.float16).astype(np.float32)
        return as_bf16(blocks[..., 2:].view(np.int8) * scale).reshape(len(weights), -1)
    blocks = weights.reshape(len(weights), -1, 20)
    scale, least = (blocks[..., i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    packed = blocks[..., 4:]
    return as_bf16(np.concatenate((packed & 15, packed >> 4), -1) * scale + least).reshape(len(weights), -1)


def assert_right(kind: int, m: int, n: int, k: int, threads: int) -> None:
    weights, values = quantised(kind, numbers((m, k), m)), numbers((n, k), n)
    a, b = meant(kind, weights), as_bf16(values)
    error = np.abs(product(kind, weights, values, threads) - b @ a.T)
    # What a sum of k numbers of 24 bits may be off by.
    assert np.all(error <= 2**-20 * (np.abs(b) @ np.abs(a).T))


@needs_kernels
@kinds
@given(m=st.integers(1, 300), n=st.integers(1, 150), blocks=st.integers(1, 12), threads=st.integers(1, 3))
def test_products_are_right_for_any_number_of_rows_columns_and_threads(
    kind: int, m: int, n: int, blocks: int, threads: int
) -> None:
    assert_right(kind, m, n, 32 * blocks, threads)


@needs_kernels
@kinds
@pytest.mark.parametrize(
    ("m", "n", "k"), [(8200, 9, 576), (600, 40, 11008), (30000, 3, 576), (301, 600, 96), (5000, 131, 1024), (1, 2, 32)]
)
def test_large_and_odd_products_are_right(kind: int, m: int, n: int, k: int) -> None:
    assert_right(kind, m, n, k, 2)


@needs_kernels
@kinds
def test_several_products_of_one_operation_do_not_disturb_each_other(kind: int) -> None:
    # More columns than are divided evenly: threads that are done with one product begin the next.
    weights = np.stack([quantised(kind, numbers((200, 64), i)) for i in range(6)])
    values = np.stack([numbers((150, 64), i) for i in range(6)])
    together = products(kind, weights, values, 2)
    for i in range(6):
        np.testing.assert_array_equal(together[i], product(kind, weights[i], values[i], 1))


def test_they_were_written_for_the_pinned_llama_cpp() -> None:
    assert version("llama-cpp-python") == module.WRITTEN_FOR


@needs_kernels
@kinds
def test_they_are_computed_by_the_engines_own_kernels(kind: int) -> None:
    before = own_products.computed
    assert_right(kind, 64, 8, 128, 2)
    assert own_products.computed == before + 1


def test_what_no_kernel_is_for_is_llama_cpps() -> None:
    before = own_products.computed
    values = numbers((8, 128), 1)
    product(BF16, quantised(BF16, numbers((64, 48), 1)), numbers((8, 48), 1), 2)  # no whole registers
    product(Q5_0, quantised(Q5_0, numbers((64, 128), 1)), values, 2)
    with own_products.switched_off():
        product(Q4_1, quantised(Q4_1, numbers((64, 128), 1)), values, 2)
    assert own_products.computed == before


@needs_kernels
@kinds
@given(n=st.integers(1, 300), m=st.integers(1, 100), threads=st.integers(1, 3))
def test_a_rows_numbers_do_not_depend_on_its_neighbours(kind: int, n: int, m: int, threads: int) -> None:
    weights, values = quantised(kind, numbers((m, 192), m)), numbers((n, 192), n)
    together = product(kind, weights, values, threads)
    np.testing.assert_array_equal(together[:1], product(kind, weights, values[:1], 1))
    np.testing.assert_array_equal(together[-2:], product(kind, weights, values[-2:], 2))


@pytest.mark.parametrize(
    "change",
    [
        "is_file = pathlib.Path.is_file; "
        "pathlib.Path.is_file = lambda path: path.name != 'own_products.so' and is_file(path)",
        "metadata.version = lambda name: 'another'",
    ],
    ids=["no library", "another llama.cpp"],
)
def test_without_the_library_or_with_another_llama_cpp_its_products_are_taken(change: str, tmp_path: Path) -> None:
    # In a process of its own: what is loaded stays.
    weights, values, found = quantised(Q4_1, numbers((64, 128), 1)), numbers((8, 128), 1), tmp_path / "found.npy"
    np.savez(tmp_path / "given.npz", weights=weights, values=values)
    code = f"""
import importlib.metadata as metadata, pathlib
import numpy as np
{change}
from deployments.model.engine.backend import own_products
from tests.support.ggml import product
given = np.load({str(tmp_path / "given.npz")!r})
np.save({str(found)!r}, product({Q4_1}, given["weights"], given["values"], 2))
assert (own_products.types, own_products.computed) == ([], 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    with own_products.switched_off():
        np.testing.assert_array_equal(np.load(found), product(Q4_1, weights, values, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="they are loaded before llama.cpp on Linux only")
def test_every_cpu_variant_of_llama_cpp_calls_them() -> None:
    # Whether this processor runs them or not: which function a variant is bound to is the dynamic linker's matter.
    code = f"""
import ctypes
ctypes.CDLL({str(module.LIBRARY)!r}, mode=ctypes.RTLD_GLOBAL)
from deployments.model.engine import backend
print(*backend.variants())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LD_DEBUG": "bindings"},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    bound = [line for line in done.stderr.splitlines() if line.endswith("`llamafile_sgemm'")]
    for variant in done.stdout.split():
        assert any(f"libggml-cpu-{variant}.so [0] to {module.LIBRARY}" in line for line in bound), variant
    assert bound


@needs_kernels
@kinds
async def test_an_engine_uses_them_and_answers_as_with_llama_cpps(kind: int, tmp_path: Path) -> None:
    if kind != BF16 and "amx_int8" in PROCESSOR:
        pytest.skip("llama.cpp keeps quantised weights in a layout of its own for AMX")
    file = bundled_model_file()
    if other := {BF16: FORMATS[0], Q8_0: FORMATS[1]}.get(kind):
        file = tmp_path / "other.gguf"
        requantise(bundled_model_file(), file, other, 2)
    before = own_products.computed
    token, logprob = await likeliest(file)
    computed = own_products.computed
    assert computed > before
    with own_products.switched_off():
        their_token, their_logprob = await likeliest(file)
    assert own_products.computed == computed
    assert token == their_token
    # llama.cpp rounds values to 8 bits where weights are not BF16.
    assert logprob == pytest.approx(their_logprob, abs=1e-3 if kind == BF16 else 0.1)


async def likeliest(file: Path) -> tuple[int, float]:
    """The likeliest token after a sentence, with its log-probability."""
    with closing(Engine(file, EngineOptions(max_sequence_tokens=256, max_slots=4))) as engine:
        prompt = tuple(engine.vocabulary.tokenize("The capital of France is Paris. The capital of Italy is"))
        request = GenerationRequest(prompt, max_tokens=1, temperature=0.0, top_logprobs=0)
        async for item in engine.generate(request):
            if not isinstance(item, Finish):
                return item.logprobs[0].token_id, item.logprobs[0].logprob
    raise AssertionError("no token")
