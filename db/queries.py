"""Named queries: all SQL that Python sends stands in queries.sql, under the name it is called by."""

from __future__ import annotations

import re
from pathlib import Path


def load_queries(path: Path) -> dict[str, str]:
    """Reads `-- name: x` sections. Raises ValueError where a name stands twice."""
    queries: dict[str, str] = {}
    for section in re.split(r"^-- name: ", path.read_text(), flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        if name in queries:
            raise ValueError(f"query {name!r} is defined twice in {path.name}")
        queries[name] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return queries


QUERIES = load_queries(Path(__file__).with_name("queries.sql"))
