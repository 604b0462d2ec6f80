"""Warm prefixes on disk, so that a restart does not cost everybody a prefill.

Format: a line of JSON {"fingerprint", "entries": [{"tokens", "bytes", "crc32"}]}, then the entries' bytes.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from deployments.model.engine.kv_memory import Snapshot

logger = logging.getLogger(__name__)

# The format of the cells is llama.cpp's own and may change with it.
VERSION = f"1 llama-cpp-python {version('llama-cpp-python')}"


def save_prefixes(path: Path, snapshots: Sequence[Snapshot], fingerprint: str, limit_bytes: int) -> int:
    """Writes the last ones of `snapshots` that `limit_bytes` hold, as a whole or not at all; returns how many."""
    kept: list[Snapshot] = []
    for snapshot in reversed(snapshots):
        if snapshot.data.nbytes > limit_bytes:
            continue
        limit_bytes -= snapshot.data.nbytes
        kept.insert(0, snapshot)
    entries = [{"tokens": s.tokens, "bytes": s.data.nbytes, "crc32": zlib.crc32(s.data.data)} for s in kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        # Conversations can be read out of it: nobody else may.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps({"fingerprint": VERSION + fingerprint, "entries": entries}).encode() + b"\n")
            for snapshot in kept:
                file.write(snapshot.data.data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(kept)


def load_prefixes(path: Path, fingerprint: str) -> list[Snapshot]:
    """What was saved for this model; none when there is no such file, or it is damaged or of another model."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            if head["fingerprint"] != VERSION + fingerprint:
                return []
            snapshots: list[Snapshot] = []
            for entry in head["entries"]:
                data = np.frombuffer(file.read(entry["bytes"]), np.uint8)
                if data.size != entry["bytes"] or zlib.crc32(data.data) != entry["crc32"]:
                    raise ValueError("a damaged entry")
                snapshots.append(Snapshot(tuple(entry["tokens"]), data))
            return snapshots
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        logger.warning("the saved prefixes in %s cannot be used: %s", path, error)
        return []
