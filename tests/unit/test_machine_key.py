"""What measurements depend on, and nothing else."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.machine_key import machine_key

ASK = """
import sys
from deployments.model.engine.machine_key import build_key
print(build_key(), "llama_cpp" in sys.modules)
"""


def test_it_names_the_build_the_kernel_the_processor_and_the_cores() -> None:
    key = machine_key()
    assert set(key) == {"build", "system", "processor", "cores"}
    assert platform.release() in key["system"]
    assert key["cores"] == str(usable_cores())
    assert key["processor"].strip()


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """A copy of llama.cpp's libraries."""
    package = find_spec("llama_cpp")
    assert package is not None
    assert package.origin is not None
    return Path(shutil.copytree(Path(package.origin).parent / "lib", tmp_path / "lib"))


def test_one_byte_of_a_library_is_another_build(libraries: Path) -> None:
    before = _build(libraries)
    assert before == _build(None), "a copy is the same build"
    library = next(libraries.glob("libggml-cpu*.so*"))
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    changed = _build(libraries)
    assert changed != before
    library.unlink()
    assert _build(libraries) not in (before, changed)


def _build(folder: Path | None) -> str:
    """The key that a process finds whose libraries lie there. Asserts that it does not load them."""
    environment = os.environ | ({"LLAMA_CPP_LIB_PATH": str(folder)} if folder else {})
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, check=True, capture_output=True, text=True)
    key, has_loaded = done.stdout.split()
    assert has_loaded == "False"
    return key
