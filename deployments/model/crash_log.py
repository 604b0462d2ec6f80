"""What a replica's process leaves behind when a signal ends it: how it ran the model, and where it was.

    starting --engine answers--> ready --signal--> crashed          (a file for each process)

A process that ends in order, or that somebody kills, leaves no trace of a crash in its file.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from deployments.model.engine.machine_key import build_key
from deployments.model.engine.verification.run_config import RunConfig
from deployments.model.owner import is_dead

logger = logging.getLogger(__name__)

MARK = "Fatal Python error: "
# A crash so soon after the engine was ready is laid to the way it runs; later ones when there are several.
SOON_SECONDS = 60.0
SEVERAL, WITHIN_SECONDS = 3, 600.0


@dataclass(frozen=True)
class Crash:
    """A replica's end by a signal. `tuned`: it ran with measured settings. `seconds_ready` is how long it had answered
    before; None: it never did."""

    config: RunConfig
    tuned: bool
    reason: str
    seconds_ready: float | None
    at: float


class CrashLog:
    """A folder with a file for each replica of a model on this machine. `owner` names this process as leases do."""

    def __init__(self, folder: Path, model_id: str, owner: str) -> None:
        self._folder = folder
        self._name = quote(model_id, safe="")
        self._owner = owner
        self._file: IO[str] | None = None

    def collect(self) -> list[Crash]:
        """Crashes of replicas that are gone, those of the last ten minutes among them that were collected before.
        Older traces are removed."""
        found: list[Crash] = []
        for file in self._folder.glob(f"{self._name}.*.crash"):
            crash, is_over = self._read(file)
            if crash and time.time() - crash.at < WITHIN_SECONDS:
                found.append(crash)
            elif is_over:
                file.unlink(missing_ok=True)
        return found

    def begin(self, config: RunConfig, tuned: bool) -> None:
        """Has the end of this process by a signal recorded, from now on, where the folder can be written."""
        path = self._folder / f"{self._name}.{os.getpid()}-{time.time_ns()}.crash"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w")
        except OSError as error:
            logger.warning("a crash of this replica would leave no trace: %s", error)
            return
        self._write({"owner": self._owner, "config": config.to_json(), "tuned": tuned, "build": build_key()})
        # Ray's own handler writes to standard error; only one can be.
        faulthandler.enable(self._file, all_threads=True)

    def ready(self) -> None:
        """Notes that the engine answers."""
        self._write({"ready": time.time()})

    def _write(self, record: dict[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def _read(self, file: Path) -> tuple[Crash | None, bool]:
        """The crash that it tells of, if any, and whether its process is gone."""
        try:
            lines = file.read_text(errors="replace").splitlines()
            head = json.loads(lines[0])
            if not is_dead(head["owner"]):
                return None, False
            ready = next((json.loads(line)["ready"] for line in lines[1:2] if line.startswith("{")), None)
            at = file.stat().st_mtime
            reason = next((line.removeprefix(MARK) for line in lines[1:] if line.startswith(MARK)), None)
            config = RunConfig(**head["config"])
            # What other code did says nothing of this one's.
            same_build = head["build"] == build_key()
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None, True
        if reason is None or not same_build:
            return None, True
        return Crash(config, bool(head["tuned"]), reason, None if ready is None else max(0.0, at - ready), at), True


def conclusive(crashes: list[Crash]) -> dict[tuple[RunConfig, bool], str]:
    """The ways to run (a config, tuned or not) that are not to be used again, and why: those that crashed before they
    answered or soon after, and those that crashed several times."""
    found: dict[tuple[RunConfig, bool], str] = {}
    for crash in crashes:
        way = crash.config, crash.tuned
        same = [other for other in crashes if (other.config, other.tuned) == way]
        if crash.seconds_ready is None or crash.seconds_ready < SOON_SECONDS:
            found[way] = f"the replica crashed: {crash.reason}"
        elif len(same) >= SEVERAL:
            found[way] = f"the replica crashed {len(same)} times: {crash.reason}"
    return found
