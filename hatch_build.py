"""Compiles the engine's own kernels when the package is installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("deployments/model/engine/native")
SOURCE, LIBRARY = "own_products.cpp", "own_products.so"


class Kernels(BuildHookInterface):
    """Without a compiler that knows them, and elsewhere than on Linux, nothing is compiled, and the engine computes
    with llama.cpp's own products. The library runs on any processor: what it can use is found when it is loaded."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Puts the library beside its source and into the wheel."""
        del version
        library = Path(self.root) / FOLDER / LIBRARY
        library.unlink(missing_ok=True)
        compiler = shlex.split(os.environ.get("CXX") or "c++")
        if sys.platform != "linux" or not shutil.which(compiler[0]):
            self.app.display_warning("no C++ compiler, or not Linux: all products are llama.cpp's")
            return
        flags = ["-std=c++17", "-O3", "-fvisibility=hidden", "-shared", "-fPIC"]
        part = library.with_name(f"{os.getpid()}.so")
        done = subprocess.run([*compiler, *flags, str(library.with_name(SOURCE)), "-o", str(part), "-ldl"])
        if done.returncode != 0:
            self.app.display_warning("the engine's kernels did not compile: all products are llama.cpp's")
            return
        part.replace(library)
        build_data["artifacts"].append(str(FOLDER / LIBRARY))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
