"""What loading and rewriting a model takes of the memory, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.room import BOUND_BYTES, BOUND_FACTOR, MARGIN_BYTES, Room
from deployments.model.engine.weights import SLAB_BYTES, WeightFormat, requantise
from tests.support.second_model import second_model_file

# Resident bytes at the peak, without what the process took before.
PEAK = """
import json, re, sys
from pathlib import Path
from deployments.model.engine.bindings import llama
from deployments.model.engine.weights import FORMATS, requantise
from deployments.model.engine.probe import load_weights
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import EngineOptions

def kilobytes(name):
    return int(re.search(name + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

llama.llama_backend_init()
begin = kilobytes("VmRSS")
path = Path(sys.argv[2])
if sys.argv[1] == "requantise":
    requantise(path, Path(sys.argv[3]), FORMATS[0], 2)
elif sys.argv[1] == "spared":
    load_weights(path, EngineOptions())
else:
    load_model(path, 0)
print(json.dumps({"peak": (kilobytes("VmHWM") - begin) * 1024, "now": (kilobytes("VmRSS") - begin) * 1024}))
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
# Vocabulary, buffers, and what the libraries allocate once.
SMALL = 32 << 20


@linux
def test_weights_that_are_copied_into_another_layout_are_not_in_memory_twice(tmp_path: Path) -> None:
    """Q4_0 is copied on processors that have kernels for the copies."""
    model = tmp_path / "model.gguf"
    requantise(bundled_model_file(), model, WeightFormat("Q4_0", 2, 18 / 32), usable_cores())
    size = model.stat().st_size
    spared, plain = _measured("spared", model), _measured("plain", model)
    assert spared["now"] <= size + SMALL
    assert spared["peak"] <= 1.5 * size + SMALL
    assert spared["now"] < plain["now"]


@linux
def test_rewriting_takes_the_file_and_a_slab(tmp_path: Path) -> None:
    model = bundled_model_file()
    assert (
        _measured("requantise", model, tmp_path / "version.gguf")["peak"] <= model.stat().st_size + SLAB_BYTES + SMALL
    )


@linux
def test_rewriting_a_large_tensor_takes_no_more(tmp_path: Path) -> None:
    model = second_model_file()
    # Its vocabulary of 262k tokens lies in the head of the file.
    found = _measured("requantise", model, tmp_path / "version.gguf")
    assert found["peak"] <= model.stat().st_size + SLAB_BYTES + 3 * SMALL


def test_versions_are_tried_where_the_bound_holds_for_them() -> None:
    model = bundled_model_file()
    room, size = Room(model), model.stat().st_size
    assert room.process_bytes < BOUND_FACTOR * size + BOUND_BYTES
    beside_weights = 100 << 20
    largest = room.process_bytes - beside_weights - MARGIN_BYTES
    assert room.fits(largest, size + beside_weights)
    assert not room.fits(largest + 1, size + beside_weights)


def _measured(what: str, *files: Path) -> dict[str, int]:
    command = [sys.executable, "-c", PEAK, what, *map(str, files)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
