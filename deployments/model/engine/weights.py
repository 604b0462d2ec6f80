"""The same model in another number format, for which this processor has fast kernels.

python -m deployments.model.engine.weights    # tasks on its input: {"model": path, "file": path, "format": name, ...}
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import EngineError
from deployments.model.engine.model_file import check_model_file, last_errors
from deployments.model.engine.task_process import serve

# Rows of a tensor that are converted at once. llama.cpp takes 8 GiB: for tensors of many rows that is more than the
# model.
SLAB_BYTES = 64 << 20


@dataclass(frozen=True)
class WeightFormat:
    """llama.cpp's number of a file type, and what a weight takes."""

    name: str
    file_type: int
    bytes_per_weight: float


# Smaller ones cost more quality than is allowed: made from Q4_1, IQ4_NL diverges by 0.21 nats, Q4_0 by 0.28.
FORMATS = (WeightFormat("BF16", 32, 2.0), WeightFormat("Q8_0", 7, 34 / 32))


def requantise(source: Path, target: Path, wanted: WeightFormat, threads: int) -> None:
    """Writes `source` in the wanted format, as a whole or not at all. Takes the memory of `source`, which is mapped,
    and SLAB_BYTES. Raises ModelFileError, EngineError, OSError."""
    check_model_file(source)
    params = llama.llama_model_quantize_default_params()
    params.ftype = wanted.file_type
    params.allow_requantize = True
    params.nthread = threads
    params.max_buf_size = SLAB_BYTES
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    last_errors.clear()
    try:
        if llama.llama_model_quantize(str(source).encode(), str(part).encode(), ctypes.byref(params)) != 0:
            raise EngineError(f"{source} could not be written as {wanted.name}: {' '.join(last_errors)}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _do(task: dict[str, Any]) -> dict[str, Any]:
    wanted = next(form for form in FORMATS if form.name == task["format"])
    requantise(Path(task["model"]), Path(task["file"]), wanted, task["threads"])
    return {}


if __name__ == "__main__":
    serve(_do)
