"""What chapters found, kept in a file that later chapters add to, and summed up in one line of JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from tests.chaos.chapter import Result


class Figures:
    """All results so far; where `path` is given, it is read first and written after every chapter."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._results: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self._results = json.loads(path.read_text())

    def add(self, result: Result) -> None:
        """Keeps a chapter's result."""
        self._results.append(dataclasses.asdict(result))
        if self._path is not None:
            self._path.write_text(json.dumps(self._results, indent=1) + "\n")

    def times(self, move: str) -> int:
        """How often a move was made."""
        return sum(len(result["recoveries"].get(move, ())) for result in self._results)

    @property
    def violations(self) -> int:
        """How many promises were broken."""
        return sum(len(result["violations"]) for result in self._results)

    def summary(self) -> dict[str, Any]:
        """Recovery times in seconds, sums of the rest. `ends` are the finish reasons of all answers."""
        seconds: dict[str, list[float]] = {}
        ends: dict[str, int] = {}
        for result in self._results:
            for move, values in result["recoveries"].items():
                seconds.setdefault(move, []).extend(values)
            for reason, count in result["ends"].items():
                ends[reason] = ends.get(reason, 0) + count
        return {
            "moves": {
                move: {
                    "times": len(values),
                    "recovery_p50_s": round(statistics.median(values), 2),
                    "recovery_max_s": round(max(values), 2),
                }
                for move, values in seconds.items()
            },
            "events": self._sum("events"),
            "turns": self._sum("turns"),
            "violations": self.violations,
            "observations": self._sum("observations"),
            "posts": self._sum("posts"),
            "turns_taken_over": self._sum("taken_over"),
            "ends": ends,
        }

    def _sum(self, name: str) -> int:
        return sum(result[name] for result in self._results)
