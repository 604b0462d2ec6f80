"""Which compiled code computes in this process: chosen before llama.cpp is loaded, and final from then on.

llama.cpp's CPU backend may be compiled several times, for several generations of processors (tools/llama.cmake). Each
is a library of its own beside libllama.so, `libggml-cpu-<variant>.so`, and scores itself by what the processor can do.
A llama-cpp-python that was compiled otherwise has one CPU backend, linked in: then there are no variants.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deployments.model.engine.own_products import OwnProducts

PREFIX, SUFFIX = "libggml-cpu-", ".so"
NOT_BACKENDS = ("libggml-base.so", "libggml.so")

own_products = OwnProducts()


@dataclass(frozen=True)
class Backend:
    """A choice of compiled code. `cpu_variant` None: the best that this processor runs."""

    own_kernels: bool = True
    cpu_variant: str | None = None


class BackendError(Exception):
    """The choice cannot be made; the message says why."""


_chosen = Backend()
_library: Any = None
# llama.cpp calls it: it must live as long as the process.
_log: Any = None


def select(own_kernels: bool = True, cpu_variant: str | None = None) -> None:
    """Chooses what this process computes with. Raises BackendError when llama.cpp is loaded with another choice."""
    global _chosen
    choice = Backend(own_kernels, cpu_variant)
    if _library is not None and choice != _chosen:
        raise BackendError(f"llama.cpp is loaded with {_chosen}; another process is needed for {choice}")
    _chosen = choice


def load() -> Any:
    """Loads llama.cpp as chosen, once a process, and returns its bindings. Raises BackendError when the chosen variant
    is missing."""
    global _library
    if _library is None:
        # First: the dynamic linker binds a call to the function that it finds first.
        if _chosen.own_kernels:
            own_products.install()
        import llama_cpp.llama_cpp as library

        _silence(library)
        _load_backends(library)
        _library = library
    return _library


@cache
def variants() -> tuple[str, ...]:
    """Names of the CPU variants that were compiled and that this processor runs, the best first; () where there is one
    CPU backend only. Loads llama.cpp."""
    load()
    scores = {file: _score(file) for file in _folder(_library).glob(f"{PREFIX}*{SUFFIX}")}
    return tuple(_name(file) for file in sorted(scores, key=lambda file: -scores[file]) if scores[file] > 0)


def loaded_variant() -> str | None:
    """Name of the CPU variant that computes here; None where there is one CPU backend only. Loads llama.cpp."""
    load()
    found = variants()
    return (_chosen.cpu_variant or found[0]) if found else None


def cpu_library() -> Path:
    """The file of the CPU backend that computes here. Loads llama.cpp."""
    load()
    variant = loaded_variant()
    return _folder(_library) / (f"{PREFIX}{variant}{SUFFIX}" if variant else "libggml-cpu.so.0")


def _load_backends(library: Any) -> None:
    """Where backends are libraries of their own, llama.cpp has none until they are loaded."""
    files = sorted(_folder(library).glob("libggml-*.so"))
    cpu = [file for file in files if file.name.startswith(PREFIX)]
    if not cpu:
        if _chosen.cpu_variant is not None:
            raise BackendError(f"llama.cpp was compiled without CPU variants: there is no {_chosen.cpu_variant}")
        return
    wanted = [file for file in cpu if _name(file) == _chosen.cpu_variant] if _chosen.cpu_variant else cpu
    if not wanted:
        raise BackendError(f"llama.cpp was compiled without the CPU variant {_chosen.cpu_variant}")
    best = max(wanted, key=_score)
    if _score(best) <= 0:
        raise BackendError(f"no CPU backend in {_folder(library)} runs on this processor")
    others = [file for file in files if file not in cpu and file.name not in NOT_BACKENDS]
    for file in (*others, best):
        register = library._lib.ggml_backend_load
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        if not register(str(file).encode()) and file == best:
            raise BackendError(f"{file} cannot be loaded")


def _silence(library: Any) -> None:
    """Drops what llama.cpp logs, until the first model is loaded (model_file.py)."""
    global _log

    @library.llama_log_callback
    def log(_level: int, _text: bytes, _user_data: ctypes.c_void_p) -> None:
        pass

    _log = log
    library.llama_log_set(log, ctypes.c_void_p(0))


def _folder(library: Any) -> Path:
    return Path(library._lib._name).parent


def _name(file: Path) -> str:
    return file.name.removeprefix(PREFIX).removesuffix(SUFFIX)


def _score(file: Path) -> int:
    """What ggml gives the library on this processor; 0: it does not run here."""
    try:
        return ctypes.CDLL(str(file)).ggml_backend_score()
    except (OSError, AttributeError):
        return 0
