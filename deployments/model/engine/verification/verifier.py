"""Finds a way to run a model on this machine that computes right, and keeps it.

A way that has crashed or computed wrongly is not served again while its session lasts: until the service, or on a
cluster Ray on this machine, starts anew. Then faults are tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployments.model.engine.errors import EngineError
from deployments.model.engine.machine_key import machine_key
from deployments.model.engine.model_file import digest
from deployments.model.engine.verification.answers import fault_of
from deployments.model.engine.verification.checker import Task, check
from deployments.model.engine.verification.reference import Reference, References
from deployments.model.engine.verification.run_config import Capabilities, RunConfig, ladder

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fault:
    """A way that was tried and did not work."""

    config: RunConfig
    reason: str


class NothingRuns(EngineError):
    """No way to run the model on this machine works. Attribute: `faults`, those that were tried."""

    def __init__(self, faults: list[Fault]) -> None:
        tried = "; ".join(f"{fault.config}: {fault.reason}" for fault in faults)
        super().__init__(f"this machine runs the model in no way that was tried ({tried})")
        self.faults = faults


@dataclass(frozen=True)
class Verified:
    """A way that works, those tried before it that do not, and what its answers were compared with."""

    config: RunConfig
    faults: list[Fault] = field(default_factory=list)
    reference: Reference = field(default_factory=lambda: Reference(None, "not compared"))

    def describe(self) -> dict[str, Any]:
        """For the operator."""
        return {
            "given_up": self.config.given_up(),
            "faults": [{"tried": str(fault.config), "fault": fault.reason} for fault in self.faults],
            "reference": self.reference.source,
        }


@dataclass(frozen=True)
class Candidate:
    """A model to verify: how it is run but for what a RunConfig changes, the model that its answers are compared with
    (another where weights were made of it), and whether a GPU may be used."""

    task: Task
    original: Task
    uses_gpu: bool = False


class Verifier:
    """Ways that were verified on this machine, in a folder. `session` names the service's or the cluster's present
    start on it."""

    def __init__(self, folder: Path, session: str) -> None:
        self._folder = folder
        self._session = session
        self._references = References(folder)

    def obtain(self, candidate: Candidate, say: Say = logger.info, only: RunConfig | None = None) -> Verified:
        """A way that answers the prompts as the reference does: found before, or else now, among all or `only` this.
        Raises NothingRuns, ModelFileError. Processes that ask for the same wait for each other."""
        with _alone(self._file(candidate)):
            return self._obtain(candidate, say, only)

    def _obtain(self, candidate: Candidate, say: Say, only: RunConfig | None) -> Verified:
        found = self._read(candidate)
        if found and found["session"] != self._session and found["faults"]:
            found = None  # tried again
        faults = [_fault(item) for item in found["faults"]] if found else []
        if found and found["config"] is not None and (only is None or RunConfig(**found["config"]) == only):
            reference = self._references.obtain(candidate.original, Capabilities(**found["capabilities"]))
            return Verified(RunConfig(**found["config"]), faults, reference)
        return self._search(candidate, faults, say, only)

    def reject(self, candidate: Candidate, config: RunConfig, reason: str) -> None:
        """Keeps that a way which was verified has failed afterwards: it is not used again in this session."""
        found = self._read(candidate)
        same = found is not None and found["session"] == self._session
        faults = [_fault(item) for item in found["faults"]] if found and same else []
        self._write(candidate, None, [*faults, Fault(config, reason)], Capabilities())

    def _search(self, candidate: Candidate, faults: list[Fault], say: Say, only: RunConfig | None) -> Verified:
        rejected = {fault.config for fault in faults}
        first = only or RunConfig()
        if only in rejected:
            raise NothingRuns(faults)
        say("checking that this machine computes right")
        checked = check(candidate.task, first)
        capabilities = checked.capabilities or self._explore(candidate)
        for config in [only] if only else ladder(capabilities, candidate.uses_gpu):
            if config in rejected:
                continue
            if config != first:
                say(f"trying {config}")
                checked = check(candidate.task, config)
            reason = checked.fault
            if checked.answers is not None:
                reference = self._references.obtain(candidate.original, capabilities)
                reason = fault_of(checked.answers, reference.answers or [])
                if not reason:
                    self._write(candidate, config, faults, capabilities)
                    return Verified(config, faults, reference)
            logger.warning("%s does not run %s here: %s", candidate.task.model.name, config, reason)
            faults = [*faults, Fault(config, reason)]
        self._write(candidate, None, faults, capabilities)
        raise NothingRuns(faults)

    def _explore(self, candidate: Candidate) -> Capabilities:
        """What there is to choose from, where the first way crashed before it could tell."""
        found = check(candidate.task, RunConfig(own_kernels=False)).capabilities
        return found or Capabilities(own_kernels=True)

    def _read(self, candidate: Candidate) -> dict[str, Any] | None:
        try:
            found = json.loads(self._file(candidate).read_text())
            [_fault(item) for item in found["faults"]]
            RunConfig(**(found["config"] or {}))
            Capabilities(**found["capabilities"])
            return found if isinstance(found["session"], str) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("what was verified before cannot be used and is verified again: %s", error)
            return None

    def _write(
        self, candidate: Candidate, config: RunConfig | None, faults: list[Fault], capabilities: Capabilities
    ) -> None:
        record = {
            "session": self._session,
            "config": config.to_json() if config else None,
            "capabilities": asdict(capabilities),
            "faults": [{"config": fault.config.to_json(), "reason": fault.reason} for fault in faults],
        }
        file = self._file(candidate)
        part = file.with_suffix(".part")
        try:
            part.write_text(json.dumps(record, indent=1))
            part.replace(file)
        except OSError as error:
            logger.warning("%s cannot be written, so that the next start verifies again: %s", file, error)

    def _file(self, candidate: Candidate) -> Path:
        parts = [machine_key(), candidate.uses_gpu]
        parts += [
            [digest(t.model), sorted(t.options.items()), t.wait_policy] for t in (candidate.task, candidate.original)
        ]
        key = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
        return self._folder / f"{candidate.task.model.stem[:40]}-{key}.verified.json"


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Holds the lock of a record. Without effect in a folder that cannot be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(file.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield


def _fault(item: dict[str, Any]) -> Fault:
    return Fault(RunConfig(**item["config"]), item["reason"])
