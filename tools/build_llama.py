"""Compiles llama-cpp-python for this product (llama.cmake) and keeps the wheel in the user's cache.

    python tools/build_llama.py REQUIREMENT FOLDER [all]

puts the wheel into FOLDER: the one in the cache, where it was compiled by the same recipe, compiler and options for the
same processor and Python, or else a new one. "all": for every processor, not for this one only. Uses pip of the Python
that runs it, and nothing else that would have to be installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import IO

from progress import ProgressLine

TOOLS = Path(__file__).resolve().parent
RECIPE = [TOOLS / "llama.cmake", TOOLS / "amx_tile_config.h", Path(__file__)]
STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")
KEPT_WHEELS = 4


def main() -> None:
    """Ends with 1 and the compiler's last lines when it cannot."""
    requirement, folder, *rest = sys.argv[1:]
    variants = rest[0] if rest else ""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if not shutil.which(compiler):
        sys.exit(f"{compiler} was not found: llama.cpp is compiled for this machine, which takes a C/C++ compiler.")
    options = shlex.split(os.environ.get("CMAKE_ARGS", ""))
    options.append(f"-DRUSTYGPT_CPU_VARIANTS={variants}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    cache = _cache() / "wheels" / _key(requirement, options, compiler)
    found = list(cache.glob("*.whl"))
    if found:
        print(f"{found[0].name} was compiled here before", flush=True)
    else:
        found = [_compiled(requirement, options, cache)]
        _forget_old(cache)
    for old in target.glob("llama_cpp_python-*.whl"):
        old.unlink()
    shutil.copy2(found[0], target)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rustygpt"


def _key(requirement: str, options: list[str], compiler: str) -> str:
    """Changes with whatever may change the compiled code."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    facts = [requirement, *options, version, sysconfig.get_platform(), *platform.libc_ver(), _features()]
    facts += [hashlib.sha256(file.read_bytes()).hexdigest() for file in RECIPE]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compiled(requirement: str, options: list[str], cache: Path) -> Path:
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as work:
        log = Path(work) / "log"
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "wheel", "--verbose"]
        # Without pip's own cache: it does not tell wheels apart that were compiled with other options.
        command += ["--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python", "--wheel-dir", work, requirement]
        # Not a part of the key: the same recipe may lie elsewhere.
        including = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={RECIPE[0]}"
        environment = os.environ | {"CMAKE_ARGS": shlex.join([*options, including])}
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
            assert process.stdout is not None
            _follow(process.stdout, file)
            status = process.wait()
        wheels = list(Path(work).glob("*.whl"))
        if status or not wheels:
            sys.exit("\n".join([*log.read_text().splitlines()[-30:], "", "Compiling llama-cpp-python failed."]))
        cache.mkdir(exist_ok=True)
        return Path(shutil.move(wheels[0], cache / wheels[0].name))


def _follow(lines: IO[str], log: IO[str]) -> None:
    """Copies pip's output to the log, and shows how far the compiler is."""
    progress: ProgressLine | None = None
    for line in lines:
        log.write(line)
        if step := STEP.match(line):
            progress = progress or ProgressLine("compiling llama.cpp")
            progress.show(int(step[1]), int(step[2]))
    if progress:
        progress.close()


def _forget_old(cache: Path) -> None:
    """Of earlier recipes and processors, only the last few wheels are kept."""
    kept = sorted(cache.parent.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)[:KEPT_WHEELS]
    for folder in set(cache.parent.iterdir()) - set(kept) - {cache}:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
