"""What a process may use, and what is chosen from it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from deployments.config import bundled_model_file
from deployments.model.engine import ModelShape, choose_sizes, detect_hardware
from deployments.model.engine.hardware import Gpu, Hardware, usable_cores

GIB = 2**30
SMALL = ModelShape(file_bytes=100 << 20, layers=30, trained_tokens=8192, kv_token_bytes=23040)
LARGE = ModelShape(file_bytes=5 * GIB, layers=32, trained_tokens=131072, kv_token_bytes=131072)


def machine(memory_gib: float, gpu: Gpu | None = None, cores: int = 4) -> Hardware:
    return Hardware(cores, int(memory_gib * GIB), int(memory_gib * GIB), gpu)


def test_container_limits_what_is_seen(tmp_path: Path) -> None:
    everything = usable_cores(tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 4}\n")
    found = detect_hardware(tmp_path)
    assert (found.cores, found.memory_bytes) == (1, GIB)
    assert found.available_bytes <= GIB * 3 // 4
    assert found.spendable_bytes < found.available_bytes
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert usable_cores(tmp_path) == everything
    assert detect_hardware(tmp_path).memory_bytes > GIB


def test_bundled_model_tells_its_shape() -> None:
    shape = ModelShape.read(bundled_model_file())
    # 30 layers, 3 heads of 64 for keys and as many for values, 2 bytes each.
    assert (shape.layers, shape.trained_tokens, shape.kv_token_bytes) == (30, 8192, 30 * 3 * (64 + 64) * 2)


def test_small_memory_gets_a_small_context() -> None:
    assert choose_sizes(machine(24), SMALL).sequence_tokens == 8192
    assert choose_sizes(machine(1), SMALL).sequence_tokens == 1024
    assert choose_sizes(machine(24), LARGE).slots >= 1


@given(memory=st.floats(0.5, 200), model=st.sampled_from([SMALL, LARGE]), cores=st.integers(1, 64))
def test_chosen_memory_fits_beside_the_model(memory: float, model: ModelShape, cores: int) -> None:
    hardware = machine(memory, cores=cores)
    sizes = choose_sizes(hardware, model)
    assert 1 <= sizes.slots <= 16
    assert 0 < sizes.sequence_tokens <= model.trained_tokens
    left = hardware.spendable_bytes - model.file_bytes
    assert sizes.slots == 1 or sizes.slots * sizes.sequence_tokens * model.kv_token_bytes <= left


def test_what_is_given_is_taken() -> None:
    sizes = choose_sizes(machine(2), LARGE, sequence_tokens=5000, slots=40, gpu_layers=7, can_offload=True)
    assert (sizes.sequence_tokens, sizes.slots, sizes.gpu_layers) == (5000, 40, 7)


def test_gpu_takes_all_layers_that_fit_it() -> None:
    def layers(gpu: Gpu | None, can_offload: bool = True) -> int:
        return choose_sizes(machine(32, gpu), LARGE, can_offload=can_offload).gpu_layers

    assert layers(Gpu("cuda", 24 * GIB)) == -1
    assert 0 < layers(Gpu("rocm", 4 * GIB)) < LARGE.layers
    assert layers(Gpu("cuda", None)) == LARGE.layers // 2
    assert layers(None) == 0
    assert layers(Gpu("cuda", 24 * GIB), can_offload=False) == 0, "this build of llama.cpp computes on processors only"
