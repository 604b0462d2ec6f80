"""The tile configuration that llama.cpp's AMX code hands to the processor, as this machine's compiler makes it.

The instruction that takes it is replaced by a call that keeps the 64 bytes: no AMX is needed to see them.
"""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deployments.model.engine.backend import variants
from tests.support.broken_library import library_folder

TOOLS = Path(__file__).parents[2] / "tools"
HEADER = TOOLS / "amx_tile_config.h"
FLAGS = ["-O3", "-mamx-tile", "-mamx-int8", "-mno-red-zone", "-fPIC", "-std=c++17"]
# As in llama.cpp's ggml-cpu/amx/mmq.cpp: 8 tiles of so many rows of so many bytes.
ROWS, ROW_BYTES = [8, 8, 16, 16, 16, 16, 16, 16], [64, 64, 32, 32, 64, 64, 64, 64]
SOURCE = """
#include <immintrin.h>
#include <cstdint>
struct config { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; };
extern "C" void configure() {
    alignas(64) config tiles = {};
    tiles.palette = 1;
    for (int i = 0; i < 8; ++i) { tiles.rows[i] = i < 2 ? 8 : 16; tiles.row_bytes[i] = i == 2 || i == 3 ? 32 : 64; }
    _tile_loadconfig(&tiles);
}
"""
KEEPER = """
#include <cstring>
extern "C" { char kept[64]; void keep(const void *config) { memcpy(kept, config, 64); } }
"""

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("g++"), reason="AMX is x86's, and the fault is GCC's"
)


def configured(folder: Path, *flags: str) -> bytes:
    """The bytes that the processor would load."""
    (folder / "source.cpp").write_text(SOURCE)
    (folder / "keeper.cpp").write_text(KEEPER)
    compiled = subprocess.run(
        ["g++", *FLAGS, *flags, "-S", "source.cpp", "-o", "source.s"], cwd=folder, capture_output=True, text=True
    )
    if "unrecognized" in compiled.stderr:
        pytest.skip("this compiler does not know AMX, so llama.cpp's code for it is not compiled")
    assert compiled.returncode == 0, compiled.stderr
    assembly, count = re.subn(
        r"ldtilecfg\s+(\S+)", r"leaq \1, %rdi\n\tcall keep@PLT", (folder / "source.s").read_text()
    )
    assert count == 1
    (folder / "source.s").write_text(assembly)
    subprocess.run(["g++", "-shared", "-fPIC", "source.s", "keeper.cpp", "-o", "tiles.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "tiles.so"))
    library.configure()
    return bytes((ctypes.c_char * 64).in_dll(library, "kept"))


def test_every_tiles_rows_reach_the_processor(tmp_path: Path) -> None:
    found = configured(tmp_path, "-include", str(HEADER))
    assert found[0] == 1
    assert list(memoryview(found[16:32]).cast("H")) == ROW_BYTES
    assert list(found[48:56]) == ROWS


def test_the_recipe_includes_the_header_where_amx_is_compiled() -> None:
    recipe = (TOOLS / "llama.cmake").read_text()
    assert re.search(r"target_compile_options\(ggml-cpu-sapphirerapids PRIVATE \"SHELL:-include .*amx_header", recipe)


@pytest.mark.skipif("sapphirerapids" not in variants(), reason="llama.cpp's AMX code was not compiled here")
def test_the_installed_library_stores_the_configuration_before_it_is_loaded() -> None:
    library = library_folder() / "libggml-cpu-sapphirerapids.so"
    listing = subprocess.run(["objdump", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    before = [block.splitlines()[-60:] for block in listing.split("ldtilecfg")[:-1]]
    assert before
    # The rows' bytes, 16 of 16 and 2 of 8, come from constants: each load follows stores of 16 bytes or more.
    assert all(sum(bool(re.search(r"v?movd?[qau]\w* +%[xyz]mm", line)) for line in lines) >= 2 for lines in before)
