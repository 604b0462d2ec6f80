"""The names by which replicas hold leases, and which of them are known to be dead."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil


def _place() -> str:
    """Where process numbers mean the same processes: a host, and on Linux its namespace of them."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{namespace.stat().st_ino}" if namespace.exists() else socket.gethostname()


def own_name() -> str:
    """This process's."""
    return f"{_place()}:{os.getpid()}"


def is_dead(owner: str) -> bool:
    """Whether it is certain that this replica is gone: it was here, and has no process any more. Its leases need not
    run out then. Of a replica elsewhere nothing is known, and a stopped one may go on."""
    place, _, number = owner.rpartition(":")
    if place != _place() or not number.isdigit():
        return False
    try:
        return psutil.Process(int(number)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
