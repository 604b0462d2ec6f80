"""How large an engine may be on this machine: batch, context, slots, layers on a GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deployments.model.engine.hardware import Hardware
from deployments.model.engine.model_file import read_metadata

GIB = 2**30
CELL_BYTES = 2  # of a key's or value's number in the KV memory: float16
MOST_SLOTS = 16


@dataclass(frozen=True)
class ModelShape:
    """What a GGUF file's head says. `kv_token_bytes`: KV memory of one token."""

    file_bytes: int
    layers: int
    trained_tokens: int
    kv_token_bytes: int

    @classmethod
    def read(cls, path: Path) -> ModelShape:
        """Raises ModelFileError."""
        head = read_metadata(path)
        name = head.get("general.architecture", "")

        def numbers(key: str, default: int) -> list[int]:
            """A number, or one for each layer."""
            return [int(number) for number in re.findall(r"\d+", head.get(f"{name}.{key}", ""))] or [default]

        layers = numbers("block_count", 0)[0]
        heads = max(1, *numbers("attention.head_count", 1))
        kv_heads = numbers("attention.head_count_kv", heads)
        width = numbers("embedding_length", 0)[0] // heads
        keys, values = (numbers(f"attention.{part}_length", width)[0] for part in ("key", "value"))
        cells = sum(kv_heads) if len(kv_heads) > 1 else layers * kv_heads[0]
        trained = numbers("context_length", 4096)[0]
        return cls(path.stat().st_size, layers, trained, cells * (keys + values) * CELL_BYTES)


@dataclass(frozen=True)
class Sizes:
    """Chosen for a machine and a model."""

    batch_tokens: int
    sequence_tokens: int
    slots: int
    gpu_layers: int


def choose_sizes(
    hardware: Hardware,
    model: ModelShape,
    *,
    sequence_tokens: int | None = None,
    slots: int | None = None,
    gpu_layers: int | None = None,
    can_offload: bool = False,
) -> Sizes:
    """What fits, where nothing is given; what is given is taken as it is.

    The longest sequence follows the memory that the model leaves (8192 tokens from 4 GiB on, 4096 from 2, 2048 from 1,
    else 1024), never beyond what the model was trained for; then as many slots as fit into a quarter of it, at most 16.
    """
    gib = hardware.memory_bytes / GIB
    batch = 1024 if gib >= 16 and hardware.cores > 4 else 512 if gib >= 8 else 256
    layers = _gpu_layers(hardware, model) if gpu_layers is None and can_offload else gpu_layers or 0
    on_gpu = layers != 0 and hardware.gpu is not None and hardware.gpu.memory_bytes is not None
    room = hardware.gpu.memory_bytes if on_gpu and hardware.gpu else hardware.spendable_bytes
    left = max(0, (room or 0) - model.file_bytes)
    if sequence_tokens is None:
        fitting = 8192 if left >= 4 * GIB else 4096 if left >= 2 * GIB else 2048 if left >= GIB else 1024
        sequence_tokens = max(1, min(fitting, model.trained_tokens))
    if slots is None:
        each = max(1, model.kv_token_bytes * sequence_tokens)
        slots = max(1, min(MOST_SLOTS, int(left / 4 / each)))
    return Sizes(batch, sequence_tokens, slots, layers)


def _gpu_layers(hardware: Hardware, model: ModelShape) -> int:
    """All where model and KV memory fit the GPU, else as many as do; half where nobody tells its size."""
    if hardware.gpu is None or not model.layers:
        return 0
    if hardware.gpu.memory_bytes is None:
        return model.layers // 2
    # A tenth for llama.cpp's own buffers, and a sequence of 4096 tokens at least.
    room = hardware.gpu.memory_bytes * 0.9 - model.kv_token_bytes * 4096
    if room >= model.file_bytes:
        return -1
    return max(0, int(model.layers * room / model.file_bytes))
