"""The engine's own matrix products in place of llama.cpp's: native/own_products.cpp, loaded into this process."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARY = Path(__file__).with_name("native") / "own_products.so"
# Weights for which there are kernels.
TYPES = ("BF16", "Q4_1")


class OwnProducts:
    """Those of this process. Without effect where the library was not compiled (hatch_build.py) or the processor lacks
    AVX512_BF16: llama.cpp then computes as ever."""

    def __init__(self) -> None:
        """Takes effect where llama.cpp is loaded later: the dynamic linker takes the function that it finds first."""
        self._library = ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL) if LIBRARY.is_file() else None
        if self._library:
            self._library.rustygpt_has_kernels.restype = ctypes.c_bool
            self._library.rustygpt_products.restype = ctypes.c_int64

    @property
    def types(self) -> list[str]:
        """Types of weights whose products are computed here."""
        return [*TYPES] if self._library and self._library.rustygpt_has_kernels() else []

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
