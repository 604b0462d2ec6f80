"""The engine's own matrix products in place of llama.cpp's: native/own_products.cpp, loaded into this process."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

LIBRARY = Path(__file__).with_name("native") / "own_products.so"
# The version of llama-cpp-python whose llama.cpp calls them as they expect (native/llama.h).
WRITTEN_FOR = "0.3.36"
# Weights for which there are kernels.
TYPES = ("BF16", "Q8_0", "Q4_1")


class OwnProducts:
    """Those of this process. Without effect where the library was not compiled (hatch_build.py), llama.cpp is of
    another version, or the processor lacks AVX512_BF16: llama.cpp then computes as ever."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None

    def install(self) -> None:
        """Puts them in llama.cpp's place. Takes effect where llama.cpp is loaded later: the dynamic linker takes the
        function that it finds first. Idempotent."""
        self._library = self._library or _library()

    @property
    def types(self) -> list[str]:
        """Types of weights whose products are computed here: not by a GPU, not of a mixture's experts, not where
        llama.cpp keeps weights in a layout of its own (Q4_1 and Q8_0 for AMX)."""
        return [*TYPES] if self._library else []

    @property
    def computed(self) -> int:
        """Number of products so far."""
        return self._library.rustygpt_products() if self._library else 0

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Inside, llama.cpp computes. Not to be entered or left while a step is computed."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def _switch(self, on: bool) -> None:
        if self._library:
            self._library.rustygpt_switch(ctypes.c_bool(on))


def _library() -> ctypes.CDLL | None:
    if not LIBRARY.is_file() or version("llama-cpp-python") != WRITTEN_FOR:
        return None
    library = ctypes.CDLL(str(LIBRARY))
    library.rustygpt_has_kernels.restype = ctypes.c_bool
    library.rustygpt_products.restype = ctypes.c_int64
    if not library.rustygpt_has_kernels():
        return None
    ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL)  # the same one, from now on for all to see
    return library
