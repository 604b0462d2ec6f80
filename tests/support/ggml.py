"""Products by ggml, the library under llama.cpp, as llama.cpp computes them."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine import backend
from deployments.model.engine.bindings import llama

F32 = 0
ROOM = 1 << 20


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def quantised(kind: int, weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(m, bytes of a row): weights as ggml's type `kind`."""
    base, _ = _libraries()
    m, k = weights.shape
    found = np.empty((m, base.ggml_row_size(kind, k)), np.uint8)
    base.ggml_quantize_chunk(kind, weights.ctypes.data, found.ctypes.data, 0, m, k, None)
    return found


def product(kind: int, weights: NDArray[np.uint8], values: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """(n, m): n rows of values with m rows of weights of ggml's type `kind`."""
    return products(kind, weights[None], values[None], threads)[0]


def products(kind: int, weights: NDArray[np.uint8], values: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """(count, n, m): as many products, as one operation."""
    base, cpu = _libraries()
    m, (count, n, k) = weights.shape[1], values.shape
    context = base.ggml_init(_InitParams(weights.nbytes + values.nbytes + 8 * count * n * (m + k) + ROOM, None, False))
    try:
        a = base.ggml_new_tensor_3d(context, kind, k, m, count)
        b = base.ggml_new_tensor_3d(context, F32, k, n, count)
        ctypes.memmove(base.ggml_get_data(a), weights.ctypes.data, weights.nbytes)
        ctypes.memmove(base.ggml_get_data(b), values.ctypes.data, values.nbytes)
        result = base.ggml_mul_mat(context, a, b)
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, result)
        assert cpu.ggml_graph_compute_with_ctx(context, graph, threads) == 0
        found = np.empty((count, n, m), np.float32)
        ctypes.memmove(found.ctypes.data, base.ggml_get_data(result), found.nbytes)
        return found
    finally:
        base.ggml_free(context)


def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    llama.llama_backend_init()
    base, cpu = ctypes.CDLL("libggml-base.so.0"), ctypes.CDLL(str(backend.cpu_library()))
    pointer = ctypes.c_void_p
    for name, arguments in {
        "ggml_init": [_InitParams],
        "ggml_new_tensor_3d": [pointer, ctypes.c_int, *[ctypes.c_int64] * 3],
        "ggml_get_data": [pointer],
        "ggml_quantize_chunk": [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer],
        "ggml_mul_mat": [pointer, pointer, pointer],
        "ggml_new_graph": [pointer],
    }.items():
        function = getattr(base, name)
        function.argtypes, function.restype = arguments, pointer
    base.ggml_row_size.argtypes, base.ggml_row_size.restype = [ctypes.c_int, ctypes.c_int64], ctypes.c_size_t
    base.ggml_build_forward_expand.argtypes = [pointer, pointer]
    base.ggml_free.argtypes = [pointer]
    cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
    return base, cpu
