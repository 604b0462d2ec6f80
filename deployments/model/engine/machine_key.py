"""What measurements of a machine depend on: the compiled code, the system's kernel, the processor, the cores."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.own_products import LIBRARY

# Shared objects on Linux, with a version after the suffix or without; on macOS; on Windows.
SUFFIXES = (".so", ".dylib", ".dll")
CPUINFO = Path("/proc/cpuinfo")


def machine_key() -> dict[str, str]:
    """Names what a measurement holds for: processes with equal answers compute with the same code on equal cores."""
    return {
        "build": build_key(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
    }


@cache
def build_key() -> str:
    """Hashes the contents of llama.cpp's shared objects and of the own kernels (SHA-256). Does not load them. Reads
    them once a process: 40 ms for 18 MB."""
    found = hashlib.sha256()
    for file in _libraries():
        found.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def _libraries() -> list[Path]:
    folder = _llama_folder()
    files = folder.iterdir() if folder and folder.is_dir() else ()
    found = sorted(file for file in files if file.is_file() and any(suffix in file.name for suffix in SUFFIXES))
    return [*found, LIBRARY] if LIBRARY.is_file() else found


def _llama_folder() -> Path | None:
    """Where llama_cpp loads its libraries from (llama_cpp/llama_cpp.py), found without importing it."""
    if override := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return Path(override)
    package = find_spec("llama_cpp")
    return Path(package.origin).parent / "lib" if package and package.origin else None


def _processor() -> str:
    """Its name, and what it can compute."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
