"""The same model in another number format, for which this processor has fast kernels."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import EngineError
from deployments.model.engine.model_file import last_errors, load_model


@dataclass(frozen=True)
class WeightFormat:
    """llama.cpp's number of a file type, and what a weight takes."""

    name: str
    file_type: int
    bytes_per_weight: float


# Smaller ones cost more quality than is allowed: made from Q4_1, IQ4_NL diverges by 0.21 nats, Q4_0 by 0.28.
FORMATS = (WeightFormat("BF16", 32, 2.0), WeightFormat("Q8_0", 7, 34 / 32))


def requantise(source: Path, target: Path, wanted: WeightFormat, threads: int) -> None:
    """Writes `source` in the wanted format, as a whole or not at all. Raises EngineError, OSError."""
    params = llama.llama_model_quantize_default_params()
    params.ftype = wanted.file_type
    params.allow_requantize = True
    params.nthread = threads
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    last_errors.clear()
    try:
        if llama.llama_model_quantize(str(source).encode(), str(part).encode(), ctypes.byref(params)) != 0:
            raise EngineError(f"{source} could not be written as {wanted.name}: {' '.join(last_errors)}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def weight_count(path: Path) -> int:
    """Number of weights in a model. Raises ModelFileError."""
    model = load_model(path, 0)
    try:
        return llama.llama_model_n_params(model)
    finally:
        llama.llama_model_free(model)
