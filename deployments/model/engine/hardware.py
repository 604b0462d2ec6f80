"""What this process may use of the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
QUERY_SECONDS = 5.0


@dataclass(frozen=True)
class Gpu:
    """`kind` is cuda, rocm or metal; `memory_bytes` of all devices together, None when nobody tells."""

    kind: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Hardware:
    """Cores and memory that this process may use, be they the machine's or its container's."""

    cores: int
    memory_bytes: int
    available_bytes: int
    gpu: Gpu | None

    @property
    def spendable_bytes(self) -> int:
        """Available memory less a reserve for the rest of the machine: the smaller it is, the larger the share."""
        gib = self.memory_bytes / 2**30
        reserve = 0.30 if gib < 4 else 0.25 if gib < 8 else 0.20 if gib < 16 else 0.15
        return int(self.available_bytes * (1 - reserve))


def detect_hardware(cgroup: Path = CGROUP) -> Hardware:
    """Reads it anew at each call."""
    memory = psutil.virtual_memory()
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    total, available = memory.total, memory.available
    if limit is not None and limit < total:
        total, available = limit, min(available, limit - (used or 0))
    return Hardware(usable_cores(cgroup), total, max(0, available), _gpu())


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may run on, and no more than its container's share of processor time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        share = int(quota) / int(period)
    except (OSError, ValueError):  # no cgroup of version 2, or "max": no limit
        return cores
    return max(1, min(cores, round(share)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _gpu() -> Gpu | None:
    if shutil.which("nvidia-smi"):
        sizes = _numbers(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"])
        return Gpu("cuda", sum(sizes) * 2**20 or None)
    if shutil.which("rocm-smi"):
        # card0,<bytes in all>,<bytes used>
        sizes = _numbers(["rocm-smi", "--showmeminfo", "vram", "--csv"], column=1)
        return Gpu("rocm", sum(sizes) or None)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        # Its memory is the machine's; Metal lends out about two thirds.
        return Gpu("metal", psutil.virtual_memory().total * 2 // 3)
    return None


def _numbers(command: list[str], column: int = 0) -> list[int]:
    """A column of a tool's comma-separated answer; its heading and what is no number are left out."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return [int(row[column]) for row in rows if len(row) > column and row[column].strip().isdigit()]
