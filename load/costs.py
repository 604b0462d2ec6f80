"""Processor time and memory of groups of processes."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import psutil

GROUPS = {"streamer": "ServeReplica:streamer", "gateway": "ServeReplica:gateway", "haproxy": "haproxy.cfg"}


def product_groups(command: psutil.Process, home: Path) -> dict[str, list[psutil.Process]]:
    """All processes of a product: `command` is `rustygpt serve`, `home` holds its embedded database, whose server is
    no child of it."""
    server = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split("\n")[0]))
    groups: dict[str, list[psutil.Process]] = defaultdict(list)
    groups["postgres"] = [server, *server.children(recursive=True)]
    for process in [command, *command.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            groups[_group(" ".join(process.cmdline()))].append(process)
    return groups


def _group(title: str) -> str:
    return next((name for name, words in GROUPS.items() if words in title), "other")


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Processor time so far of those that are still there."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def memory_bytes(processes: Iterable[psutil.Process]) -> int:
    """Memory in RAM now; what several processes share is counted once (PSS)."""
    held = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            held += process.memory_full_info().pss
    return held
