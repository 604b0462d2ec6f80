"""A copy of llama.cpp's libraries in which a function is broken on purpose, as a compiler's fault might break it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path

# x86: an instruction that is illegal everywhere; and 1.0 as the result, whatever was asked (mov dword [rsi], 1.0; ret).
ILLEGAL, WRONG = b"\x0f\x0b", b"\xc7\x06\x00\x00\x80\x3f\xc3"
# Products of the bundled model's weights, Q4_1, in every CPU variant.
PRODUCT = "ggml_vec_dot_q4_1_q8_1"


def library_folder() -> Path:
    """Where the installed llama-cpp-python has its libraries."""
    package = find_spec("llama_cpp")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "lib"


def cpu_libraries(folder: Path) -> list[Path]:
    """The CPU backends of a folder, one for each variant."""
    return sorted(folder.glob("libggml-cpu-*.so"))


def copy_libraries(target: Path) -> Path:
    """Copies them into the folder `target`, for LLAMA_CPP_LIB_PATH."""
    return shutil.copytree(library_folder(), target)


def overwrite(library: Path, code: bytes, symbol: str = PRODUCT) -> bytes:
    """Writes `code` over the beginning of a function, in place: processes that have the library mapped see it, too.
    Returns what was there."""
    with library.open("r+b") as file:
        offset = _offset(library, file.read(), symbol)
        file.seek(offset)
        before = file.read(len(code))
        file.seek(offset)
        file.write(code)
    return before


def _offset(library: Path, content: bytes, symbol: str) -> int:
    """Where in the file a function begins: its address, by the segment of the program that it lies in."""
    listed = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
    address = next(int(line.split()[0], 16) for line in listed.stdout.splitlines() if line.split()[-1] == symbol)
    (headers,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for number in range(count):
        kind, _, offset, begin, _, length = struct.unpack_from("<IIQQQQ", content, headers + number * size)
        if kind == 1 and begin <= address < begin + length:
            return address - begin + offset
    raise AssertionError(f"{symbol} lies in no segment of {library}")
