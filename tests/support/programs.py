"""Finds the system's programs that tests start, as `make test` finds them: by tools/system_packages.sh."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "system_packages.sh"
# Each has a session fixture `<need>_program`, its path.
NEEDS = ("browser", "prometheus", "promtool", "postgresql", "curl")


def find(need: str) -> Path:
    """Returns the program's path. Raises LookupError with one line that says what to do."""
    done = _run("--find", need)
    if done.returncode != 0:
        raise LookupError(done.stderr.strip())
    return Path(done.stdout.strip())


def missing(fixtures: Iterable[str]) -> str:
    """Returns one line that names the missing programs of these fixtures and the command that installs them, or ""."""
    needs = [need for need in NEEDS if f"{need}_program" in fixtures]
    return " ".join(_run(*needs).stderr.split()) if needs else ""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEM_PACKAGES": "no"}
    return subprocess.run(["sh", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)
