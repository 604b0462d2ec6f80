"""Installs this repository's packages with pip, as constraints.txt pins them, and shows how far it is.

    python tools/install.py dependencies [EXTRA ...]

installs what pyproject.toml names, with the extras that are given, but for llama-cpp-python, which build_llama.py
compiles. Ends as pip does, with its last lines where it fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from progress import ProgressLine

ROOT = Path(__file__).resolve().parents[1]
COMPILED = "llama-cpp-python"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]


def main() -> None:
    """Ends with 1 when pip fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [name for name in project["dependencies"] if name != COMPILED]
    for extra in sys.argv[2:]:
        wanted += project["optional-dependencies"][extra]
    pins = ROOT / "constraints.txt"
    # Every package of the constraints at most; those that are there already go by fast.
    of = sum(bool(line.strip()) and not line.startswith("#") for line in pins.read_text().splitlines())
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*PIP, "--progress-bar", "off", "-c", str(pins), *wanted],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        progress, done = ProgressLine("packages found"), 0
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
