"""How to run a model on this machine: measured (autotune.py), kept on disk, found again by the model, the machine and
what runs on it (machine_key.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.model.engine.choices import Choices
from deployments.model.engine.machine_key import machine_key
from deployments.model.engine.model_file import check_magic, digest
from deployments.model.engine.progress import Progress
from deployments.model.engine.request import EngineOptions

logger = logging.getLogger(__name__)

VERSION = 5
GIVEN = "as given"


@dataclass(frozen=True)
class Tuning:
    """What was chosen; None: what the engine takes otherwise, for `weights` the given file. `measured` says what was
    tried, with gains and losses, or the `fault` for which nothing was."""

    format: str = GIVEN
    weights: Path | None = None
    wait_policy: str = "default"
    n_threads: int | None = None
    n_batch: int | None = None
    n_ubatch: int = 512
    kv_unified: bool = False
    flash_attention: bool = True
    huge_pages: bool = False
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def is_provisional(self) -> bool:
        """Whether the model is to be measured again: other processes kept the cores busy, or it could not be done."""
        return self.is_fault or bool(self.measured.get("loaded"))

    @property
    def is_fault(self) -> bool:
        """Whether nothing was measured: the model runs as it is."""
        return "fault" in self.measured

    def prepare_process(self) -> None:
        """Sets how threads wait. Without effect once this process has loaded llama.cpp."""
        if self.wait_policy != "default":
            os.environ["OMP_WAIT_POLICY"] = self.wait_policy

    def model_file(self, given: Path) -> Path:
        """The file to load."""
        return self.weights if self.weights and self.weights.is_file() else given

    def applied(self, options: EngineOptions) -> EngineOptions:
        """The options with what was measured."""
        return dataclasses.replace(
            options,
            n_threads=self.n_threads or options.n_threads,
            n_batch=self.n_batch or options.n_batch,
            n_ubatch=self.n_ubatch,
            kv_unified=self.kv_unified,
            flash_attention=self.flash_attention,
            huge_pages=self.huge_pages,
        )


class Tunings:
    """A folder with a record for each model and machine, and with the weights that were made. `choices` are those that
    were verified for this machine, as autotune.py takes them: with others, other measurements hold."""

    def __init__(self, folder: Path, choices: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._choices = Choices(**(choices or {}))

    def find(self, model: Path, weights: str) -> Tuning | None:
        """What was measured before, a fault among it (`is_provisional`), or None. `weights` is "auto" or "as_is".
        Raises ModelFileError when `model` is no model's file."""
        file = self.record(model, weights)
        try:
            tuning = load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("the measurements for %s cannot be used and are made anew: %s", model, error)
            return None
        return None if tuning.weights and not tuning.weights.is_file() else tuning

    def record(self, model: Path, weights: str) -> Path:
        """The file of its measurement, which may not be there yet. Raises ModelFileError."""
        check_magic(model)
        return self._folder / f"{model.stem[:40]}-{self._key(model, weights)}.json"

    def command(self, model: Path, weights: str) -> list[str]:
        """What measures it and writes the record, a process that may be stopped and continued with its group. Raises
        ModelFileError."""
        module, record = "deployments.model.engine.autotune", self.record(model, weights)
        return [sys.executable, "-m", module, str(model), str(record), weights, json.dumps(self._choices.changed())]

    def obtain(self, model: Path, weights: str, on_progress: Callable[[Progress], None] | None = None) -> Tuning:
        """What was measured before, on a loaded machine too, else measures now, which takes minutes. One process of
        the machine measures at a time: the others report that they wait. When it cannot be done, the log says why,
        `measured` has the `fault`, and the model runs as it is; the next call tries again. Raises ModelFileError."""
        found = self.find(model, weights)
        if found and not found.is_fault:
            return found
        try:
            return self._measured(model, weights, on_progress or (lambda _progress: None))
        except OSError as error:
            logger.warning("measurements cannot be kept in %s: %s; %s runs as it is", self._folder, error, model)
            return Tuning(measured={"fault": str(error)})

    def _measured(self, model: Path, weights: str, on_progress: Callable[[Progress], None]) -> Tuning:
        self._folder.mkdir(parents=True, exist_ok=True)
        logger.info("measuring how this machine runs %s best: once, two to three minutes for a small model", model.name)
        with tempfile.TemporaryFile("w+") as errors:
            with subprocess.Popen(
                self.command(model, weights), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    with contextlib.suppress(ValueError, TypeError):
                        on_progress(Progress.parse(line))
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if process.returncode != 0:
            keep_fault(self.record(model, weights), said[-1] if said else f"it ended with {process.returncode}")
        tuning = self.find(model, weights)
        if tuning is None:
            raise OSError(f"{self.record(model, weights)} was not written")
        if tuning.is_fault:
            fault = tuning.measured["fault"]
            logger.warning("%s could not be measured and runs as it is: %s; the next start tries again", model, fault)
        else:
            logger.info("%s runs with weights %s: %s", model.name, tuning.format, json.dumps(tuning.measured))
        return tuning

    def _key(self, model: Path, weights: str) -> str:
        """Changes with the model's bytes, the machine, the compiled code and the choices."""
        facts = [VERSION, weights, digest(model), machine_key(), self._choices.changed()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load(record: Path) -> Tuning:
    """Raises OSError, ValueError, TypeError, KeyError."""
    found = json.loads(record.read_text())
    made = found.pop("weights")
    return Tuning(weights=Path(made) if made else None, **found)


def save(tuning: Tuning, record: Path) -> None:
    """As a whole or not at all. Raises OSError."""
    part = record.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(tuning), default=str, indent=1))
    part.replace(record)


def keep_fault(record: Path, fault: str) -> None:
    """Says in the record why nothing was measured. An earlier measurement stays. Raises OSError."""
    if not holds_measurement(record):
        save(Tuning(measured={"fault": fault}), record)
        remove_versions(record)


def holds_measurement(record: Path) -> bool:
    """Whether the record is one that a model can be run by."""
    try:
        return not load(record).is_fault
    except (OSError, ValueError, TypeError, KeyError):
        return False


def written(record: Path) -> int | None:
    """When the record was written, in nanoseconds; None where there is none."""
    try:
        return record.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def remove_versions(record: Path) -> None:
    """Removes versions of the model that the record does not choose, and what was left half written."""
    chosen = load(record).weights
    for file in record.parent.glob(f"{record.stem}-*.gguf*"):
        if file != chosen:
            file.unlink(missing_ok=True)
