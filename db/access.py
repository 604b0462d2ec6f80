"""Where the database is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """Where the database is: at `url`, or embedded in `folder` of the one machine; and how a replica uses it."""

    url: str | None = field(repr=False)
    folder: Path
    connections_per_replica: int
    statement_timeout_seconds: float
