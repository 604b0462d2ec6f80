"""Prints this machine's row of the table "Where it was run" in README, and whether the table has it already.

python tools/machine.py "`make check`, `make test`"
"""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
COLUMNS = ("Processor", "Instructions", "Cores", "Compiler", "System", "Python", "Date", "What was run")
# The last two describe a run, the others a machine.
MACHINE = slice(0, -2)

# Flags of /proc/cpuinfo that llama.cpp and the engine's own kernels choose their code by.
INSTRUCTIONS = {
    "amx_tile": "AMX",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512_BF16",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx2": "AVX2",
    "sve": "SVE",
    "i8mm": "I8MM",
    "asimddp": "dot product",
    "asimd": "NEON",
}
# Virtual machines often show a name without the generation: vendor, family, model.
GENERATIONS = {
    ("AuthenticAMD", "23", "49"): "Rome",
    ("AuthenticAMD", "25", "1"): "Milan",
    ("AuthenticAMD", "25", "17"): "Genoa",
    ("AuthenticAMD", "26", "2"): "Turin",
    ("GenuineIntel", "6", "106"): "Ice Lake",
    ("GenuineIntel", "6", "143"): "Sapphire Rapids",
    ("GenuineIntel", "6", "173"): "Granite Rapids",
    ("GenuineIntel", "6", "207"): "Emerald Rapids",
}


def row(what_was_run: str) -> list[str]:
    """Returns a cell for each of COLUMNS. A fact that the system does not give is "not known"."""
    facts = _cpuinfo()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    instructions = ", ".join(name for flag, name in INSTRUCTIONS.items() if flag in flags)
    today = datetime.datetime.now(datetime.UTC).date()
    cells = (
        _processor(facts),
        instructions,
        str(os.cpu_count() or ""),
        _compiler(),
        _system(),
        platform.python_version(),
        f"{today.day} {today:%B %Y}",
        what_was_run,
    )
    return [cell.replace("|", "/") or "not known" for cell in cells]


def table(text: str) -> list[list[str]]:
    """Returns the cells of each row of the table in README's text, without its head. Raises ValueError if there is no
    table with the head that COLUMNS makes."""
    lines = iter(text.splitlines())
    if line_of(list(COLUMNS)) not in lines:  # goes on to the line after the head
        raise ValueError(f"README has no table with the head {line_of(list(COLUMNS))}")
    next(lines)  # the line of dashes
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def line_of(cells: list[str]) -> str:
    """Returns the cells as a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processor(facts: dict[str, str]) -> str:
    name = facts.get("model name") or platform.processor() or platform.machine()
    generation = GENERATIONS.get((facts.get("vendor_id", ""), facts.get("cpu family", ""), facts.get("model", "")))
    return f"{name} ({generation})" if generation else name


def _compiler() -> str:
    command = [*shlex.split(os.environ.get("CXX") or "c++"), "--version"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    words = lines.splitlines()[0].split()
    if "clang" in words:
        return f"Clang {words[words.index('version') + 1]}"
    return f"GCC {words[-1]}" if "Free Software Foundation" in lines else words[0]


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
        name = f"{release['NAME'].removesuffix(' GNU/Linux')} {release.get('VERSION_ID', '')}".strip()
    except OSError:
        return platform.platform(terse=True)
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{name}, {platform.system()} {kernel}"


def main() -> None:
    """See the module."""
    cells = row(sys.argv[1] if len(sys.argv) > 1 else "`make test`")
    known = any(cells[MACHINE] == other[MACHINE] for other in table(README.read_text()))
    says = "has this machine" if known else "lacks this machine. Its row"
    sys.stdout.write(f"README's table of machines {says}:\n{line_of(cells)}\n")


if __name__ == "__main__":
    main()
