"""GGUF files for tests: versions of the bundled model, and small adapters."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.bindings import llama

STRING, FLOAT32, F32_TENSOR, ALIGNMENT = 8, 6, 0, 32
KV_INT = 0


def with_pooling(source: Path, target: Path, pooling: int) -> Path:
    """The same model whose file says that its outputs are pooled: 1 is the mean."""
    overrides = (llama.llama_model_kv_override * 2)()
    overrides[0].tag = KV_INT
    overrides[0].key = b"llama.pooling_type"
    overrides[0].value.val_i64 = pooling
    params = llama.llama_model_quantize_default_params()
    params.only_copy = True
    params.kv_overrides = ctypes.cast(overrides, type(params.kv_overrides))
    assert llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0
    return target


def write_adapter(path: Path, tensors: dict[str, NDArray[np.float32]], architecture: str = "llama") -> Path:
    """A LoRA adapter. Shapes are numpy's: rows first."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    facts: dict[str, Any] = {"general.type": "adapter", "general.architecture": architecture, "adapter.type": "lora"}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts) + 1)
    for key, value in facts.items():
        head += string(key) + struct.pack("<I", STRING) + string(value)
    head += string("adapter.lora.alpha") + struct.pack("<If", FLOAT32, 8.0)
    data = b""
    for name, tensor in tensors.items():
        head += string(name) + struct.pack("<I", tensor.ndim)
        head += struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape)) + struct.pack("<IQ", F32_TENSOR, len(data))
        data += tensor.astype("<f4").tobytes()
        data += b"\0" * (-len(data) % ALIGNMENT)
    path.write_bytes(head + b"\0" * (-len(head) % ALIGNMENT) + data)
    return path
